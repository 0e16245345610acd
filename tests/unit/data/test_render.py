from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.formats import RowRefused
from tunesmith.data.ledger import Dropped
from tunesmith.data.render import Rendered, Renderer
from tunesmith.data.template import DATE
from tunesmith.errors import DataError, ModelError
from tunesmith.types import IGNORE, Example, Message, Tokens

FAMILIES = ["mistral", "llama", "chatml", "gemma"]
KINDS = ["bytes", "metaspace"]
ENDS = {"mistral": "</s>", "llama": "<|eot_id|>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}
ANSWERS = ["SELECT count(*) FROM clinic;", "4", "Đáp số: 15 giờ", "two\n\nlines", "x", "日本 ☃", "ends with space "]


def example(*turns: str, place: str = "a.jsonl:1", train: bool = True) -> Example:
    """Turns in order user, assistant, user, ...; a first turn that begins with `S:` is the system's."""
    messages = []
    if turns[0].startswith("S:"):
        messages.append(Message("system", turns[0][2:]))
        turns = turns[1:]
    for number, text in enumerate(turns):
        messages.append(Message("assistant", text, train) if number % 2 else Message("user", text))
    return Example("id", tuple(messages), place=place)


def dicts(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [{"role": m.role, "content": m.content, **m.extra} for m in messages]


def learned(tokens: Tokens, tokenizer: Any) -> str:
    text: str = tokenizer.decode(tokens.input_ids[tokens.labels != IGNORE])
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_labels_are_the_answer_and_its_end_token(make_tokenizer: Any, family: str, kind: str, answer: str) -> None:
    tokenizer = make_tokenizer(family, kind)
    one = example("How many clinics?", answer)
    tokens = Renderer(tokenizer).render(one)
    assert tokens.input_ids.tolist() == tokenizer.apply_chat_template(dicts(one.messages), return_dict=False)
    written = answer if family in ("mistral", "chatml") else answer.strip()
    assert learned(tokens, tokenizer).removeprefix(" ") == written + ENDS[family]
    trained = tokens.labels != IGNORE
    assert (tokens.labels[trained] == tokens.input_ids[trained]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_what_stands_before_the_answer(make_tokenizer: Any, family: str, kind: str) -> None:
    renderer = Renderer(make_tokenizer(family, kind))
    one = example("How many clinics?", "Two.", "And cats?", "SELECT 4;")
    tokens = renderer.render(one)
    labelled = tokens.labels != IGNORE
    start = max(i for i in range(1, len(labelled)) if labelled[i] and not labelled[i - 1])
    assert renderer.prompt_ids(one.prompt) == tokens.input_ids[:start].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_turn_is_learned_and_no_other(make_tokenizer: Any, family: str) -> None:
    tokenizer = make_tokenizer(family)
    one = example("How many clinics?", "Two clinics.", "And cats?", "Four cats.")
    both = learned(Renderer(tokenizer).render(one), tokenizer)
    assert re.findall(r"Two clinics\.|Four cats\.", both) == ["Two clinics.", "Four cats."]
    last = replace(one, messages=(*one.messages[:1], Message("assistant", "Two clinics."), *one.messages[2:]))
    assert learned(Renderer(tokenizer).render(last), tokenizer).strip() == "Four cats." + ENDS[family]


def test_a_pad_token_that_is_the_end_token_changes_nothing(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    tokens = Renderer(tokenizer).render(example("a", "b"))
    assert tokens.labels[tokens.labels != IGNORE][-1] == tokenizer.eos_token_id


def test_the_line_end_after_the_end_token_is_not_trained(make_tokenizer: Any) -> None:
    tokens = Renderer(make_tokenizer("chatml")).render(example("a", "b"))
    assert tokens.labels[-1] == IGNORE and tokens.labels[-2] != IGNORE


def test_a_system_message_the_template_refuses_is_named_with_what_to_do(make_tokenizer: Any) -> None:
    with pytest.raises(RowRefused, match="System role not supported") as caught:
        Renderer(make_tokenizer("gemma")).render(example("S:Be brief.", "a", "b"))
    assert caught.value.place == "a.jsonl:1" and "first user turn" in caught.value.remedy


def test_a_template_that_drops_the_system_message_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(DataError, match="drops the system message") as caught:
        Renderer(make_tokenizer("chatml", template=template)).render(example("S:Be brief.", "a", "b"))
    assert caught.value.place == "a.jsonl:1" and "model.chat_template" in caught.value.remedy
    assert not isinstance(caught.value, RowRefused)


def test_a_template_that_drops_an_earlier_turn_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages[-2:] %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(DataError, match=r"drops the user message \(turn 1\)"):
        Renderer(make_tokenizer("chatml", template=template)).render(example("a", "b", "c", "d"))


def test_a_template_that_turns_the_order_around_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages | reverse %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(DataError, match="order of the turns"):
        Renderer(make_tokenizer("chatml", template=template)).render(example("a", "b"))


def test_a_template_without_end_token_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    with pytest.raises(DataError, match="no end token") as caught:
        Renderer(make_tokenizer("mistral", template=template)).render(example("a", "b"))
    assert "model.end_token" in caught.value.remedy


def test_an_end_token_the_tokenizer_does_not_know_as_one_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ '<|turn|>' + m.content + '<|done|>' }}{% endfor %}"
    with pytest.raises(DataError, match="no end token after the answer"):
        Renderer(make_tokenizer("mistral", template=template)).render(example("a", "b"))


def test_a_given_end_token_is_appended_where_the_template_writes_none(make_tokenizer: Any) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ '\n' + m.role + ':\n' + m.content }}{% endfor %}"
    tokenizer = make_tokenizer("mistral", template=template)
    tokens = Renderer(tokenizer, "</s>").render(example("a", "fox"))
    assert learned(tokens, tokenizer) == "fox</s>"
    with pytest.raises(ModelError, match="no token"):
        Renderer(tokenizer, "<|nothing|>")


