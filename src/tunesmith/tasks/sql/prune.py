"""The schema a prompt shows: all of it where it fits, else the tables a question is likeliest to need."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tunesmith.tasks.sql.compose.words import SYNONYMS, human, singular
from tunesmith.tasks.sql.schema import Schema, Style, Table, render_schema, render_table

_PIECE = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")


def estimate_tokens(text: str) -> int:
    """Tokens of schema text, without a tokenizer: one per short word, digit or sign, two per long word.

    Within 25 % of the Mistral v3 and Llama-3 tokenizers on CREATE TABLE text, and on the high side.
    """
    return sum(1 if len(piece) < 9 else 2 for piece in _PIECE.findall(text))


def schema_text(
    schema: Schema, question: str, style: Style, budget: int, count: Callable[[str], int] = estimate_tokens
) -> str:
    """Schema text for one question within `budget` tokens.

    A schema that fits is shown whole and in its own order, so that every question about it shares the prompt's prefix.
    Otherwise tables are taken by relevance to the question, then their neighbours along foreign keys, until the
    budget is full; at least one table is always shown. Only the question decides, never the answer.

    Args:
        schema: the whole database.
        question: what the user asks.
        style: how a table is written.
        budget: tokens the text may have, as `count` counts.
        count: tokens of a text; the default needs no tokenizer.
    """
    whole, tokens = _whole(schema, style, count)
    if tokens <= budget:
        return whole
    kept: set[str] = set()
    used = 0
    for table in _by_relevance(schema, question):
        cost = count(render_table(table, style)) + 1
        if kept and used + cost > budget:
            continue
        kept.add(table.name)
        used += cost
    return "\n".join(render_table(table, style) for table in schema.tables if table.name in kept)


@lru_cache(16)
def _whole(schema: Schema, style: Style, count: Callable[[str], int]) -> tuple[str, int]:
    """Thousands of questions are asked about one schema."""
    text = render_schema(schema, style)
    return text, count(text)


def _by_relevance(schema: Schema, question: str) -> list[Table]:
    """Tables in the order in which a question is likely to need them."""
    asked = _stems(question)
    own = {table.name: _score(table, asked) for table in schema.tables}
    linked: dict[str, set[str]] = {table.name: set() for table in schema.tables}
    for table in schema.tables:
        for column in table.columns:
            if column.references and column.references[0] in linked:
                linked[table.name].add(column.references[0])
                linked[column.references[0]].add(table.name)
    # A table between two that are asked about is needed to join them, though the question never names it.
    score = {
        name: own[name] + 0.3 * sum(sorted((own[other] for other in linked[name]), reverse=True)[:2]) for name in own
    }
    return sorted(schema.tables, key=lambda table: -score[table.name])


def _score(table: Table, asked: set[str]) -> float:
    name = _stems(human(table.name))
    # A key's name repeats that of the table it points to, which scores for itself.
    columns = [_stems(human(c.name)) for c in table.columns if not c.references and not c.primary_key]
    values = set().union(*(_stems(value) for column in table.columns for value in column.values), set())
    comments = _stems(" ".join([table.comment, *(column.comment for column in table.columns)]))
    return (
        4.0 * len(name & asked) / max(1, len(name))
        + sum(len(column & asked) / max(1, len(column)) for column in columns)
        + 0.5 * len(values & asked)
        + 0.2 * len(comments & asked)
    )


def _stems(text: str) -> set[str]:
    """Words reduced to their singular, with the synonyms people use for them."""
    words = {singular(word.lower()) for word in re.findall(r"[^\W\d_]+", text)} - _EMPTY
    return words | {other for word in words for other in SYNONYMS.get(word, ())}


_EMPTY = frozenset(
    """a an the of for in on at by to from with and or is are was were do does did how many much what which who id
    all""".split()
)
