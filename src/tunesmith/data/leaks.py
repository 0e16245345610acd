"""What training has seen of a test set: the same question, nearly the same, the same skeleton, the same database.

A leak makes a score say less than it seems to. Which likeness counts depends on what the test set claims: that its
questions are new (always), that their skeletons are, that its databases are (`data.leaks`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunesmith.config.schema import Data, Leaks, Source
from tunesmith.data.similar import Index, plain
from tunesmith.data.sources import read_records
from tunesmith.errors import CheckFailed
from tunesmith.types import Example, Finding, Record

if TYPE_CHECKING:
    from tunesmith.data.prepare import Prepared

Kind = Literal["same question", "near duplicate", "contained", "same skeleton", "same database"]

_WORDS = 8
"""A held-out text of at least so many words is looked for inside training texts, by its runs of so many words."""
_CONTAINED = 0.7
"""Share of those runs that must occur in one training example."""
_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:[.,]\d+)*\b")
_VALUE = re.compile(r"\d+(?:[.,]\d+)*|'[^']*'|\"[^\"]*\"")


class Held(NamedTuple):
    """One held-out question, of a test set or of a file of the user's."""

    set: str
    place: str
    question: str
    target: str = ""
    database: str = ""
    skeleton: str = ""
    facts: str = ""
    """What `facts_of` says of it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A training example and what it gives away."""

    kind: Kind
    set: str
    train_place: str
    held_place: str
    train_text: str
    held_text: str
    similarity: float = 1.0
    id: str = ""
    """Of the training example."""

    def reason(self) -> str:
        """Why a training row is dropped; without the held-out text, which the log of a run is not to give away."""
        return f"{self._how()}: {self.held_place} is held out ({self.set})"

    def sentence(self) -> str:
        """For a person who asks: both places, both texts."""
        return (
            f"{self._how()}: {self.train_place}: {_short(self.train_text)!r} is trained, "
            f"{self.held_place}: {_short(self.held_text)!r} is held out ({self.set})"
        )

    def _how(self) -> str:
        return f"{self.kind} (similarity {self.similarity:.2f})" if self.similarity < 1 else self.kind


def held(name: str, examples: Iterable[Example]) -> list[Held]:
    """The questions of a test set."""
    return [
        Held(
            name,
            one.place or one.id,
            question_of(one),
            one.target,
            str(one.meta.get("database", "")),
            skeleton_of(one),
            facts_of(one),
        )
        for one in examples
    ]


def question_of(example: Example) -> str:
    """What is asked: the user's turns, without the system message, which all examples of a database share."""
    return "\n".join(turn.content for turn in example.prompt if turn.role == "user")


def skeleton_of(example: Example) -> str:
    """The query with its values masked, as the record says it or read off the target; empty where there is no query."""
    if not example.meta.get("database"):
        return ""
    return str(example.meta.get("skeleton") or "") or " ".join(_LITERAL.sub("?", example.target).casefold().split())


def facts_of(example: Example) -> str:
    """What makes the answer right, where the record says it: the facts it must state, or the tool call it must be."""
    checks = example.meta.get("checks")
    if isinstance(checks, Mapping) and checks.get("include"):
        return plain(json.dumps(checks["include"], ensure_ascii=False))
    try:
        call = json.loads(example.target)
    except ValueError:
        return ""
    return json.dumps(call, sort_keys=True, ensure_ascii=False) if isinstance(call, dict) else ""


class Detective:
    """Finds what a training example gives away of held-out questions.

    Args:
        questions: everything that is held out.
        settings: how alike is too alike, and what each test set claims.
    """

    def __init__(self, questions: Sequence[Held], settings: Leaks) -> None:
        self._held = questions
        self._settings = settings
        self._index = Index(one.question for one in questions)
        self._same: dict[str, int] = {}
        self._runs: dict[int, list[int]] = {}
        self._run_counts: dict[int, int] = {}
        self._skeletons: dict[tuple[str, str], int] = {}
        self._databases: dict[str, int] = {}
        for at, one in enumerate(questions):
            self._same.setdefault(f"{one.database}\0{plain(one.question)}", at)
            runs = set(_runs(one.question))
            self._run_counts[at] = len(runs)
            for run in runs:
                self._runs.setdefault(run, []).append(at)
            if one.skeleton and one.set in settings.unseen_skeletons:
                self._skeletons.setdefault((one.database, one.skeleton), at)
            if one.database and one.set in settings.unseen_databases:
                self._databases.setdefault(one.database, at)

    def look(self, example: Example) -> Pair | None:
        """The worst that this training example gives away, or None."""
        question, database = question_of(example), str(example.meta.get("database", ""))
        for scope in {database, ""}:  # a file of the user's says no database
            if question.strip() and (at := self._same.get(f"{scope}\0{plain(question)}")) is not None:
                return self._pair("same question", example, question, at)
        if self._settings.near != "allow":
            for at, similarity in self._index.nearest(question, self._settings.similarity):
                if self._gives_away(example, question, database, self._held[at]):
                    return self._pair("near duplicate", example, question, at, similarity)
            if (at := self._contained(example, database)) is not None:
                return self._pair("contained", example, question, at)
        if database and (at := self._skeletons.get((database, skeleton_of(example)))) is not None:
            return self._pair("same skeleton", example, example.target, at)
        if (at := self._databases.get(database)) is not None:
            return self._pair("same database", example, database, at)
        return None

    def _gives_away(self, example: Example, question: str, database: str, one: Held) -> bool:
        """Whether a similar question is the same one. The same template with other values is another question: with
        queries the right query tells, where the record says them the facts or the call, elsewhere the answer, the
        numbers and quoted texts."""
        if database and one.database:
            return database == one.database and plain(example.target) == plain(one.target)
        if one.facts and (facts := facts_of(example)):
            return facts == one.facts
        if one.target and plain(example.target) == plain(one.target):
            return True
        return Counter(_VALUE.findall(question)) == Counter(_VALUE.findall(one.question))

    def _contained(self, example: Example, database: str) -> int | None:
        text = "\n".join(turn.content for turn in example.messages if turn.role != "system")
        hits = Counter(at for run in set(_runs(text)) for at in self._runs.get(run, ()))
        for at, count in hits.most_common(3):
            one = self._held[at]
            if count < _CONTAINED * self._run_counts[at] or one.database not in ("", database):
                continue
            facts = facts_of(example)
            if one.facts and facts and facts != one.facts:
                continue
            if Counter(_VALUE.findall(one.question)) <= Counter(_VALUE.findall(text)) and (
                not one.database or plain(one.target) in plain(text)
            ):
                return at
        return None

    def _pair(self, kind: Kind, example: Example, text: str, at: int, similarity: float = 1.0) -> Pair:
        one = self._held[at]
        shown = {"same skeleton": one.target, "same database": one.database}.get(kind, one.question)
        return Pair(kind, one.set, example.place or example.id, one.place, text, shown, similarity, example.id)


