"""Evaluation: intervals against published values, pairs counted by hand, and nothing unscored becomes a zero."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith import generate as generating
from tunesmith.config.schema import Data, Generate, Model, RunConfig, SqlTask
from tunesmith.errors import DataError
from tunesmith.evaluate import (
    Evaluation,
    Judged,
    compare,
    evaluate,
    mcnemar,
    newcombe,
    read_scores,
    sample,
    share,
    summarize,
    wilson,
    write_scores,
)
from tunesmith.evaluate.ask import mark
from tunesmith.types import Completion, Constraint, Example, Message, Record, Score


def example(i: int, **meta: Any) -> Example:
    turns = (
        Message("system", "schema"),
        Message("user", f"question {i}"),
        Message("assistant", f"gold {i}", train=True),
    )
    return Example(f"e{i}", turns, target=f"gold {i}", meta=meta)


def graded(*values: float | None) -> Evaluation:
    return Evaluation(tuple(Judged(example(i), Completion("x"), Score(value)) for i, value in enumerate(values)))


# Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.6, 0.999))
def test_an_interval_holds_its_mean_and_is_a_share(n: int, mean: float, confidence: float) -> None:
    low, high = wilson(mean, n, confidence)
    assert 0 <= low <= mean <= high <= 1


def test_unscored_is_not_zero() -> None:
    evaluation = graded(1, None, 0, 1, None)
    assert evaluation.accuracy.value == pytest.approx(2 / 3) and evaluation.accuracy.n == 3
    assert evaluation.unscored == 2
    assert share([None, None]).value is None and share([None]).n == 0
    assert summarize(graded(None))["accuracy"] is None
    assert summarize(graded(0.0))["accuracy"] == 0


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    # 2 * (C(10,0) + C(10,1)) / 1024; 2 * C(5,0) / 32; even splits and no differences prove nothing.
    [(9, 1, 22 / 1024), (1, 9, 22 / 1024), (5, 0, 2 / 32), (4, 4, 1.0), (0, 0, 1.0), (12, 2, 2 * 106 / 16384)],
)
def test_mcnemars_p_value_is_the_binomial_one(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_pairs_are_matched_by_example_and_only_where_both_were_judged() -> None:
    base, tuned = graded(0, 0, 1, 1, None, 0), graded(1, 1, 1, 0, 1, None)
    shuffled = Evaluation(tuple(reversed(tuned.judged)))
    paired = compare(base, shuffled)
    assert (paired.gained, paired.lost, paired.n) == (2, 1, 4)
    assert paired.difference == pytest.approx(1 / 4)
    assert paired.low < paired.difference < paired.high
    nothing = compare(graded(None), graded(1))
    assert nothing.difference is None and nothing.p_value == 1 and nothing.n == 0


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(0)
    weights, n, trials, covered = (0.35, 0.3, 0.05, 0.3), 60, 2000, 0
    for _ in range(trials):
        drawn = rng.choices(range(4), weights, k=n)
        low, high = newcombe(*(drawn.count(cell) for cell in range(4)))
        covered += low <= 0.25 <= high
    assert 0.93 < covered / trials < 0.98


@given(*[st.integers(0, 40)] * 4)
def test_swapping_the_models_mirrors_the_paired_interval(both: int, gained: int, lost: int, neither: int) -> None:
    if both + gained + lost + neither:
        low, high = newcombe(both, gained, lost, neither)
        assert newcombe(both, lost, gained, neither) == pytest.approx((-high, -low))
        assert -1 <= low <= high <= 1


def test_figures_are_sliced_and_failures_counted() -> None:
    scores = [
        (Score(1, {"exact_match": 1}), "count"),
        (Score(0, {"exact_match": 0}, failure="syntax"), "count"),
        (Score(0, {"exact_match": 0}, failure="timeout"), "top"),
        (Score(0, {}, failure="syntax"), "top"),
        (Score(None), "top"),
    ]
    judged = tuple(
        Judged(example(i, kind=kind), Completion("x", stopped=i > 0, tokens=i), score)
        for i, (score, kind) in enumerate(scores)
    )
    evaluation = Evaluation(judged)
    assert evaluation.failures == {"syntax": 2, "timeout": 1}
    assert list(evaluation.failures) == ["syntax", "timeout"]
    assert {kind: (s.value, s.n) for kind, s in evaluation.slices("kind").items()} == {"count": (0.5, 2), "top": (0, 2)}
    assert evaluation.slices("nowhere") == {}
    assert evaluation.parts["exact_match"].value == pytest.approx(1 / 3)
    assert evaluation.stop_rate == pytest.approx(0.8) and evaluation.mean_tokens == 2
    assert summarize(evaluation)["exact_match"] == pytest.approx(1 / 3)
    json.dumps(summarize(evaluation), allow_nan=False)


def test_the_sample_is_fixed_whatever_the_order() -> None:
    examples = [example(i) for i in range(50)]
    chosen = sample(examples, 10, seed=1)
    assert {e.id for e in chosen} == {e.id for e in sample(examples[::-1], 10, seed=1)}
    assert chosen == [e for e in examples if e in chosen]
    assert {e.id for e in sample(examples, 10, seed=2)} != {e.id for e in chosen}
    assert sample(examples, 50, seed=1) == examples == sample(examples, None, seed=1)


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    turns = (
        Message("user", "hỏi"),
        Message("assistant", "trả lời"),
        Message("user", "lại\nhỏi"),
        Message("assistant", "g"),
    )
    judged = (
        Judged(
            Example("a", turns, target="g", meta={"kind": "count"}),
            Completion("SELECT 'é'", False, 7, False),
            Score(0.0, {"exact_match": 0.0}, "note", "syntax", {"rows": [[1, None]]}),
        ),
        Judged(example(1), Completion(""), Score(None, note="gold fails")),
    )
    path = tmp_path / "scores" / "tuned-built.jsonl"
    write_scores(path, Evaluation(judged))
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert rows[0]["question"] == "lại\nhỏi" and rows[0]["gold"] == "g" and len(rows[0]["prompt"]) == 3
    assert rows[1]["value"] is None and rows[0]["value"] == 0
    again = read_scores(path)
    assert [(one.score, one.completion, one.example.prompt) for one in again.judged] == [
        (one.score, one.completion, one.example.prompt) for one in judged
    ]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing staged is left behind"


@pytest.mark.parametrize("line", ['{"id": "a"}', '{"id": ', "[]", "3"])
def test_a_torn_line_is_reported_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "base-built.jsonl"
    write_scores(path, graded(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError) as caught:
        read_scores(path)
    assert caught.value.place == f"{path}:2"
    with pytest.raises(DataError, match="no scores"):
        read_scores(tmp_path / "missing.jsonl")


class Echo:
    """A task whose every constraint is a word of the example, and whose grader wants that word."""

    name, version = "echo", "1"

    def examples(self, record: Record) -> Iterator[Example]:
        yield from ()

    def grade(self, example: Example, completion: str) -> Score:
        return Score(float(completion == example.target))

    def constraint(self, example: Example) -> Constraint | None:
        return Word(example.target)

    def close(self) -> None:
        pass


class Word:
    def __init__(self, word: str) -> None:
        self.word = word

    def allows(self, text: str) -> bool:
        return self.word.startswith(text)

    def complete(self, text: str) -> bool:
        return text == self.word


def test_what_the_model_alone_says_is_graded_beside_what_was_chosen() -> None:
    """A part of every answer that a lexicon had a say in, whether it chose another or not."""
    config = RunConfig(task=SqlTask(), data=Data.model_validate({"train": "x.jsonl"}), model=Model(name="demo"))
    written = [
        Completion("gold 0", alone="?"),
        Completion("?", alone="gold 1"),
        Completion("gold 2", alone="gold 2"),
        Completion("gold 3"),
    ]
    judged = mark([example(i) for i in range(4)], written, Echo(), config)
    assert [one.score.value for one in judged] == [1, 0, 1, 1]
    assert [one.score.parts.get("model_alone") for one in judged] == [0, 1, 1, None]
    assert Evaluation(judged).parts["model_alone"].n == 3


@pytest.mark.parametrize("constrain", ["none", "schema"])
def test_every_example_is_answered_from_its_prompt_and_graded(constrain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(model: Any, tokenizer: Any, prompts: Any, config: Any, ends: Any, held: Any, *_: Any) -> list[Completion]:
        assert (model, tokenizer, config.max_new_tokens, ends) == ("model", "tokenizer", 9, {2})
        if held is None:
            return [Completion(f"gold {prompt[0]}" if prompt[0] % 2 else "?") for prompt in prompts]
        return [Completion(constraint.word) for constraint in held]

    monkeypatch.setattr(generating, "generate", write)
    monkeypatch.setattr(generating, "end_ids_of", lambda model, tokenizer, end: {2})
    config = RunConfig(
        task=SqlTask(),
        data=Data.model_validate({"train": "x.jsonl"}),
        model=Model(name="demo"),
        generate=Generate.model_validate({"max_new_tokens": 9, "constrain": constrain}),
    )

    def ids(messages: tuple[Message, ...]) -> list[int]:
        assert [turn.role for turn in messages] == ["system", "user"]
        return [int(messages[-1].content.split()[1])]

    evaluation = evaluate("model", "tokenizer", ids, [example(i) for i in range(6)], Echo(), config)
    assert evaluation.accuracy.value == (0.5 if constrain == "none" else 1.0)
    assert evaluation.constrained == (constrain == "schema") and evaluation.seconds > 0
    with pytest.raises(DataError, match="no examples"):
        evaluate("model", "tokenizer", ids, [], Echo(), config)
