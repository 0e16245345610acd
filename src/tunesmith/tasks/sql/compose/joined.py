"""Questions that need two tables or more, joined along declared foreign keys."""

from __future__ import annotations

import random
from collections.abc import Callable

from tunesmith.tasks.sql.compose.asking import (
    AGGREGATES,
    MADE,
    SHOW,
    TELL,
    aggregate_function,
    count_of,
    extreme,
    how_many,
    listing,
    measured,
    ranked,
    spoken_count,
    superlative,
)
from tunesmith.tasks.sql.compose.conditions import Condition, by_value, draw
from tunesmith.tasks.sql.compose.parents import full, of_parent, together, value_of
from tunesmith.tasks.sql.compose.per_parent import (
    average_children,
    category_of_parent,
    count_per_parent,
    measure_per_parent,
)
from tunesmith.tasks.sql.compose.query import Query, query
from tunesmith.tasks.sql.compose.roles import (
    Book,
    is_money,
    is_place,
    many_of,
    words_of,
)
from tunesmith.tasks.sql.compose.words import human, verb_of_date
from tunesmith.tasks.sql.schema import quote


def count_of_parent(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    found = of_parent(e, rng)
    if found is None:
        return None
    condition, after = found
    own = draw(e.child, rng, qualified=True) if rng.random() < 0.4 else None
    sql = f"SELECT COUNT(*) FROM {full(e.child, e)} WHERE {condition.sql}" + (f" AND {own.sql}" if own else "")
    templates = list(how_many(together(e, own, after)))
    parent = e.parent
    noun = (
        (own.before and own.on(e.child.many)) or (own.instead if own and own.instead else "") if own else e.child.many
    )
    late = own.after if own else ""
    noun = noun or e.child.many
    who = (
        value_of(condition)
        if parent.label and condition.column == parent.label[0]
        else condition.on(f"[our|the|] {parent.many}")
        if not condition.instead
        else f"[the|our|] {condition.instead}"
    )
    verbs = "[have|make|place|take|get|do]" if parent.is_person else "[have|get|include|contain|see]"
    if who:
        templates += [
            f"How many {noun} [does|did|do] {who} {verbs} {late}?",
            f"How many {noun} [has|have] {who} [had|got|made|] {late}?",
        ] * 2
        if parent.label and condition.column == parent.label[0]:
            templates += [
                f"How many {noun} [are|were] [there|] [in|at|for|by] {who} {late}?",
                f"How many {noun} [did|does] [the {parent.one}|] {who} {verbs} {late}?",
            ]
    if is_place(condition.column) and condition.before:
        templates += [f"How many {noun} [does|did] [our|the] {condition.before} {parent.one} {verbs} {late}?"] * 2
    return query(sql, *templates)


def list_of_parent(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng, named=True)
    found = of_parent(e, rng)
    if found is None or not e.child.label:
        return None
    condition, after = found
    own = draw(e.child, rng, qualified=True) if rng.random() < 0.4 else None
    noun = own.on(e.child.many) if own else e.child.many
    sql = f"SELECT {e.child.shown(True)} FROM {full(e.child, e)} WHERE {condition.sql}" + (
        f" AND {own.sql}" if own else ""
    )
    return query(sql, *listing(e.child, f"{noun} {after}"))


def attribute_of_parent(book: Book, rng: random.Random) -> Query | None:
    """`When were the orders of Anna Weiss placed`, `dates of the orders of ...`: a child's attribute by its parent."""
    e = book.edge(rng)
    found = of_parent(e, rng)
    if found is None or not e.child.attributes:
        return None
    column = rng.choice(e.child.attributes)
    name = words_of(column)
    return query(
        f"SELECT {e.child.ref(column, True)} FROM {full(e.child, e)} WHERE {found[0].sql}",
        f"{SHOW} the {name} of [all|the|] {e.child.many} {found[1]}", f"What [is|are] the {name}[s|] of [the|] {e.child.many} {found[1]}?",
    )  # fmt: skip


def parent_of_child(book: Book, rng: random.Random) -> Query | None:
    """The parent's label or attribute for one named child."""
    e = book.edge(rng, named=True)
    child, parent = e.child, e.parent
    if len(child.label) != 1 or not child.values(child.label[0]) or not parent.label:
        return None
    value = str(rng.choice(child.values(child.label[0])))
    condition = by_value(child, child.label[0], value, True)
    if rng.random() < 0.25 and parent.attributes:
        column = rng.choice(parent.attributes)
        name = f"{words_of(column)} of the [{e.role}|{parent.singular}]"
        selected = parent.ref(column, True)
    else:
        name, selected = f"[{e.role}|{parent.singular}]", parent.shown(True)
    sql = f"SELECT {selected} FROM {full(child, e)} WHERE {condition.sql}"
    return query(
        sql, f"[Who|What] is the {name} of [the {child.one}|] {value}?" if parent.is_person else f"[What|Which] is the {name} of [the {child.one}|] {value}?",
        f"Which {name} does [the {child.one}|] {value} [belong to|have]?", f"{TELL} the {name} [for|of] {value}?", f"{value}'s {name}",
        f"[To which|Which] {name} [does {value} belong to|is {value} linked to]?",
    )  # fmt: skip


def aggregate_of_parent(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    if not e.child.measures:
        return None
    column = rng.choice(e.child.measures)
    function = aggregate_function(column, rng)
    found = of_parent(e, rng)
    if found is None:
        return None
    condition, after = found
    own = draw(e.child, rng, qualified=True, avoid=(column,)) if rng.random() < 0.35 else None
    name, word = words_of(column), AGGREGATES[function]
    noun = together(e, own, after)
    late = own.trailing if own else ""
    templates = [
        f"{TELL} the {word} {name} of [all|the|] {noun}?", f"{TELL} the {word} {name} [for|across|on] {noun}?", f"[{word}|The {word}] {name} of {noun}",
        *measured(function, column, noun, f"{own.on(e.child.one) if own else e.child.one} {after}"),
    ]  # fmt: skip
    named = e.parent.label and condition.column == e.parent.label[0] and value_of(condition)
    if named and (own is None or late):
        value = value_of(condition)
        if function == "SUM" and is_money(column):
            templates += [
                f"How much did {value} {MADE} [on|in|with|for] {e.child.many} {late}?",
                f"What did {value}'s {e.child.many} [come to|cost|bring in|add up to] {late}?",
            ]
            if book.only_money(e.parent):
                templates += [f"[How much|What] did {value} {MADE} {late}?"] * 2
            elif e.child.singular.split()[-1] in ("invoice", "bill"):
                templates += [f"[How much|What] did {value} [invoice|bill|charge] {late}?"] * 2
        if function == "SUM" and set(human(column.name).split()) & {"quantity", "units", "count", "pieces", "packs"}:
            templates += [
                f"How many [units of|packs of|pieces of|] {value} [did we order|did we sell|did we get|were ordered|were sold|have we had] {late}?"
            ] * 3
        if function in ("MAX", "MIN"):
            best = superlative(column, function == "MAX") or (
                "[highest|biggest|largest]" if function == "MAX" else "[lowest|smallest]"
            )
            templates += [
                f"What [is|was] {value}'s {best} {e.child.one} {late}?",
                f"{TELL} the {word} {name} [of|for] {value} {late}?",
            ]
        templates += [f"{word} {name} [for|of|at|by] {value} {late}", f"{TELL} {value}'s {word} {name} {late}?"]
    sql = f"SELECT {function}({e.child.ref(column, True)}) FROM {full(e.child, e)} WHERE {condition.sql}" + (
        f" AND {own.sql}" if own else ""
    )
    return query(sql, *templates)


def last_time(book: Book, rng: random.Random) -> Query | None:
    """The latest or earliest date of a parent's children: when did X last pay."""
    e = book.edge(rng)
    found = of_parent(e, rng)
    if found is None or not e.child.dates:
        return None
    condition, after = found
    column, last = rng.choice(e.child.dates), rng.random() < 0.7
    name, verb, word = (
        words_of(column),
        verb_of_date(column.name),
        "[latest|most recent|last]" if last else "[earliest|first]",
    )
    templates = [
        f"When was the {word} {e.child.one} {after}{f' [{verb}|]' if verb else ''}?", f"{TELL} the {word} {name} of [all|the|] {e.child.many} {after}?",
        f"When did we [last|most recently] have [a|an] {e.child.one} {after}?" if last else f"When did we first have [a|an] {e.child.one} {after}?",
    ]  # fmt: skip
    if (value := value_of(condition)) and e.parent.label and condition.column == e.parent.label[0]:
        templates += [
            f"When did {value} [last|most recently] have [a|an] {e.child.one}?"
            if last
            else f"When did {value} first have [a|an] {e.child.one}?",
            f"{value}'s {word} {e.child.one}, when was that?",
        ]
    return query(
        f"SELECT {'MAX' if last else 'MIN'}({e.child.ref(column, True)}) FROM {full(e.child, e)} WHERE {condition.sql}",
        *templates,
    )


def category_of_child(book: Book, rng: random.Random) -> Query | None:
    """A child's category counted among the children of some parents: what do cats come in for most often."""
    e = book.edge(rng)
    found = of_parent(e, rng)
    if found is None or not e.child.categories:
        return None
    column = rng.choice(e.child.categories)
    ref, name = e.child.ref(column, True), words_of(column)
    tables = f"FROM {full(e.child, e)} WHERE {found[0].sql} GROUP BY {ref}"
    noun = f"{e.child.many} {found[1]}"
    if rng.random() < 0.5:
        return query(
            f"SELECT {ref}, COUNT(*) {tables}", f"[Number|Count] of {noun} [per|by|for each] {name}", f"How many {noun} [are there|do we have|] [per|by|for each] {name}?",
            f"[Break down|Split] [the|] {noun} by {name}", f"{noun} [by|per] {name}",
        )  # fmt: skip
    n, down = rng.choice((1, 1, 1, 3, 5)), rng.random() < 0.85
    most = "[most common|most frequent|top]" if down else "[least common|rarest]"
    k = "" if n == 1 else f"{spoken_count(n)} "
    return query(
        f"SELECT {ref} {tables} ORDER BY COUNT(*){' DESC' if down else ''} LIMIT {n}",
        f"[What is|What's|Which is] the {k}{most} {name} [of|for|among] {noun}?" if n == 1 else f"[What are|Which are] the {k}{most} {many_of(column)} [of|for|among] {noun}?",
        f"Which {k}{name if n == 1 else many_of(column)} [do|does|did] {noun} have most often?" if down else f"{k}{most} {name} of {noun}",
    )  # fmt: skip


def with_parent(book: Book, rng: random.Random) -> Query | None:
    """Children beside the parent they belong to."""
    e = book.edge(rng, named=True)
    child, parent = e.child, e.parent
    if not child.label or not parent.label:
        return None
    own = draw(child, rng, qualified=True) if rng.random() < 0.6 else None
    noun = own.on(child.many) if own else child.many
    sql = f"SELECT {child.shown(True)}, {parent.shown(True)} FROM {full(child, e)}" + (
        f" WHERE {own.sql}" if own else ""
    )
    role = f"[{e.role}|{parent.singular}]"
    return query(
        sql, f"{SHOW} [all|the|] {noun} [with|together with|and|along with] their {role}", f"{SHOW} each of the {noun} [with|and] [its|the|their] {role} [name|]",
        f"[Which|What] {role} does each of the {noun} have?", f"{SHOW} [the|all|] {noun} and the [name of the|] {role} [they belong to|]",
    )  # fmt: skip


def parents_by_child(book: Book, rng: random.Random) -> Query | None:
    """Parents that have a child meeting a condition."""
    e = book.edge(rng)
    child, parent = e.child, e.parent
    found = draw(child, rng, qualified=True)
    if len(child.label) == 1 and child.values(child.label[0]) and rng.random() < 0.3:
        value = str(rng.choice(child.values(child.label[0])))
        found = Condition(
            by_value(child, child.label[0], value, True).sql, child.label[0], f"[called|named|called] {value}"
        )
    if found is None or not parent.label:
        return None
    noun = found.on(f"[{child.many}|{child.many}|a {child.one}|any {child.one}]" if not found.before else child.many)
    own = draw(parent, rng, qualified=True) if rng.random() < 0.3 else None
    if own is not None:
        people = own.on(parent.many)
        sql = f"SELECT DISTINCT {parent.shown(True)} FROM {full(child, e)} WHERE {own.sql} AND {found.sql}"
        return query(
            sql,
            f"[Which|which] {people} [have|had|have got] {noun}?",
            *listing(parent, f"{people} [with|that have|that had|having] {noun}"),
        )
    if rng.random() < 0.3:
        return query(
            f"SELECT COUNT(DISTINCT {child.sql}.{quote(e.column)}) FROM {child.sql} WHERE {found.sql}",
            f"How many {parent.many} [have|had|have got] {noun}?", f"How many [different|distinct|] {parent.many} [have|had|with] {noun}?",
            f"[Number|Count] of [different|distinct|] {parent.many} [with|having] {noun}",
        )  # fmt: skip
    noun = (
        f"{parent.many} [with|that have|that had|having|who have|linked to] [at least one|any|] {noun}"
        if parent.is_person
        else f"{parent.many} [with|that have|that had|having] {noun}"
    )
    return query(
        f"SELECT DISTINCT {parent.shown(True)} FROM {full(child, e)} WHERE {found.sql}",
        *listing(parent, noun),
        f"Which {noun}?",
    )


DONE = {
    "order": "ordered", "delivery": "delivered", "prescription": "prescribed", "review": "reviewed", "sale": "sold",
    "booking": "booked", "rental": "rented", "reservation": "reserved", "shipment": "shipped", "purchase": "bought",
    "loan": "borrowed", "visit": "visited", "treatment": "used", "inspection": "inspected", "repair": "repaired",
    "rating": "rated", "return": "returned", "request": "requested", "item": "ordered", "line": "ordered",
    "usage": "used", "download": "downloaded", "payment": "paid",
}  # fmt: skip
"""What was done to a thing that such a row is about: a product with orders was ordered."""


def without_child(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    if not parent.label:
        return None
    own = draw(child, rng, qualified=True) if rng.random() < 0.2 else None
    noun = own.on(child.many) if own else child.many
    sql = (
        f"FROM {parent.sql} WHERE NOT EXISTS (SELECT 1 FROM {child.sql} WHERE {e.on}{f' AND {own.sql}' if own else ''})"
    )
    that = "[who|that]" if parent.is_person else "that"
    done = DONE.get(child.singular.split()[-1])
    phrase = f"{parent.many} [without [any|a single|] {noun}|{that} have no {noun}|{that} [have never had|never had] [any|] {noun}|with no {noun}|{that} [don't|do not] have [any|] {noun}]"
    if rng.random() < 0.4:
        return query(
            f"SELECT COUNT(*) {sql}",
            *how_many(phrase),
            f"How many {parent.many} [have no|don't have any|never had any|have never had any] {noun}?",
        )
    unasked = (
        [
            f"Which {parent.many} [were|have been] never {done}?",
            f"Which {parent.many} [have never been|were never] [{done}|used]?",
            f"Are there {parent.many} [nobody [ever|] {done}|that were never {done}]? Which ones?",
            f"{parent.many} [nobody has ever|we have never|never] {done}",
        ]
        if done and own is None and not parent.is_person
        else []
    )
    return query(
        f"SELECT {parent.shown()} {sql}",
        *unasked,
        *listing(parent, phrase),
        f"Which {parent.many} [have no|don't have any|never had any|have never had any|have zero] {noun}?",
    )


def with_any_child(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    return query(
        f"SELECT COUNT(DISTINCT {quote(e.column)}) FROM {child.sql}", f"How many {parent.many} [have|had|have had] [at least one|any|a] {child.one}?",
        f"How many [different|distinct] {parent.many} [are there in|appear in|are in] [the|our|] {child.many}?",
    )  # fmt: skip


def top_of_parent(book: Book, rng: random.Random) -> Query | None:
    """The first children of one parent by a column."""
    e = book.edge(rng, named=True)
    child, columns = e.child, (*e.child.measures, *e.child.dates)
    found = of_parent(e, rng)
    if found is None or not columns or not child.label:
        return None
    column, down, n = rng.choice(columns), rng.random() < 0.7, count_of(rng)
    sql = f"SELECT {child.shown(True)} FROM {full(child, e)} WHERE {found[0].sql} ORDER BY {child.ref(column, True)}{' DESC' if down else ''} LIMIT {n}"
    where_from = Condition(found[0].sql, found[0].column, found[1])
    return query(sql, *ranked(child, column, down, n, (where_from,)))


def parent_of_extreme(book: Book, rng: random.Random) -> Query | None:
    """The parent of the child that comes first in an order."""
    e = book.edge(rng)
    child, parent, columns = e.child, e.parent, (*e.child.measures, *e.child.dates)
    if not columns or not parent.label:
        return None
    column, down = rng.choice(columns), rng.random() < 0.7
    best = superlative(column, down)
    one = f"{best} {child.one}" if best else f"{child.one} with the {extreme(column, down)} {words_of(column)}"
    role = f"[{e.role}|{parent.singular}]"
    return query(
        f"SELECT {parent.shown(True)} FROM {full(child, e)} ORDER BY {child.ref(column, True)}{' DESC' if down else ''} LIMIT 1",
        f"[Which|What] {role} [has|had|does] the {one} [belong to|]?", f"[Who|What] is the {role} of the {one}?" if parent.is_person else f"What is the {role} of the {one}?",
        f"{'Who' if parent.is_person else f'Which {role}'} [has|had|made] the {one}?",
    )  # fmt: skip


KINDS: tuple[tuple[str, Callable[[Book, random.Random], Query | None], float], ...] = (
    ("count_of_parent", count_of_parent, 8), ("list_of_parent", list_of_parent, 7), ("attribute_of_parent", attribute_of_parent, 2),
    ("parent_of_child", parent_of_child, 4), ("aggregate_of_parent", aggregate_of_parent, 6), ("last_time", last_time, 2), ("category_of_child", category_of_child, 2.5), ("with_parent", with_parent, 2.5),
    ("parents_by_child", parents_by_child, 5), ("count_per_parent", count_per_parent, 11), ("measure_per_parent", measure_per_parent, 8),
    ("category_of_parent", category_of_parent, 5), ("without_child", without_child, 4), ("with_any_child", with_any_child, 1.5),
    ("average_children", average_children, 1.5), ("top_of_parent", top_of_parent, 3), ("parent_of_extreme", parent_of_extreme, 2),
)  # fmt: skip
"""(name, kind, weight)."""