def _runs(text: str) -> Iterable[int]:
    words = plain(text).split()
    return (hash(tuple(words[at : at + _WORDS])) for at in range(len(words) - _WORDS + 1))


def leaks(training: Iterable[Example], questions: Sequence[Held], settings: Leaks) -> list[Pair]:
    """Every training example that gives something away, with the worst of it."""
    detective = Detective(questions, settings)
    return [pair for example in training if (pair := detective.look(example)) is not None]


def against(settings: Leaks, most_bytes: int) -> list[Held]:
    """The questions of the files that nothing may be trained on; what cannot be read in them is passed over."""
    return [
        Held(f"{AGAINST}{source.path}", item.place, texts_of(item.fields))
        for source in settings.against
        for item in read_records(source, most_bytes)
        if isinstance(item, Record)
    ]


def leaks_of(prepared: Prepared, data: Data, files: Sequence[str] = ()) -> list[Pair]:
    """Every pair that is left in prepared data, held against its test sets, `data.leaks.against` and further files."""
    sources = [*data.leaks.against, *(Source(path=str(Path(path).resolve())) for path in files)]
    settings = data.leaks.model_copy(update={"against": sources})
    questions = [one for name, examples in prepared.tests.items() for one in held(name, examples)]
    questions += against(settings, data.max_record_bytes)
    return leaks((prepared.train.example(at) for at in range(len(prepared.train))), questions, settings)


def policy_of(pair: Pair, settings: Leaks) -> str:
    """What is done about a pair: `allow`, `warn`, `drop` or `error`."""
    if pair.set.startswith(AGAINST):
        return settings.contaminated
    if pair.kind == "same question":
        return "drop"
    return settings.near if pair.kind in ("near duplicate", "contained") else "error"


AGAINST = "against "
"""How sets of the user's own test files begin."""


def gate(pairs: Sequence[Pair], settings: Leaks) -> list[Finding]:
    """What to say of the pairs that were found, one finding for each kind and set.

    Raises:
        CheckFailed: a test set's claim does not hold, with the offending pairs.
    """
    findings: list[Finding] = []
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((policy_of(pair, settings), pair.set, pair.kind), []).append(pair)
    for (policy, name, kind), found in sorted(groups.items(), key=lambda item: item[0][0] != "error"):
        told = [f"{pair.train_place}: {pair.reason()}" if policy == "drop" else pair.sentence() for pair in found]
        shown = "\n".join(f"  {one}" for one in told[: settings.shown])
        more = f"\n  and {len(found) - settings.shown:,} more" if len(found) > settings.shown else ""
        message = f"{len(found):,} training rows leak ({kind}, {name}):\n{shown}{more}"
        if policy == "error":
            raise CheckFailed(
                message,
                place=found[0].train_place,
                remedy="take the rows out of training (data.leaks has `drop`), or correct what the test set claims",
            )
        if policy != "allow":
            remedy = "nothing: they were left out of training" if policy == "drop" else "set data.leaks.near: drop"
            findings.append(Finding("leak", "warning", message, found[0].train_place, remedy))
    return findings


def texts_of(fields: Mapping[str, Any]) -> str:
    """The question of a record of any shape: of the fields that usually hold it, else of every longer text in it."""
    for key in ("question", "problem", "prompt", "instruction", "query", "input", "text"):
        value = fields.get(key)
        if isinstance(value, str) and value.strip():
            return value
    for key in ("messages", "conversations", "prompt"):
        turns = fields.get(key)
        if isinstance(turns, list):
            said = [t.get("content", t.get("value")) for t in turns if isinstance(t, Mapping)
                    and str(t.get("role", t.get("from"))).lower() in ("user", "human")]  # fmt: skip
            if texts := [text for text in said if isinstance(text, str)]:
                return "\n".join(texts)
    return "\n".join(value for value in fields.values() if isinstance(value, str) and len(value) > 20)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else f"{flat[:97]}..."
