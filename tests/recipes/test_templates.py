"""Our chat templates write what the model's makers wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = Path(__file__).parents[2] / "recipes" / "templates" / "mistral.jinja"

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}


def render(*messages: dict[str, str]) -> str:
    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    # The two settings with which transformers compiles templates.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(), globals={"raise_exception": refuse})
    return template.render(messages=list(messages), bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([USER], "<s> [INST] Hello [/INST]"),
        ([USER, ANSWER], "<s> [INST] Hello [/INST] Hi</s>"),
        ([SYSTEM, USER, ANSWER], "<s> [INST] Be brief.\n\nHello [/INST] Hi</s>"),
        (
            [SYSTEM, USER, ANSWER, USER, ANSWER],
            "<s> [INST] Be brief.\n\nHello [/INST] Hi</s> [INST] Hello [/INST] Hi</s>",
        ),
    ],
)
def test_the_mistral_template_writes_the_official_text(messages: list[dict[str, str]], text: str) -> None:
    assert render(*messages) == text


@pytest.mark.parametrize("messages", [[ANSWER], [USER, USER], [SYSTEM, ANSWER], [USER, SYSTEM]])
def test_the_mistral_template_refuses_what_the_model_never_saw(messages: list[dict[str, str]]) -> None:
    with pytest.raises(jinja2.TemplateError, match="take turns"):
        render(*messages)


@pytest.mark.skipif(not os.environ.get("TUNESMITH_DATA"), reason="TUNESMITH_DATA names no folder with official vectors")
def test_the_mistral_template_meets_the_official_token_vectors() -> None:
    from tokenizers import Tokenizer

    data = Path(os.environ["TUNESMITH_DATA"])
    tokenizer = Tokenizer.from_file(str(data / "tokenizers" / "mistral_v1" / "tokenizer.json"))
    lines = (data / "templates" / "mistral_official_token_vectors.jsonl").read_text().splitlines()
    vectors: list[dict[str, Any]] = [vector for line in lines if (vector := json.loads(line))["version"] == "v1"]
    assert len(vectors) == 13
    for vector in vectors:
        assert tokenizer.encode(render(*vector["messages"]), add_special_tokens=False).ids == vector["ids"]
