"""Questions about chains of foreign keys: three tables, and a table that points to itself."""

from __future__ import annotations

import random
from collections.abc import Callable

from tunesmith.tasks.sql.compose.asking import (
    AGGREGATES,
    SHOW,
    TELL,
    aggregate_function,
    count_of,
    how_many,
    listing,
    spoken_count,
)
from tunesmith.tasks.sql.compose.conditions import draw, where
from tunesmith.tasks.sql.compose.parents import of_parent, together
from tunesmith.tasks.sql.compose.query import Query, query
from tunesmith.tasks.sql.compose.roles import Book, Edge, can_be_added, words_of
from tunesmith.tasks.sql.compose.words import human
from tunesmith.tasks.sql.schema import quote


def chain(book: Book, rng: random.Random) -> Query | None:
    """Three tables: grandchildren of a grandparent, or two parents of one join table."""
    first = book.edge(rng)
    up = [e for e in book.edges if e.child is first.parent and e.parent is not first.child]
    across = [e for e in book.edges if e.child is first.child and e.parent is not first.parent]
    if up and (not across or rng.random() < 0.5):
        return _grandparent(first, rng.choice(up), rng)
    return _across(first, rng.choice(across), rng) if across else None


def _grandparent(first: Edge, second: Edge, rng: random.Random) -> Query | None:
    child, grand = first.child, second.parent
    tables = f"{child.sql} JOIN {first.parent.sql} ON {first.on} JOIN {grand.sql} ON {second.on}"
    if rng.random() < 0.55:
        found = of_parent(second, rng)
        if found is None:
            return None
        own = draw(child, rng, qualified=True) if rng.random() < 0.35 else None
        filters = where((found[0], own)) if own else found[0].sql
        if rng.random() < 0.4:
            noun = f"{own.on(child.many) if own else child.many} [of|for|from|by|linked to] [the|] {first.parent.many} {found[1]}"
        else:
            noun = together(first, own, found[1])
        if child.measures and rng.random() < 0.4:
            column = rng.choice(child.measures)
            function = aggregate_function(column, rng)
            return query(
                f"SELECT {function}({child.ref(column, True)}) FROM {tables} WHERE {filters}",
                f"{TELL} the {AGGREGATES[function]} {words_of(column)} of [all|] {noun}?", f"{AGGREGATES[function]} {words_of(column)} of {noun}",
            )  # fmt: skip
        if child.label and rng.random() < 0.4:
            return query(f"SELECT {child.shown(True)} FROM {tables} WHERE {filters}", *listing(child, noun))
        return query(f"SELECT COUNT(*) FROM {tables} WHERE {filters}", *how_many(noun))
    if not grand.label:
        return None
    shown, role = grand.shown(True), f"[{second.role}|{grand.singular}]"
    own = draw(child, rng, qualified=True) if rng.random() < 0.3 else None
    noun = own.on(child.many) if own else child.many
    tables += f" WHERE {own.sql}" if own else ""
    added = [c for c in child.measures if can_be_added(c)]
    if added and rng.random() < 0.5:
        column = rng.choice(added)
        value, what = f"SUM({child.ref(column, True)})", f"[total|combined] {words_of(column)} of {noun}"
    else:
        value, what = "COUNT(*)", f"number of {noun}"
    if rng.random() < 0.5:
        return query(
            f"SELECT {shown}, {value} FROM {tables} GROUP BY {grand.identity()}",
            f"{SHOW} the {what} [per|by|for each] {role}",
            f"{TELL} the {what} [per|for each] {role}?",
        )
    n = count_of(rng)
    sql = f"SELECT {shown} FROM {tables} GROUP BY {grand.identity()} ORDER BY {value} DESC LIMIT {n}"
    if n == 1:
        return query(
            sql,
            f"Which {role} has the [highest|largest] {what}?",
            f"{SHOW} the {role} with the [highest|largest] {what}",
            f"Which {role} has the most {noun}?" if value == "COUNT(*)" else f"Which {role} has the highest {what}?",
        )
    return query(
        sql,
        f"[Top|List the top|Show the top|Give me the top] {spoken_count(n)} {grand.many} by {what}",
        f"Which {spoken_count(n)} {grand.many} have the [highest|largest] {what}?",
    )


