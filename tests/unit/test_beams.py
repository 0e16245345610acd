"""Beams: enough of them find the likeliest answer; a constraint, coverage and a lexicon choose among them."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tiny_decoders import OnlyDigits, letter_tokenizer, some_prompts, tiny
from transformers import PreTrainedTokenizerFast

from tunesmith.config.schema import Generate
from tunesmith.errors import ConfigError
from tunesmith.generate import generate, search
from tunesmith.generate.search import Answer, Beam, Chooser


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.manual_seed(0)
    yield


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return letter_tokenizer()


class Few(OnlyDigits):
    """Answers over five letters, so that all of them can be tried."""

    def allows(self, text: str) -> bool:
        return set(text) <= set("01234")

    def complete(self, text: str) -> bool:
        return True


def likeliest_of_all(model: Any, prompt: list[int], tokenizer: Any, most: int, ending: str = "") -> str:
    """The whole answer of up to `most` tokens, its end token included, that is likeliest of those that end so."""
    found: dict[str, float] = {}
    for length in range(most):
        for letters in itertools.product("01234", repeat=length):
            ids = [*prompt, *(ord(letter) for letter in letters)]
            with torch.inference_mode():
                scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
            steps = [*ids[len(prompt) :], 256]
            found["".join(letters)] = sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(steps))
    return max((text for text in found if text.endswith(ending)), key=lambda text: found[text])


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "mistral with a sliding window"])
def test_enough_beams_find_the_likeliest_of_all_answers(
    kind: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FAR", 99.0)
    model, prompts = tiny(kind), some_prompts(schemas=2, questions=4)
    settings = Generate(max_new_tokens=3, beams=32, batch_size=3)
    answers = generate(model, tokenizer, prompts, settings, {256}, constraints=[Few()] * 8)
    assert all(answer.constraint_held and answer.stopped for answer in answers)
    assert [answer.text for answer in answers] == [likeliest_of_all(model, p, tokenizer, 3) for p in prompts]


class Fond(Few):
    """Would have every letter in an answer."""

    def omits(self, text: str) -> int:
        return len(set("01234") - set(text))


def test_coverage_prefers_what_leaves_less_out(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_FAR", 99.0)
    model, prompts = tiny("mistral"), some_prompts(schemas=2, questions=4)

    def answered(coverage: float) -> list[Any]:
        settings = Generate(max_new_tokens=3, beams=32, batch_size=3, coverage=coverage)
        return generate(model, tokenizer, prompts, settings, {256}, constraints=[Fond()] * 8)

    plain, full = answered(0.0), answered(50.0)
    assert [one.text for one in plain] == [likeliest_of_all(model, p, tokenizer, 3) for p in prompts]
    assert all(len(set(one.text)) == 2 for one in full), "two letters and an end: no answer can have more"
    assert any(len(set(one.text)) < 2 for one in plain)


class Thorough(Few):
    """Would have five letters in an answer, and no more."""

    def allows(self, text: str) -> bool:
        return super().allows(text) and len(text) <= 5

    def omits(self, text: str) -> int:
        return 5 - len(text)


def test_an_answer_that_leaves_something_out_does_not_end_the_search(tokenizer: Any) -> None:
    model, prompts = tiny("mistral"), some_prompts(schemas=2, questions=4)
    settings = Generate(max_new_tokens=6, beams=2, batch_size=3, coverage=50.0)
    answers = generate(model, tokenizer, prompts, settings, {256}, constraints=[Thorough()] * 8)
    assert [len(one.text) for one in answers] == [5] * 8


class Proving(Few):
    """Says that only what ends in 4 works."""

    def works(self, text: str) -> bool:
        return text.endswith("4")


def test_of_the_beams_the_likeliest_that_works_is_given(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_FAR", 99.0)
    model, prompts = tiny("mistral"), some_prompts(schemas=2, questions=4)
    settings = Generate(max_new_tokens=3, beams=32, batch_size=3)
    answers = generate(model, tokenizer, prompts, settings, {256}, constraints=[Proving()] * 8)
    expected = [likeliest_of_all(model, prompt, tokenizer, 3, ending="4") for prompt in prompts]
    assert [answer.text for answer in answers] == expected


def test_a_lexicon_chooses_among_the_beams_and_what_the_model_alone_would_say_is_kept(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FAR", 99.0)
    model, prompts = tiny("mistral"), some_prompts(schemas=2, questions=4)
    heard: list[Sequence[str]] = []

    def fond_of_4(answers: Sequence[str]) -> list[float]:
        heard.append(answers)
        return [1000.0 * answer.endswith("4") for answer in answers]

    def answered(weight: float, opinions: Any) -> list[Any]:
        settings = Generate(max_new_tokens=3, beams=32, batch_size=3, lexicon=weight)
        return generate(model, tokenizer, prompts, settings, {256}, constraints=[Few()] * 8, opinions=opinions)

    plain = answered(0.2, None)
    assert all(one.alone is None for one in plain) and not heard
    assert answered(0.0, [fond_of_4] * 8) == plain and not heard, "nothing is asked where nothing weighs it"
    told = answered(0.2, [fond_of_4] * 8)
    assert [one.alone for one in told] == [one.text for one in plain]
    assert [one.text for one in told] == [likeliest_of_all(model, p, tokenizer, 3, ending="4") for p in prompts]
    assert all(len(set(answers)) == len(answers) > 4 for answers in heard) and len(heard) == 8
    with pytest.raises(ValueError, match="7 opinions for 8 prompts"):
        answered(0.2, [fond_of_4] * 7)


class Lured(OnlyDigits):
    """What begins with the likeliest letter comes to nothing; what begins with another may end at once."""

    def __init__(self, lure: str) -> None:
        self.lure = lure

    def allows(self, text: str) -> bool:
        return not text.startswith(self.lure) or len(text) == 1

    def complete(self, text: str) -> bool:
        return not text.startswith(self.lure)


def test_a_beam_that_the_constraint_leaves_no_way_on_is_dropped_for_another(tokenizer: Any) -> None:
    model, prompts = tiny("llama"), some_prompts(schemas=1, questions=6)
    lures = [Lured(one.text) for one in generate(model, tokenizer, prompts, Generate(max_new_tokens=1), {256})]
    stuck = generate(model, tokenizer, prompts, Generate(max_new_tokens=4), {256}, constraints=lures)
    assert not any(answer.constraint_held for answer in stuck)
    free = generate(model, tokenizer, prompts, Generate(max_new_tokens=4, beams=3), {256}, constraints=lures)
    assert all(answer.constraint_held for answer in free)
    assert not any(answer.text.startswith(lure.lure) for answer, lure in zip(free, lures, strict=True))


class Pairs:
    """A tokenizer of 676 tokens: two letters each."""

    words = tuple("".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2))
    all_special_ids = ()

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.words[token] for token in ids)


class FromZ:
    """An answer whose first letter is z; it and its copies keep what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def allows(self, text: str) -> bool:
        self.asked.append(text)
        return text.startswith("z")

    def complete(self, text: str) -> bool:
        return True


