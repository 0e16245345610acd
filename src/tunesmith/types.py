"""The nouns that rooms exchange. A name belongs here only when two rooms hand it to each other.

Record -> Example -> Tokens -> Row -> (batch, step, checkpoint, artifact); Example -> Completion -> Score -> (metric)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool"]
Level = Literal["error", "warning", "info"]
Split = Literal["train", "validation", "test"]

IGNORE = -100
"""The label of a token that the loss does not see (PyTorch's `ignore_index`)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One item as it came from a source, before anyone interprets it."""

    id: str
    """Hash of the record's content: the same on every machine, whatever file or line it came from."""
    fields: Mapping[str, Any]
    """What the source said, unchanged."""
    source: str = ""
    """Where it came from, as a person would find it again: a path, a URL, a collection."""
    line: int = 0
    """1-based line or row number in `source`; 0 where the source has none."""

    @property
    def place(self) -> str:
        """`path:line`, the form that editors and terminals turn into a link."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    train: bool = False
    """Whether the loss sees this turn. Only assistant turns may set it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys the chat template may read: `tool_calls`, `name`, `reasoning_content`."""

    def __post_init__(self) -> None:
        if self.train and self.role != "assistant":
            raise ValueError(f"only assistant turns are trained on, not {self.role!r}")


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation with a target: what is asked, what is right, and what the grader needs."""

    id: str
    """Hash of the record's identity: the same in every run, on every machine."""
    messages: tuple[Message, ...]
    target: str = ""
    """What the grader compares with. Never shown to the model."""
    rejected: str | None = None
    """A worse answer, for preference tuning."""
    group: str = ""
    """Examples of one group never straddle a split: a database, a document, a customer."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the grader and the report need, JSON-serialisable: a database, a unit, a skeleton."""
    place: str = ""
    """Where the record came from (`path:line`), for error messages and the ledger."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last assistant turn: what the model sees when it must answer."""
        last = len(self.messages)
        while last and self.messages[last - 1].role != "assistant":
            last -= 1
        return self.messages[: last - 1] if last else self.messages

    @property
    def question(self) -> str:
        """The last user turn of the prompt; empty where there is none."""
        return next((turn.content for turn in reversed(self.prompt) if turn.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last assistant turn: what training writes after the prompt; empty where there is none."""
        return next((turn.content for turn in reversed(self.messages) if turn.role == "assistant"), "")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One rendered example: `n` token ids and, for each, the label the loss compares with."""

    id: str
    """The example's id."""
    input_ids: NDArray[np.int32]
    """Shape (n,)."""
    labels: NDArray[np.int32]
    """Shape (n,): `input_ids[i]` where token i is trained, `IGNORE` elsewhere. Not shifted."""


@dataclass(frozen=True, slots=True)
class Row:
    """A packed line of `n` tokens: a prefix tree in depth-first order.

    Token i may look at token j exactly when `j <= i <= subtree_end[j]`. Labels are already shifted:
    `labels[i]` is the id that token i must predict, because in a tree the next token of an example need not
    be the next token of the row.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    position: NDArray[np.int32]
    """Depth in tokens, 0 for the first token of an example; restarts after a shared prefix."""
    subtree_end: NDArray[np.int32]
    """Last index (inclusive) of the token's subtree."""
    examples: tuple[str, ...]
    """Ids of the examples whose labels are in this row."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote."""

    text: str
    stopped: bool = True
    """Whether it ended with its end token, rather than at the length limit."""
    tokens: int = 0
    """Tokens generated, the end token included."""
    constraint_held: bool = True
    """False when a constraint was given and none of the likely tokens met it: from there on the answer is free."""
    alone: str | None = None
    """What the model alone would have given, where a lexicon had a say; None where none had."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a grader said of one completion."""

    value: float | None
    """0 to 1, or None when the answer could not be judged. None is not zero, anywhere."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Further figures on the same scale, for example `exact_match` beside execution accuracy."""
    note: str = ""
    """One sentence for a person: why this value."""
    failure: str = ""
    """The class of the failure (`unknown_column`, `timeout`, ...); empty when the answer is right."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What the report shows beside the score, JSON-serialisable: result rows, an extracted number."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says."""

    check: str
    """Name of what was found, stable, for machines: `disk`, `labels.end_masked`, `template.drops_system`."""
    level: Level
    message: str
    place: str = ""
    """File, line or key."""
    remedy: str = ""
    """What to do about it: the command or the setting that mends it."""
    cost: str = ""
    """What it would cost to go on."""


@runtime_checkable
class Constraint(Protocol):
    """What an answer may continue with, decided on text so that it needs no tokenizer and no torch.

    Each beam holds a shallow copy: what a constraint remembers of the text it has read must be replaced, not changed.
    """

    def allows(self, text: str) -> bool:
        """Whether `text` (the answer so far, with a candidate piece appended) can still become valid.

        What begins with a text that cannot, cannot either: searches settle many pieces by their first character.
        """
        ...

    def complete(self, text: str) -> bool:
        """Whether the answer may end here."""
        ...


@runtime_checkable
class Covers(Constraint, Protocol):
    """A constraint that also knows what an answer should not do without."""

    def omits(self, text: str) -> int:
        """How many of the things that the question names a whole answer leaves out."""
        ...


@runtime_checkable
class Tries(Constraint, Protocol):
    """A constraint that can also try a whole answer."""

    def works(self, text: str) -> bool:
        """Whether the answer does what any answer must, right or not: a query runs."""
        ...


@runtime_checkable
class Task(Protocol):
    """What the model should be good at: how a record becomes a question, and how an answer is marked."""

    name: str
    version: str
    """Part of the data cache's key: raise it when the prompt or the parsing changes."""

    def examples(self, record: Record) -> Iterator[Example]:
        """Phrase the record as examples. Raises `DataError` naming the record's place when it cannot."""
        ...

    def grade(self, example: Example, completion: str) -> Score:
        """Mark one answer. A grader that fails by mistake raises; only a task says `Score(None)`."""
        ...

    def constraint(self, example: Example) -> Constraint | None:
        """What the answer to this example is allowed to contain, or None for free text."""
        ...

    def close(self) -> None:
        """Release what grading holds: connections, a server. Safe to call twice."""
        ...


@runtime_checkable
class SaysGold(Protocol):
    """A task whose right answer, as a model would write it, is not simply the example's last assistant turn."""

    def gold_answer(self, example: Example) -> str:
        """What a model would have to write to score 1 on this example."""
        ...


@runtime_checkable
class RedTeamed(Protocol):
    """A task that knows how a grader like its own is fooled; `evaluate.trust.hack_gain` tries these."""

    def cheap_answers(self, example: Example) -> Mapping[str, str]:
        """Answers that solve nothing, by the name of the policy that gives them; all must score near 0.

        Generic policies (`empty`, `echo`, `constant`, `right_form`, `all_choices`, `near_miss`) are tried anyway; one
        of the same name here replaces it. Leave a policy out for an example where its answer would be right.
        """
        ...
