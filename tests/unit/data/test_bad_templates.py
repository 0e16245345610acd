"""Chat templates as an attacker or an accident leaves them: no code runs, no time is lost, each is named."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import guarded
from tunesmith.data.formats import RowRefused
from tunesmith.data.guarded import Guard, OverLimitError, RefusedError, render_guarded, render_here
from tunesmith.data.render import Renderer
from tunesmith.data.template import DATE, Template
from tunesmith.errors import DataError
from tunesmith.types import Example, Message

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SOUND = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
BOMB = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ASKED = (Message("user", "What is 3 plus 4?"), Message("assistant", "It is 7.", train=True))

ESCAPES = {
    "T1 the class of a text": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "T2 attr": "{{ (''|attr('__class__')).__mro__ }}",
    "T3 format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "T4 cycler": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "T5 namespace": "{{ namespace.__init__.__globals__ }}",
    "T6 lipsum": "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "T7 joiner": "{{ joiner.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "T8 a macro's insides": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "T9 raise_exception's insides": "{{ raise_exception.__globals__['os'].system('touch CANARY') }}",
}
REFUSED = {
    "T13 a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    "T14 an include": ("{% include '/etc/passwd' %}", "no loader"),
    "T14 an import": ("{% import '/etc/passwd' as p %}", "no loader"),
    "T15 a syntax error": ("{{ messages", "expected token"),
    "T15 an unknown tag": ("{% run 'x' %}", "unknown tag"),
    "T17 raise_exception": ("{{ raise_exception('only on Mondays') }}", "only on Mondays"),
}
BOMBS = {
    "T10 loops in loops": (BOMB, "s of processor time"),
    "T10 a loop that collects": (
        "{% for i in range(99999) %}{% for j in range(99999) %}ab{% endfor %}{% endfor %}",
        "more than",
    ),
    "T11 two gigabytes": ("{{ 'a' * 2000000000 }}", "MB of memory"),
    "T11 two gigabytes of a list": ("{{ [1] * 2000000000 }}", "MB of memory"),
    "T12 a power": ("{{ 10 ** 10000000 }}", "s of processor time"),
}


def tokenizer_with(tokenizer: Any, template: str) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


@pytest.mark.parametrize("case", ESCAPES)
def test_an_escape_is_contained(
    case: str, tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = ESCAPES[case].replace("CANARY", str(tmp_path / "canary")) + SOUND
    with pytest.raises(RowRefused, match="unsafe|undefined") as refused:
        Template(tokenizer_with(tiny_tokenizer, text)).lay_out(ASKED)
    assert "template refuses" in refused.value.reason and refused.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_cannot_be_rendered_says_why(case: str, tiny_tokenizer: Any) -> None:
    text, said = REFUSED[case]
    began = time.process_time()
    with pytest.raises(RowRefused) as refused:
        Template(tokenizer_with(tiny_tokenizer, text + SOUND)).lay_out(ASKED)
    assert said in refused.value.detail and time.process_time() - began < 2


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_ends_its_own_process_alone(case: str, tiny_tokenizer: Any) -> None:
    text, said = BOMBS[case]
    began = time.process_time()
    with pytest.raises(DataError, match=said) as refused:
        Template(tokenizer_with(tiny_tokenizer, text + SOUND)).lay_out(ASKED, place="train.jsonl:3")
    assert refused.value.place == "train.jsonl:3" and "model.chat_template" in refused.value.remedy
    assert time.process_time() - began < 2 and guarded.SECONDS <= 0.5
    assert Template(tokenizer_with(tiny_tokenizer, SOUND)).lay_out(ASKED).spans  # the next one is rendered


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_empty_template_is_named(text: str, tiny_tokenizer: Any) -> None:
    """T16."""
    with pytest.raises(DataError, match="no chat template"):
        Template(tokenizer_with(tiny_tokenizer, text))


def test_a_template_that_drops_the_answer_is_named(tiny_tokenizer: Any) -> None:
    """T18."""
    text = SOUND.replace("{% for m in messages %}", "{% for m in messages if m.role != 'assistant' %}")
    with pytest.raises(DataError, match="drops the assistant message"):
        Template(tokenizer_with(tiny_tokenizer, text)).lay_out(ASKED)


def test_without_a_generation_prompt_the_answer_is_still_found(tiny_tokenizer: Any) -> None:
    """T19: what stands before the answer is what the model is given."""
    with_one, without = (Template(tokenizer_with(tiny_tokenizer, text)) for text in (SOUND, TURNS))
    for template in (with_one, without):
        layout = template.lay_out(ASKED)
        assert layout.text[layout.spans[0].start : layout.spans[0].stop] == "It is 7.<|im_end|>"
    assert with_one.prompt(ASKED[:1]) == without.prompt(ASKED[:1])


def test_a_template_that_asks_the_clock_writes_the_same_tomorrow(tiny_tokenizer: Any) -> None:
    """T20."""
    text = "{{ strftime_now('%d %b %Y') }} {{ date_string }}\n" + SOUND
    assert Template(tokenizer_with(tiny_tokenizer, text)).lay_out(ASKED).text.startswith(f"{DATE} {DATE}\n")


def test_a_template_that_draws_lots_is_refused(tiny_tokenizer: Any) -> None:
    """T20: the literal text around the contents is not the same twice."""
    text = "{{ range(99999) | random }}\n" + SOUND
    with pytest.raises(RowRefused, match="template rewrites content"):
        Template(tokenizer_with(tiny_tokenizer, text)).lay_out(ASKED)


def test_the_child_writes_what_the_tokenizer_writes(tiny_tokenizer: Any) -> None:
    templates = [SOUND, "{{ bos_token }}" + SOUND, "  {% if true %}\n  {{- messages|tojson }}\n  {% endif %}\n" + SOUND]
    for text in templates:
        tokenizer = tokenizer_with(tiny_tokenizer, text)
        for generation in (False, True):
            for messages in ([{"role": "user", "content": "Tính chu vi 🙂 \ud7ff"}], [{"role": "user", "content": ""}]):
                expected = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=generation, date_string=DATE
                )
                (said,) = render_guarded(
                    text, tokenizer.special_tokens_map, [(messages, None)], generation=generation, date=DATE
                )
                assert said == expected


def test_the_child_is_told_what_only_json_can_say() -> None:
    for content in ("\ud800", 10**30):
        (said,) = render_guarded("{{ messages[0].content }}", {}, [([{"role": "user", "content": content}], None)])
        assert said == str(content)


def test_the_shipped_template_is_written_as_the_tokenizer_writes_it() -> None:
    from transformers import AutoTokenizer

    import tunesmith

    tokenizer = AutoTokenizer.from_pretrained(Path(tunesmith.__file__).parent / "demo_base")
    turns = [
        [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        [{"role": "user", "content": " é"}],
    ]
    for generation in (False, True):
        expected = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generation, date_string=DATE
        )
        special = tokenizer.special_tokens_map
        asked = [(messages, None) for messages in turns]
        assert render_here(tokenizer.chat_template, special, asked, generation=generation, date=DATE) == expected


def test_the_child_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    guard = Guard()
    try:
        guard.render_batch(SOUND, {}, [([{"role": "user", "content": "x"}], None)])
        child = guard._child
        assert child is not None
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert b"canary" not in environment and b"PATH" in environment
    finally:
        guard.close()


def test_a_child_that_is_gone_is_replaced() -> None:
    guard = Guard()
    asked = [([{"role": "user", "content": "x"}], None)]
    try:
        first = guard.render_batch(SOUND, {}, asked)
        assert guard._child is not None
        os.kill(guard._child.pid, 9)
        guard._child.wait()
        assert guard.render_batch(SOUND, {}, asked) == first
    finally:
        guard.close()


def test_limits_and_refusals_are_told_apart() -> None:
    with pytest.raises(OverLimitError):
        render_guarded(BOMB, {}, [([{"role": "user", "content": "x"}], None)])
    (refused,) = render_guarded("{{", {}, [([{"role": "user", "content": "x"}], None)])
    assert isinstance(refused, RefusedError)


def test_conversations_rendered_at_once_are_what_each_is_alone() -> None:
    template = (
        "{% if messages[0].content == '5' %}{{ raise_exception('not five') }}{% endif %}"
        "{{ messages[0].content }} {{ tools | length if tools else 'none' }}"
    )
    tool = {"type": "function", "function": {"name": "add"}}
    asked = [([{"role": "user", "content": str(at)}], [tool] * at if at % 20 == 1 else None) for at in range(70)]
    together = render_guarded(template, {}, asked)
    alone = [render_guarded(template, {}, [one])[0] for one in asked]
    assert isinstance(together[5], RefusedError) and str(together[5]) == "not five"
    assert together[:2] == ["0 none", "1 1"] and together[21] == "21 21" and together[69] == "69 none"
    assert list(map(str, together)) == list(map(str, alone))


def test_conversations_that_are_slow_together_are_rendered_one_by_one(tiny_tokenizer: Any) -> None:
    slow = "{% for a in range(4000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}"
    template = Template(tokenizer_with(tiny_tokenizer, slow + SOUND))
    asked = [(ASKED, f"train.jsonl:{at}", None) for at in range(16)]
    with pytest.raises(OverLimitError):
        render_guarded(slow, {}, [([{"role": "user", "content": "x"}], None)] * 16)
    assert template.lay_out_batch(asked) == [template.lay_out(ASKED)] * 16


def test_the_shipped_template_needs_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    import tunesmith

    monkeypatch.setattr("tunesmith.data.template.render_guarded", lambda *_, **__: pytest.fail("it is our own"))
    tokenizer = AutoTokenizer.from_pretrained(Path(tunesmith.__file__).parent / "demo_base")
    assert len(Renderer(tokenizer).render(Example("1", ASKED)).input_ids) > 5