@pytest.mark.parametrize("beams", [1, 3])
def test_a_letter_that_cannot_come_next_is_asked_for_once(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 676, generator=torch.Generator().manual_seed(0))
    logits[:, -26:] -= 100  # what begins with z comes last

    def chosen() -> tuple[list[tuple[list[int], float]], int]:
        constraint = FromZ()
        answer = Answer([Beam(constraint)])
        Chooser(Pairs(), frozenset(), Generate(beams=beams)).take(logits, [answer])
        return [(beam.ids, beam.score) for beam in answer.live], len(constraint.asked)

    found, few = chosen()
    monkeypatch.setattr("tunesmith.generate.search._PATIENCE", 10_000)
    assert chosen() == (found, 650 + beams) and len(found) == beams
    assert few <= 8 + 26 + 2 * beams


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_beams_do_not_depend_on_what_shares_their_batch(kind: str, tokenizer: Any) -> None:
    model, prompts = tiny(kind), some_prompts(schemas=2, questions=5)
    together = generate(model, tokenizer, prompts, Generate(max_new_tokens=8, beams=3), {256})
    apart = [generate(model, tokenizer, [prompt], Generate(max_new_tokens=8, beams=3), {256})[0] for prompt in prompts]
    assert [one.text for one in together] == [one.text for one in apart]


def test_beams_without_an_end_give_the_likeliest_unfinished_answer(tokenizer: Any) -> None:
    answers = generate(tiny("llama"), tokenizer, some_prompts(1, 4), Generate(max_new_tokens=5, beams=2), {3})
    assert all(answer.tokens == 5 and not answer.stopped for answer in answers)


def test_beams_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="set temperature: 0"):
        Generate(beams=2, temperature=0.7)


def test_a_cache_that_cannot_be_reordered_is_refused_by_name(tokenizer: Any) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(ConfigError, match="'mamba' keeps another kind"):
        generate(model, tokenizer, [[1, 2]], Generate(max_new_tokens=2, beams=2), {256})