def _across(first: Edge, second: Edge, rng: random.Random) -> Query | None:
    """`students - enrolments - courses`: rows of one parent linked to a row of the other."""
    link, one, other = first.child, first.parent, second.parent
    if not one.label or one is other:
        return None
    tables = f"{link.sql} JOIN {one.sql} ON {first.on} JOIN {other.sql} ON {second.on}"
    found = of_parent(second, rng)
    if found is None:
        return None
    condition, after = found
    extra = draw(link, rng, qualified=True) if rng.random() < 0.15 else None
    filters = where((condition, extra)) if extra else condition.sql
    linked = extra.on(link.many) if extra else link.many
    value = (
        f"[with|that have|having|who have|linked to] {linked} {after}"
        if one.is_person
        else f"[with|that have|in|from|used in|linked to] {linked} {after}"
    )
    short = f"{one.many} [{after}|{value}|{value}]" if not extra else f"{one.many} {value}"
    roll = rng.random()
    if roll < 0.5:
        return query(
            f"SELECT DISTINCT {one.shown(True)} FROM {tables} WHERE {filters}",
            *listing(one, short),
            f"Which {one.many} have {linked} {after}?",
        )
    if roll < 0.7 and one.primary:
        return query(
            f"SELECT COUNT(DISTINCT {link.sql}.{quote(first.column)}) FROM {tables} WHERE {filters}", *how_many(short)
        )
    n = count_of(rng)
    sql = f"SELECT {one.shown(True)} FROM {tables} WHERE {filters} GROUP BY {one.identity()} ORDER BY COUNT(*) DESC LIMIT {n}"
    noun = f"{linked} {after}"
    if n == 1:
        who = f"[Who|Which {one.singular}]" if one.is_person else f"Which {one.singular}"
        return query(sql, f"{who} has the most {noun}?", f"{SHOW} the {one.one} with the most {noun}")
    return query(
        sql,
        f"[Top|List the top|Show the top] {spoken_count(n)} {one.many} by number of {noun}",
        f"Which {spoken_count(n)} {one.many} have the most {noun}?",
    )


def among_themselves(book: Book, rng: random.Random) -> Query | None:
    """A table that points to itself: managers, parts, parent categories."""
    if not book.loops:
        return None
    e = rng.choice(book.loops)
    s = e.child
    if len(s.label) != 1 or not s.values(s.label[0]):
        return None
    name, value = quote(s.label[0].name), str(rng.choice(s.values(s.label[0])))
    role = human(e.column).removesuffix(" id").strip() or "parent"
    text = value.replace("'", "''")
    join = f"FROM {s.sql} AS a JOIN {s.sql} AS b ON a.{quote(e.column)} = b.{quote(e.key)}"
    if rng.random() < 0.5:
        return query(
            f"SELECT b.{name} {join} WHERE a.{name} = '{text}'",
            f"[Who|What] is the {role} of {value}?",
            f"[Who|Which {s.one}] is {value}'s {role}?",
            f"{TELL} {value}'s {role}?",
        )
    if rng.random() < 0.5:
        return query(
            f"SELECT a.{name} {join} WHERE b.{name} = '{text}'",
            f"[Which|What] {s.many} have {value} as [their|] {role}?",
            f"{SHOW} the {s.many} whose {role} is {value}",
        )
    return query(
        f"SELECT b.{name}, COUNT(*) {join} GROUP BY b.{name}", f"How many {s.many} does each {role} have?", f"[Number|Count] of {s.many} [per|by|for each] {role}",
    )  # fmt: skip


KINDS: tuple[tuple[str, Callable[[Book, random.Random], Query | None], float], ...] = (
    ("chain", chain, 9),
    ("among_themselves", among_themselves, 1),
)
"""(name, kind, weight)."""
