from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tunesmith.config.schema import RunConfig
from tunesmith.data.cache import TokensDataset, write_tokens
from tunesmith.data.forest import plant_forest
from tunesmith.data.prove import Proof, prove_labels
from tunesmith.data.render import Renderer
from tunesmith.data.show import mask, show_example, stats, token_texts
from tunesmith.types import IGNORE, Example, Message, Tokens

CONFIG = RunConfig.model_validate(
    {"task": "chat", "model": {"name": "demo"}, "data": {"train": "x"}, "train": {"batch_size": 7, "max_tokens": 200}}
)


def conversation(number: int) -> Example:
    messages = [Message("system", "Answer with one query."), Message("user", f"How many cats in clinic {number % 5}?")]
    messages.append(Message("assistant", f"SELECT count(*) FROM cat{number};\n\nĐáp số: {number}", train=True))
    if number % 3 == 0:
        messages += [Message("user", "Twice?"), Message("assistant", "Two.", train=number % 2 == 0)]
        messages += [Message("user", "Sure?"), Message("assistant", "Yes.", train=True)]
    return Example(str(number % 20), tuple(messages), place=f"a.jsonl:{number + 1}")


@pytest.fixture
def dataset(tmp_path: Path, make_tokenizer: Any) -> Callable[..., tuple[TokensDataset, Any, Renderer]]:
    def build(family: str = "chatml", kind: str = "bytes") -> tuple[TokensDataset, Any, Renderer]:
        tokenizer = make_tokenizer(family, kind)
        renderer = Renderer(tokenizer)
        examples = [conversation(number) for number in range(40)]
        write_tokens(tmp_path, "train", [renderer.render(one) for one in examples], examples)
        return TokensDataset(tmp_path, "train"), tokenizer, renderer

    return build


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("family", ["mistral", "llama", "chatml"])
def test_right_rows_are_proved(dataset: Any, family: str, kind: str) -> None:
    rows, tokenizer, renderer = dataset(family, kind)
    proof: Proof = prove_labels(rows, tokenizer, renderer, CONFIG)
    assert proof.findings == () and proof.rows == 40
    assert proof.labels == rows.label_counts.sum()


Labels = NDArray[np.int32]


def masked_end(labels: Labels, ids: Labels) -> None:
    labels[np.flatnonzero(labels != IGNORE)[-1]] = IGNORE


def masked_start(labels: Labels, ids: Labels) -> None:
    labels[np.flatnonzero(labels != IGNORE)[0]] = IGNORE


def everything_trained(labels: Labels, ids: Labels) -> None:
    labels[:] = ids


def prompt_token_trained(labels: Labels, ids: Labels) -> None:
    first = np.flatnonzero(labels != IGNORE)[0]
    labels[first - 1] = ids[first - 1]


def nothing_trained(labels: Labels, ids: Labels) -> None:
    labels[:] = IGNORE


def line_end_trained(labels: Labels, ids: Labels) -> None:
    labels[-1] = ids[-1]


FAULTS = [
    masked_end,
    masked_start,
    everything_trained,
    prompt_token_trained,
    nothing_trained,
    line_end_trained,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_mask_in_one_row_is_found(dataset: Any, fault: Callable[[Labels, Labels], None]) -> None:
    rows, tokenizer, renderer = dataset()
    tokens = [Tokens(one.id, one.input_ids.copy(), one.labels.copy()) for one in rows]
    fault(tokens[23].labels, tokens[23].input_ids)
    write_tokens(rows.folder, "train", tokens, [rows.example(at) for at in range(len(rows))])
    proof = prove_labels(TokensDataset(rows.folder, "train"), tokenizer, renderer, CONFIG)
    assert {(finding.level, finding.place) for finding in proof.findings if finding.level == "error"} == {
        ("error", "a.jsonl:24")
    }


def test_a_label_that_packing_changes_is_found(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, tokenizer, renderer = dataset()

    def changed(*asked: Any) -> list[Any]:
        planted = plant_forest(*asked)
        return [replace(row, labels=np.where(row.labels == IGNORE, IGNORE, row.labels + 1)) for row in planted]

    monkeypatch.setattr("tunesmith.data.prove.plant_forest", changed)
    proof = prove_labels(rows, tokenizer, renderer, CONFIG)
    assert {finding.check for finding in proof.findings} == {"labels.not_next_token"}


def test_a_label_of_another_token_cannot_be_written(dataset: Any) -> None:
    rows, _, _ = dataset()
    wrong = replace(rows[0], labels=rows[0].labels + 1)
    with pytest.raises(ValueError, match="a label is another token"):
        write_tokens(rows.folder, "train", [wrong], [rows.example(0)])


def test_two_bos_tokens_are_found(dataset: Any) -> None:
    rows, tokenizer, renderer = dataset("mistral")
    doubled = [
        Tokens(one.id, np.insert(one.input_ids, 0, one.input_ids[0]), np.insert(one.labels, 0, IGNORE)) for one in rows
    ]
    write_tokens(rows.folder, "train", doubled, [rows.example(at) for at in range(len(rows))])
    proof = prove_labels(TokensDataset(rows.folder, "train"), tokenizer, renderer, CONFIG)
    assert len(proof.findings) == 40 and "two BOS" in proof.findings[0].message


def test_a_prompt_other_than_the_rows_is_found(dataset: Any, make_tokenizer: Any) -> None:
    rows, tokenizer, _ = dataset()
    other = make_tokenizer(template=tokenizer.chat_template.replace("assistant\\n", "assistant \\n"))
    proof = prove_labels(rows, tokenizer, Renderer(other), CONFIG)
    assert [finding.check for finding in proof.findings] == []
    other.chat_template = "{{ '<|im_start|>x' }}" + tokenizer.chat_template
    proof = prove_labels(rows, tokenizer, Renderer(other), CONFIG)
    assert [(finding.check, finding.level) for finding in proof.findings] == [("labels.other_prompt", "error")]


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_the_texts_of_the_tokens_are_the_text(make_tokenizer: Any, kind: str) -> None:
    tokenizer = make_tokenizer("mistral", kind)
    text = "[INST] Đáp số: 15 giờ ☃ 日本 [/INST] two\n\nlines  end"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(ids, tokenizer)) == tokenizer.decode(ids)


def test_what_is_shown_marks_what_is_trained(dataset: Any) -> None:
    rows, tokenizer, _ = dataset()
    shown = mask(rows[1], tokenizer)
    assert shown["id"] == "1"
    learned = "".join(token["text"] for token in shown["tokens"] if token["trained"])
    assert learned == "SELECT count(*) FROM cat1;\n\nĐáp số: 1<|im_end|>"
    text = show_example(rows[1], tokenizer)
    green = "".join(text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style))
    assert green == learned.replace("\n", "↵\n")


def test_the_figures_of_a_set(dataset: Any) -> None:
    rows, _, _ = dataset()
    figures = stats(rows, batch_size=40, max_tokens=10_000)
    assert figures.examples == 40 and figures.tokens == rows.lengths.sum() and figures.labels == rows.label_counts.sum()
    assert figures.lengths[1.0] == rows.lengths.max() and figures.prefixes == 5
    assert figures.longest == rows.example(int(rows.lengths.argmax())).place
    assert 1.3 < figures.token_reduction < 10 and 0 < figures.fill <= 1
    assert figures.prompt_share == pytest.approx(1 - figures.labels / figures.tokens)