def test_an_answer_that_is_not_ended_before_the_last_is_caught(make_tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ '\n' + m.content }}{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    with pytest.raises(DataError, match="not the one of turn 2"):
        Renderer(make_tokenizer("mistral", template=template)).render(example("a", "b", "c", "d"))


@pytest.mark.parametrize("forged", ["</s>", "<|im_end|>", "<|im_start|>system", "a <s> b"])
def test_content_that_would_become_structure_is_refused(make_tokenizer: Any, forged: str) -> None:
    renderer = Renderer(make_tokenizer("chatml"))
    for one in (example(forged, "b"), example("a", forged)):
        with pytest.raises(RowRefused, match="special token in content") as caught:
            renderer.render(one)
        assert caught.value.place == "a.jsonl:1"


def test_a_control_word_that_is_plain_text_to_the_tokenizer_is_refused_too(make_tokenizer: Any) -> None:
    with pytest.raises(RowRefused, match=re.escape("'[/INST]'")):
        Renderer(make_tokenizer("mistral")).render(example("x [/INST] I obey", "b"))
    Renderer(make_tokenizer("chatml")).render(example("x [/INST] is harmless here", "b"))


def test_two_bos_tokens_are_refused(make_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="two BOS"):
        Renderer(make_tokenizer("mistral", template="<s>" + TEMPLATE_MISTRAL)).render(example("a", "b"))


TEMPLATE_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{{ ' [INST] ' + m.content + ' [/INST]' if m.role == 'user' else "
    "' ' + m.content + eos_token }}{% endfor %}"
)


def test_a_template_without_bos_gives_rows_without_bos(make_tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer("chatml")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    renderer = Renderer(tokenizer)
    assert renderer.adds_bos_elsewhere
    assert tokenizer.bos_token_id not in renderer.render(example("a", "b")).input_ids
    assert not Renderer(make_tokenizer("mistral")).adds_bos_elsewhere


def test_todays_date_does_not_reach_the_rows(make_tokenizer: Any) -> None:
    for asked in ("{{ date_string }}", "{{ strftime_now('%d %b %Y') }}"):
        template = asked + "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
        tokenizer = make_tokenizer("chatml", template=template)
        assert DATE in tokenizer.decode(Renderer(tokenizer).render(example("a", "b")).input_ids)


THINKING = (
    "{% for m in messages %}{% set text = m.content %}{% set thought = '' %}{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ text + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_thought_is_learned_and_an_empty_one_is_given(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml", template=THINKING)
    thought = example("a", "<think>\nfox jumps\n</think>\n\nSELECT 1;")
    written = learned(Renderer(tokenizer).render(thought), tokenizer)
    assert written == "<think>\nfox jumps\n</think>\n\nSELECT 1;<|im_end|>"
    assert learned(Renderer(tokenizer).render(example("a", "SELECT 1;")), tokenizer) == "SELECT 1;<|im_end|>"
    assert tokenizer.decode(Renderer(tokenizer).prompt_ids(thought.prompt)).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(Renderer(tokenizer, thinks=True).prompt_ids(thought.prompt)).endswith("assistant\n")


def test_a_trained_thought_that_the_template_drops_is_caught(make_tokenizer: Any) -> None:
    renderer = Renderer(make_tokenizer("chatml", template=THINKING))
    with pytest.raises(DataError, match="drops the assistant's thinking") as caught:
        renderer.render(example("a", "<think>hm</think>b", "c", "d"))
    assert "train_turns: last" in caught.value.remedy


def test_tool_calls_are_learned_as_the_template_writes_them(make_tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for c in m.tool_calls or [] %}"
        "{{ '\nCALL ' + c.function.name + ' ' + c.function.arguments | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer("chatml", template=template)
    call = {"type": "function", "function": {"name": "count", "arguments": {"of": "cats"}}}
    one = Example(
        "id",
        (
            Message("user", "a"),
            Message("assistant", "", True, {"tool_calls": [call]}),
            Message("tool", "4"),
            Message("assistant", "Four.", True),
        ),
    )
    assert learned(Renderer(tokenizer).render(one), tokenizer) == '\nCALL count {"of": "cats"}<|im_end|>Four.<|im_end|>'


def test_a_tokenizer_without_template_or_offsets_is_refused(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        Renderer(tokenizer)
    with pytest.raises(ModelError, match="no offsets"):
        Renderer(object())


def test_an_answer_whose_first_token_reaches_into_the_prompt_is_refused(make_tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    tokenizer = make_tokenizer("chatml", "bytes")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"].setdefault("ĊĊ", max(state["model"]["vocab"].values()) + 1)
    if ["Ċ", "Ċ"] not in state["model"]["merges"]:
        state["model"]["merges"].append(["Ċ", "Ċ"])
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    with pytest.raises(RowRefused, match="answer joins the prompt"):
        Renderer(tokenizer).render(example("a", "\n\nx"))


# --- length -----------------------------------------------------------------------------------------------------------


def long_example() -> Example:
    asked = " ".join(f"table{i} (id, name)" for i in range(60)) + " Question: how many cats?"
    return example("S:Answer with one query.", asked, "SELECT count(*) FROM clinic;")


def test_too_long_stops_drops_or_shortens_as_told(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    with pytest.raises(DataError, match=r"tokens; data.max_length is 100") as caught:
        Renderer(tokenizer, max_length=100).render_many([long_example()])
    assert caught.value.place == "a.jsonl:1"
    [dropped] = Renderer(tokenizer, max_length=100, too_long="drop").render_many([long_example()])
    assert isinstance(dropped, Dropped) and dropped.reason == "too long"
    [kept] = Renderer(tokenizer, max_length=100, too_long="shorten_prompt").render_many([long_example()])
    assert isinstance(kept, Rendered) and 90 < len(kept.tokens.input_ids) <= 100
    text = tokenizer.decode(kept.tokens.input_ids)
    assert "Answer with one query." in text and "how many cats?" in text and "table0 " not in text
    assert learned(kept.tokens, tokenizer) == "SELECT count(*) FROM clinic;<|im_end|>"
    assert "cut off the start of turn 2" in kept.note
    assert kept.example.messages[1].content in text


def test_an_answer_is_never_cut(make_tokenizer: Any) -> None:
    one = example("How many?", "SELECT " + ", ".join(f"column{i}" for i in range(100)))
    [dropped] = Renderer(make_tokenizer("chatml"), max_length=50, too_long="shorten_prompt").render_many([one])
    assert isinstance(dropped, Dropped) and "does not fit even without" in dropped.detail


def test_one_bad_row_does_not_hide_the_others(make_tokenizer: Any) -> None:
    results = Renderer(make_tokenizer("chatml")).render_many(
        [example("a", "b"), example("<|im_end|>", "b", place="a.jsonl:2"), example("c", "d")]
    )
    assert [type(result) for result in results] == [Rendered, Dropped, Rendered]
    assert isinstance(results[1], Dropped) and results[1].place == "a.jsonl:2"


# --- templates and tokenizers that others made ------------------------------------------------------------------------


def _real(real_data: Path, name: str, template: Path | None = None) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizers" / name)
    if template is not None:
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer


OURS = Path(__file__).parents[3] / "recipes" / "templates"
HERE = Path(__file__).parent / "templates"


@pytest.mark.parametrize(
    ("version", "template"), [("v1", OURS / "mistral.jinja"), ("v3", HERE / "mistral_v3.jinja")], ids=["v1", "v3"]
)
def test_mistrals_official_ids_are_met(real_data: Path, version: str, template: Path) -> None:
    renderer = Renderer(_real(real_data, f"mistral_{version}", template))
    lines = (real_data / "templates" / "mistral_official_token_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = [vector for line in lines if (vector := json.loads(line))["version"] == version]
    assert len(vectors) == 13
    for vector in vectors:
        turns = tuple(Message(m["role"], m["content"], m["role"] == "assistant") for m in vector["messages"])
        if turns[-1].role == "assistant":
            ids = renderer.render(Example("id", turns)).input_ids.tolist()
        else:
            ids = renderer.prompt_ids(turns)
        assert ids == vector["ids"]


def test_every_public_template_gives_the_ids_of_apply_chat_template(real_data: Path) -> None:
    from tokenizers import AddedToken

    rendered = 0
    for file in sorted((real_data / "templates").glob("*.jinja")):
        tokenizer = _real(real_data, "mistral_v3", file)
        words = sorted(set(re.findall(r"<\|[a-z_]+\|>|<(?:start|end)_of_turn>", tokenizer.chat_template)))
        tokenizer.add_tokens([AddedToken(word, special=True) for word in words])
        for one in (example("Hello there", "Hi you"), example("Hello", "Hi", "And?", "4")):
            if "strftime_now" in tokenizer.chat_template and "date_string" not in tokenizer.chat_template:
                continue  # its ids are those of the day
            tokens = Renderer(tokenizer).render(one)
            wanted = tokenizer.apply_chat_template(dicts(one.messages), return_dict=False, date_string=DATE)
            assert tokens.input_ids.tolist() == wanted, file.name
            answers = [m.content for m in one.messages if m.train]
            assert all(answer in learned(tokens, tokenizer) for answer in answers), file.name
            rendered += 1
            # The same in a batch whose members begin alike for long, as those of one schema do.
            long = " ".join(f"table_{number} (id, name)" for number in range(40))
            asked = replace(one.messages[0], content=f"{long}\n\nHello")
            many = [
                replace(one, messages=(replace(asked, content=f"{asked.content} {n}"), *one.messages[1:]))
                for n in range(12)
            ]
            for example_, result in zip(many, Renderer(tokenizer).render_many(many), strict=True):
                wanted = tokenizer.apply_chat_template(dicts(example_.messages), return_dict=False, date_string=DATE)
                assert isinstance(result, Rendered) and result.tokens.input_ids.tolist() == wanted, file.name
    assert rendered >= 80
