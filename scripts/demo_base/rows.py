"""Packed rows: a schema once, and beside each other the questions about it with their SQL.

A row is a prefix tree (see `tunesmith.types.Row`); labels are already shifted. Rows come in two lengths, the long one
for long schemas.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo_base.noise import disturb
from demo_base.schemas import Database, database
from demo_base.texts import Turns, conversation
from tunesmith.tasks.sql.compose import Composer
from tunesmith.tasks.sql.mentions import Mentions, mention_text, text_values, with_mentions
from tunesmith.tasks.sql.schema import render_schema

SYSTEM = "Write one PostgreSQL query.\n\n"
SHORT, LONG = 512, 1024
NONE, TEXT, ANSWER = 0, 1, 2
"""What a label is: not there, part of a prompt, part of an answer."""
PAD = 3
MENTIONS = 0.85
"""Share of the databases whose questions are followed by the values they mention (`task.mentioned_values`)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question about a database and the query that answers it."""

    question: str
    sql: str
    kind: str


def pairs(db: Database, rng: random.Random, count: int) -> list[Pair]:
    """Up to `count` different pairs about the database."""
    composer = Composer(db.schema, db.values)
    mentions = Mentions(text_values(db.schema, db.values)) if rng.random() < MENTIONS else None
    found: dict[str, Pair] = {}
    for _ in range(count + count // 2):
        draft = composer.draw(rng, noise=0.25)
        if draft is None:
            break
        if draft.sql not in found:
            question = disturb(draft.question, draft.sql, rng)
            if mentions is not None:
                question = with_mentions(question, mention_text(mentions.find(question, 6)))
            found[draft.sql] = Pair(question, draft.sql, draft.kind)
        if len(found) == count:
            break
    return list(found.values())


def prefix_text(db: Database, rng: random.Random) -> str:
    """The prompt up to the question."""
    style = "compact" if rng.random() < 0.88 else "ddl"
    return f"<s>[INST] {SYSTEM}{render_schema(db.schema, style)}\n\n"  # type: ignore[arg-type]


def turn_texts(turns: Turns) -> list[tuple[str, int]]:
    """A conversation as the chat template writes it, in pieces: (text, TEXT or ANSWER)."""
    system = turns[0][1] + "\n\n" if turns[0][0] == "system" else ""
    pieces: list[tuple[str, int]] = []
    for role, content in turns[bool(system) :]:
        if role == "user":
            start = "<s>" if not pieces else ""
            pieces.append((f"{start}[INST] {system}{content} [/INST]", TEXT))
            system = ""
        else:
            pieces.append((f" {content}</s>", ANSWER))
    return pieces


@dataclass
class Builder:
    """One row being filled."""

    length: int
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sorts: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)

    def room(self) -> int:
        return self.length - len(self.ids)

    def add(self, ids: list[int], sorts: list[int], depth: int) -> None:
        """A run of tokens that see each other (and their ancestors); `sorts[i]` says what token i is when predicted."""
        start = len(self.ids)
        self.ids += ids
        self.labels += [*ids[1:], PAD]
        self.sorts += [*sorts[1:], NONE]
        self.position += range(depth, depth + len(ids))
        self.end += [start + len(ids) - 1] * len(ids)

    def finish(self) -> dict[str, NDArray[np.int16]]:
        """The row, padded; a padded cell sees only itself."""
        n, length = len(self.ids), self.length
        short = length - n
        rows = {
            "ids": [*self.ids, *[PAD] * short],
            "labels": [*self.labels, *[PAD] * short],
            "sorts": [*self.sorts, *[NONE] * short],
            "position": [*self.position, *[0] * short],
            "end": [*self.end, *range(n, length)],
        }
        return {name: np.array(row, dtype=np.int16) for name, row in rows.items()}


Row = dict[str, Any]


def sql_row(tokenizer: Any, rng: random.Random, db: Database | None = None) -> Row | None:
    """One row about one random database; None where the schema is too long or nothing can be asked."""
    db = db or database(rng, rich=rng.choice([0.3, 0.4, 0.6, 0.8, 1.0]))
    prefix = tokenizer.encode(prefix_text(db, rng), add_special_tokens=False).ids
    if len(prefix) > 760:
        return None
    row = Builder(SHORT if len(prefix) <= 310 else LONG)
    some = pairs(db, rng, (row.length - len(prefix)) // 40 + 1)
    if len(some) < 2:
        return None
    rng.shuffle(some)
    row.add(prefix, [TEXT] * len(prefix), 0)
    heads = tokenizer.encode_batch([f"{pair.question} [/INST]" for pair in some], add_special_tokens=False)
    tails = tokenizer.encode_batch([f" {pair.sql}</s>" for pair in some], add_special_tokens=False)
    kinds = []
    for pair, head, tail in zip(some, heads, tails, strict=True):
        if len(head.ids) + len(tail.ids) <= row.room():
            row.add(head.ids + tail.ids, [TEXT] * len(head.ids) + [ANSWER] * len(tail.ids), len(prefix))
            kinds.append(pair.kind)
    if not kinds:
        return None
    row.end[: len(prefix)] = [len(row.ids) - 1] * len(prefix)
    return {**row.finish(), "kinds": kinds}


def text_row(tokenizer: Any, rng: random.Random) -> Row:
    """Conversations beside each other, none of which sees another."""
    row = Builder(SHORT)
    while True:
        pieces = turn_texts(conversation(rng))
        ids: list[int] = []
        sorts: list[int] = []
        for encoding, (_, sort) in zip(
            tokenizer.encode_batch([text for text, _ in pieces], add_special_tokens=False), pieces, strict=True
        ):
            ids += encoding.ids
            sorts += [sort] * len(encoding.ids)
        if len(ids) > row.room():
            return {**row.finish(), "kinds": []}
        row.add(ids, sorts, 0)


def rows(tokenizer: Any, seed: int) -> Iterator[Row]:
    """Endless rows, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        row = text_row(tokenizer, rng) if rng.random() < 0.10 else sql_row(tokenizer, rng)
        if row is not None:
            yield row
