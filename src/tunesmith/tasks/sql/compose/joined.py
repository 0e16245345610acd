"""Questions that need two tables or more, joined along declared foreign keys."""

from __future__ import annotations

import random
from collections.abc import Callable

from tunesmith.tasks.sql.compose.conditions import Condition, by_value, draw
from tunesmith.tasks.sql.compose.query import Query, query
from tunesmith.tasks.sql.compose.roles import (
    Book,
    Edge,
    Subject,
    is_money,
    is_place,
    many_of,
    unit_of_time,
    words_of,
)
from tunesmith.tasks.sql.compose.single import (
    AGGREGATES,
    SHOW,
    TELL,
    aggregate_function,
    best_first,
    count_of,
    how_many,
    listing,
    measured,
    ranked,
    spoken_count,
    superlative,
    threshold_of,
)
from tunesmith.tasks.sql.compose.words import SITE_WORDS, human, verb_of_date
from tunesmith.tasks.sql.schema import quote


def of_parent(edge: Edge, rng: random.Random) -> tuple[Condition, str] | None:
    """A condition on the parent, and how the child's noun is followed by it: `from customers in Lyon`, `of Anna Weiss`."""
    parent = edge.parent
    if len(parent.label) == 1 and parent.values(parent.label[0]) and rng.random() < 0.6:
        value = str(rng.choice(parent.values(parent.label[0])))
        role = edge.role if edge.role != parent.singular else parent.one
        link = "[of|for|by|from|with]" if parent.is_person else "[of|for|from|in|at|with]"
        ways = [f"{link} {value}", f"{link} {value}", f"{link} [the|] {role} {value}", f"whose {role} is {value}"]
        ways += [f"belonging to {value}", f"that belong to {value}", f"linked to {value}", f"with {value} as {role}"]
        if is_site(parent) and edge.child.is_person:
            ways += [f"[who work|working|based] at {value}"] * 3
        return by_value(parent, parent.label[0], value, True), f"[{'|'.join(ways)}]"
    found = draw(parent, rng, qualified=True)
    if found is None:
        return None
    many = found.on(parent.many)
    people = found.on("people") if parent.is_person and not found.instead else many
    ways = [f"[of|for|by|from|belonging to|linked to|made by|that belong to] [{many}|{many}|{people}]"]
    if found.after:
        ways += (
            [f"whose {edge.role} is {found.after}"]
            if is_place(found.column)
            else [f"whose {edge.role} [is|was|has] {found.after}"][:0]
        )
    if is_place(found.column) and not any(is_place(c) for c in edge.child.table.columns):
        place = found.sql.split(" = ")[-1].strip("'").replace("''", "'") if " = " in found.sql else ""
        work = "|who work in|working in" if edge.child.is_person and is_site(parent) else ""
        ways += [f"[in|from|based in{work}] {place}"] * 2 if place else []
        ways += [f"[of|at|in|for] [our|the] {place} {parent.one}"] * 2 if place and is_site(parent) else []
    if found.instead:
        ways += [f"[of|for|by|from|with] [the|] {found.instead}"] * 2
    return found, f"[{'|'.join(ways)}]"


def together(edge: Edge, own: Condition | None, after: str) -> str:
    """The child's noun with its own condition and its parent's, in either order: `orders in 2024 of X`, `orders of X in 2024`."""
    if own is None:
        return f"{edge.child.many} {after}"
    if own.after and not own.before and not own.instead:
        return f"[{edge.child.many} {after} {own.after}|{edge.child.many} {own.after} {after}]"
    return f"{own.on(edge.child.many)} {after}"


def is_site(subject: Subject) -> bool:
    """Whether the rows are places where people work and things happen: clinics, stores, schools."""
    return subject.singular.split()[-1] in SITE_WORDS


def full(child: Subject, edge: Edge) -> str:
    return f"{child.sql} JOIN {edge.parent.sql} ON {edge.on}"


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


def value_of(condition: Condition) -> str:
    """The value of an equality, as it is stored; empty for other conditions."""
    return condition.sql.split(" = ", 1)[1].strip("'").replace("''", "'") if " = '" in condition.sql else ""


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
    late = own.after if own and own.after and not own.before and not own.instead else ""
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
            *([f"How many {child.many} did each {role} [have|get|make|do] {own.after}?", f"{child.many} per {role} {own.after}"] * 2 if own and own.after and not own.before and not own.instead else ()),
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
    when = own.after if own and own.after and not own.before and not own.instead else ""
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


def average_children(book: Book, rng: random.Random) -> Query | None:
    e = book.edge(rng)
    child, parent = e.child, e.parent
    inner = f"SELECT COUNT(*) AS total FROM {child.sql} GROUP BY {quote(e.column)}"
    return query(
        f"SELECT AVG(total) FROM ({inner}) AS counts", f"[What is|What's|Give me] the average number of {child.many} per {parent.one}?",
        f"How many {child.many} [does a|does the average|does each] {parent.one} have on average?", f"[Average|Mean] number of {child.many} per {parent.one}",
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
    high = (
        ("[latest|most recent]" if down else "[earliest|oldest]")
        if column.kind != "number"
        else ("[highest|largest]" if down else "[lowest|smallest]")
    )
    one = f"{best} {child.one}" if best else f"{child.one} with the {high} {words_of(column)}"
    role = f"[{e.role}|{parent.singular}]"
    return query(
        f"SELECT {parent.shown(True)} FROM {full(child, e)} ORDER BY {child.ref(column, True)}{' DESC' if down else ''} LIMIT 1",
        f"[Which|What] {role} [has|had|does] the {one} [belong to|]?", f"[Who|What] is the {role} of the {one}?" if parent.is_person else f"What is the {role} of the {one}?",
        f"{'Who' if parent.is_person else f'Which {role}'} [has|had|made] the {one}?",
    )  # fmt: skip


MADE = "[spend|pay|make|bring in|earn|invoice|bill|charge|cost us]"

KINDS: tuple[tuple[str, Callable[[Book, random.Random], Query | None], float], ...] = (
    ("count_of_parent", count_of_parent, 8), ("list_of_parent", list_of_parent, 7), ("attribute_of_parent", attribute_of_parent, 2),
    ("parent_of_child", parent_of_child, 4), ("aggregate_of_parent", aggregate_of_parent, 6), ("last_time", last_time, 2), ("category_of_child", category_of_child, 2.5), ("with_parent", with_parent, 2.5),
    ("parents_by_child", parents_by_child, 5), ("count_per_parent", count_per_parent, 11), ("measure_per_parent", measure_per_parent, 8),
    ("category_of_parent", category_of_parent, 5), ("without_child", without_child, 4), ("with_any_child", with_any_child, 1.5),
    ("average_children", average_children, 1.5), ("top_of_parent", top_of_parent, 3), ("parent_of_extreme", parent_of_extreme, 2),
)  # fmt: skip
"""(name, kind, weight)."""
