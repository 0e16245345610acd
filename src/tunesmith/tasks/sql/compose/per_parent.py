"""Questions that count or add up rows for each row that they belong to."""

from __future__ import annotations

import random

from tunesmith.tasks.sql.compose.asking import (
    AGGREGATES,
    MADE,
    SHOW,
    TELL,
    aggregate_function,
    best_first,
    count_of,
    spoken_count,
    threshold_of,
)
from tunesmith.tasks.sql.compose.conditions import draw
from tunesmith.tasks.sql.compose.parents import full
from tunesmith.tasks.sql.compose.query import Query, query
from tunesmith.tasks.sql.compose.roles import Book, is_money, unit_of_time, words_of
from tunesmith.tasks.sql.schema import quote


def count_per_parent(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    if not parent.label:
        return None
    own = draw(child, rng, qualified=True) if rng.random() < 0.3 else None
    noun = own.on(child.many) if own else child.many
    shown = parent.shown(True)
    base = f"FROM {full(child, e)}{f' WHERE {own.sql}' if own else ''} GROUP BY {parent.identity()}"
    role = f"[{e.role}|{parent.singular}]" if e.role != parent.singular else parent.one
    roll = rng.random()
    if roll < 0.4:
        return query(
            f"SELECT {shown}, COUNT(*) {base}",
            f"How many {noun} [does each {role} have|are there [per|for each] {role}|do we have per {role}|has each {role} had]?", f"[Number|Count] of {noun} [per|by|for each] {role}",
            f"{SHOW} the number of {noun} [per|by|for each|for every] {role}", f"For each {role}, how many {noun} [are there|do they have|do we have]?",
            f"{SHOW} [each|every] {role} [with|and] the number of {noun} [they have|]", f"{noun} per {role}",
            *([f"How many {child.many} did each {role} [have|get|make|do] {own.after}?", f"{child.many} per {role} {own.after}"] * 2 if own and own.trailing else ()),
        )  # fmt: skip
    if roll < 0.8:
        n, down = count_of(rng), rng.random() < 0.8
        sql = f"SELECT {shown} {base} ORDER BY COUNT(*){' DESC' if down else ''} LIMIT {n}"
        most = "[most|most|most|highest number of|largest number of]" if down else "[fewest|least|lowest number of]"
        if n == 1:
            who = "[Who|Which [customer|person|]]" if parent.is_person else f"Which {role}"
            who = f"[Who|Which {role}]" if parent.is_person else who
            return query(
                sql, f"{who} has [the|] {most} {noun}?", f"{who} has [had|made|got] the {most} {noun}?", f"{SHOW} the {role} with the {most} {noun}",
                f"[What|Which] {role} [comes up|appears] most often in [our|the] {noun}?" if down else f"[What|Which] {role} has the {most} {noun}?",
                f"[What is|Which is] the [most popular|busiest|most active] {role} [by number of {noun}|in terms of {noun}|by {noun}]?" if down else f"{who} has the {most} {noun}?",
            )  # fmt: skip
        k = spoken_count(n)
        return query(
            sql, f"[Top|Show the top|List the top|Give me the top|What are the top] {k} {parent.many} by number of {noun}" if down else f"[Bottom|List the bottom] {k} {parent.many} by number of {noun}",
            f"[Which|What are the] {k} {parent.many} [have|with] the {most} {noun}?", f"{SHOW} the {k} {parent.many} with the {most} {noun}",
        )  # fmt: skip
    n = rng.choice((1, 2, 3, 4, 5, 10, 20))
    op, words = rng.choice(
        ((">", "[more than|over]"), (">=", "at least"), ("<", "[fewer than|less than]"), ("=", "exactly"))
    )
    if op == "<":
        n += 1  # a group of a join has at least one row
    sql = f"SELECT {shown} {base} HAVING COUNT(*) {op} {n}"
    return query(
        sql, f"[Which|What] {parent.many} [have|had|have had] {words} {spoken_count(n)} {noun}?",
        f"{SHOW} [all|the|] {parent.many} [with|that have|who have] {words} {spoken_count(n)} {noun}" if parent.is_person else f"{SHOW} [all|the|] {parent.many} [with|that have] {words} {spoken_count(n)} {noun}",
    )  # fmt: skip


def measure_per_parent(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    if not child.measures or not parent.label:
        return None
    column = rng.choice(child.measures)
    function = aggregate_function(column, rng)
    own = draw(child, rng, qualified=True) if rng.random() < 0.25 else None
    if own and own.column == column:
        own = None
    noun, name, word = (own.on(child.many) if own else child.many), words_of(column), AGGREGATES[function]
    shown, value = parent.shown(True), f"{function}({child.ref(column, True)})"
    role = f"[{e.role}|{parent.singular}]" if e.role != parent.singular else parent.one
    base = f"FROM {full(child, e)}{f' WHERE {own.sql}' if own else ''} GROUP BY {parent.identity()}"
    of_noun = f"of {noun}" if own else f"[of {noun}|]"
    when = own.trailing if own else ""
    money = function == "SUM" and is_money(column) and (own is None or when)
    # Said without naming a table, money must be in one place only.
    spent, on = (MADE, "") if book.only_money(parent) else (MADE, f"[on|in|with|for] {child.many}")
    if not book.only_money(parent) and child.singular.split()[-1] in ("invoice", "bill"):
        spent, on = "[invoice|bill]", ""
    roll = rng.random()
    if roll < 0.12 and (threshold := threshold_of(child, column, rng)):
        above = rng.random() < 0.8
        side = "[above|over|higher than|of more than]" if above else "[below|under|lower than|of less than]"
        return query(
            f"SELECT {shown} {base} HAVING {value} {'>' if above else '<'} {threshold}",
            f"[Which|What] {parent.many} have [a|an] {word} {name} {side} {threshold} {of_noun}?", f"{SHOW} [the|all|] {parent.many} [with|that have] [a|an] {word} {name} {of_noun} {side} {threshold}",
            *([f"Which {parent.many} {spent} [more than|over] {threshold} {on} [in total|altogether|] {when}?", f"Which {parent.many} have we [billed|charged] [more than|over] {threshold} {on} [in total|altogether|] {when}?"] if money and above else ()),
        )  # fmt: skip
    if roll < 0.5:
        order, ordered = best_first(value, rng)
        return query(
            f"SELECT {shown}, {value} {base}{order}",
            f"{TELL} the {word} {name} of {noun} [per|for each|by] {role}{ordered}?", f"[{word}|The {word}] {name} of {noun} [per|by|for each] {role}{ordered}", f"{SHOW} the {word} {name} {of_noun} [per|for each|by] {role}{ordered}",
            f"For each {role}, [what is|show|give me] the {word} {name} of [their|its|the] {noun}{ordered}?", f"{SHOW} [each|every] {role} [with|and] [their|its|the] {word} {name} {of_noun}{ordered}",
            *([f"How much did each {role} {spent} {on} {when}{ordered}?", f"What did each {role} {spent} {on} {when}{ordered}?"] * 2 if money else ()),
            *([f"How long are {noun} [per|for each] {role} on average{ordered}?"] if function == "AVG" and unit_of_time(column) is not None else ()),
        )  # fmt: skip
    if function == "MIN":  # nobody ranks by the lowest of several
        function, word, value = "AVG", AGGREGATES["AVG"], f"AVG({child.ref(column, True)})"
    n, down = count_of(rng), rng.random() < 0.8
    high = "[highest|largest|biggest]" if down else "[lowest|smallest]"
    sql = f"SELECT {shown} {base} ORDER BY {value}{' DESC' if down else ''} LIMIT {n}"
    if n == 1:
        who = f"[Who|Which {role}]" if parent.is_person else f"Which {role}"
        return query(
            sql, f"{who} has the {high} {word} {name} [{of_noun}|in {noun}|across their {noun}]?", f"{SHOW} the {role} with the {high} {word} {name} of {noun}",
            f"{who} has the [most|highest] {name} [overall|in total|altogether|] [across|over] [all|] [their|its|] {noun}?" if function == "SUM" and down else f"{who} has the {high} {word} {name} of {noun}?",
            *([f"{who} [spent|paid|made|brought in|earned|billed|cost us] the most {on} {when}?", f"Which {role} [did we|have we] [spend|spent|make|made|charge|charged] the most {on or '[on|with|for]'} {when}?"] * 2 if money and down else ()),
            *([f"{who} [ordered|had|sold|got] the most [units|pieces|packs] {when}?"] if function == "SUM" and down and "quantity" in column.name and (own is None or when) else ()),
        )  # fmt: skip
    k = spoken_count(n)
    return query(
        sql, f"[Top|List the top|Show the top|Give me the top|Who are the top] {k} {parent.many} by {word} {name} {of_noun}" if down else f"[Bottom|List the bottom] {k} {parent.many} by {word} {name} of {noun}",
        *([f"top {k} {parent.many} by [spend|spending|what they spent|revenue|what we billed them|money] {on} {when}"] * 2 if money and down else ()),
        f"[Which|What are the] {k} {parent.many} [have|with] the {high} {word} {name} {of_noun}?",
    )  # fmt: skip


def category_of_parent(book: Book, rng: random.Random) -> Query | None:
    """Children grouped by a category of their parent."""
    e = book.edge(rng)
    child, parent = e.child, e.parent
    if not parent.categories:
        return None
    column = rng.choice(parent.categories)
    ref, name = parent.ref(column, True), words_of(column)
    group = f"{parent.one} {name}" if rng.random() < 0.6 else name
    if child.measures and rng.random() < 0.45:
        measure = rng.choice(child.measures)
        function = aggregate_function(measure, rng)
        word, value = AGGREGATES[function], f"{function}({child.ref(measure, True)})"
        what = f"{word} {words_of(measure)} of [all|] {child.many}"
    else:
        value, what = "COUNT(*)", f"[number|count] of {child.many}"
    if rng.random() < 0.65:
        return query(
            f"SELECT {ref}, {value} FROM {full(child, e)} GROUP BY {ref}", f"{TELL} the {what} [per|by|for each] {group}?", f"{SHOW} the {what} [per|by|for each|for every] {group}", f"[The|] {what} [per|by] {group}",
            f"How many {child.many} [are there|do we have] [per|for each|by] {group}?" if value == "COUNT(*)" else f"For each {group}, [what is|show] the {what}?",
        )  # fmt: skip
    return query(
        f"SELECT {ref} FROM {full(child, e)} GROUP BY {ref} ORDER BY {value} DESC LIMIT 1", f"[Which|What] {group} has the [highest|largest] {what}?",
        f"[Which|What] {group} has the most {child.many}?" if value == "COUNT(*)" else f"{SHOW} the {group} with the [highest|largest] {what}",
    )  # fmt: skip


def average_children(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    inner = f"SELECT COUNT(*) AS total FROM {child.sql} GROUP BY {quote(e.column)}"
    return query(
        f"SELECT AVG(total) FROM ({inner}) AS counts", f"[What is|What's|Give me] the average number of {child.many} per {parent.one}?",
        f"How many {child.many} [does a|does the average|does each] {parent.one} have on average?", f"[Average|Mean] number of {child.many} per {parent.one}",
    )  # fmt: skip
