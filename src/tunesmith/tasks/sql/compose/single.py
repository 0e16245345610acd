"""Questions about one table."""

from __future__ import annotations

import random
from collections.abc import Callable

from tunesmith.tasks.sql.compose.asking import (
    AGGREGATES,
    SHOW,
    TELL,
    aggregate_function,
    best_first,
    count_of,
    extreme,
    how_many,
    listing,
    ranked,
    spoken_count,
    superlative,
    threshold_of,
)
from tunesmith.tasks.sql.compose.conditions import around, by_value, filtered, several, where
from tunesmith.tasks.sql.compose.query import Query, query
from tunesmith.tasks.sql.compose.roles import Book, Subject, can_be_added, many_of, words_of
from tunesmith.tasks.sql.compose.words import SUPERLATIVES, human, verb_of_date
from tunesmith.tasks.sql.schema import Column, quote


def count_all(book: Book, rng: random.Random) -> Query:
    s = book.subject(rng)
    return query(f"SELECT COUNT(*) FROM {s.sql}", *how_many(s.many))


def count_where(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    found = several(s, rng)
    if not found:
        return None
    noun = around(s.many, found)
    extra = (
        [f"How many {s.many} are there {found[0].after}?"]
        if len(found) == 1 and found[0].after and not found[0].before
        else []
    )
    if len(found) == 1 and found[0].sql.endswith(" IS NULL"):
        missing = words_of(found[0].column)
        extra += [
            f"For how many {s.many} [do we have no|are we missing the|is there no|do we not know the] {missing}?",
            f"How many {s.many} [came|are there|do we have] without [a|an|] {missing}?",
        ] * 2
    extra += (
        [f"How many of [our|the] {s.many} are {found[0].before}?"] * 2 if len(found) == 1 and found[0].before else []
    )
    return query(f"SELECT COUNT(*) FROM {s.sql} WHERE {where(found)}", *how_many(noun), *extra)


def list_where(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    found = several(s, rng)
    if not found or not s.label:
        return None
    noun = around(s.many, found)
    names = "[names|names|] of " if "name" in s.label[0].name else ""
    return query(f"SELECT {s.shown()} FROM {s.sql} WHERE {where(found)}", *listing(s, noun, names))


def lookup(book: Book, rng: random.Random) -> Query | None:
    """One attribute of one named row."""
    s = book.subject(rng)
    if len(s.label) != 1 or not s.attributes or not s.values(s.label[0]):
        return None
    value = str(rng.choice(s.values(s.label[0])))
    picked = rng.sample(s.attributes, 2 if rng.random() < 0.12 and len(s.attributes) > 1 else 1)
    selected = ", ".join(quote(c.name) for c in picked)
    name = " and ".join(words_of(c) for c in picked)
    condition = by_value(s, s.label[0], value, False)
    templates = [
        f"{TELL} the {name} of [the {s.one}|the|] {value}?",
        f"{TELL} {value}'s {name}?",
        f"What {name} does [the {s.one}|] {value} have?",
        f"[{name}|The {name}] of {value}",
        f"{value}: [what|which] {name}?",
        f"[What's|what was|do you know] {value}'s {name}?",
    ]
    only = picked[0]
    if len(picked) == 1 and only.kind in ("date", "time"):
        verb = verb_of_date(only.name)
        templates += [f"When was {value} {verb}?", f"When was [the {s.one}|] {value} {verb}?"] * 2 if verb else []
    if len(picked) == 1 and only.kind == "number" and set(human(only.name).split()) & SUPERLATIVES[0][0]:
        templates += [
            f"How much [does|is] [the {s.one}|] {value} [cost|]?",
            f"How much is [the|a|] {value}?",
            f"[How much|What] do we [charge|pay|ask] for [a|an|the|] {value}?",
        ]
    if len(picked) == 1 and human(only.name).split()[-1] in ("city", "country", "address", "location", "region"):
        templates += [
            f"Where is {value} [located|based|]?",
            f"[In which|Which] {name} is {value} [in|based in|located]?",
        ]
    return query(f"SELECT {selected} FROM {s.sql} WHERE {condition.sql}", *templates)


def attribute_list(book: Book, rng: random.Random) -> Query | None:
    """Label and an attribute of the rows that meet a condition, or of all."""
    s = book.subject(rng)
    if not s.label or not s.attributes:
        return None
    column = rng.choice(s.attributes)
    found = several(s, rng, most=1) if rng.random() < 0.7 else ()
    if found and found[0].column == column:
        return None
    label = words_of(s.label[0]) if len(s.label) == 1 else "name"
    name, noun = words_of(column), around(s.many, found)
    both = rng.random() < 0.7
    selected = f"{s.shown()}, {quote(column.name)}" if both else quote(column.name)
    sql = f"SELECT {selected} FROM {s.sql}" + filtered(found)
    if both:
        return query(
            sql,
            f"{SHOW} the {label} and {name} of [all|the|] {noun}",
            f"{SHOW} [all|the|] {noun} [with|and|together with] their {name}",
            f"What are the {label}s and {name}s of [all|the|] {noun}?",
        )
    return query(sql, f"{SHOW} the {name} of [all|the|each of the] {noun}", f"What is the {name} of [the|all|] {noun}?")


def aggregate(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    if not s.measures:
        return None
    column = rng.choice(s.measures)
    function = aggregate_function(column, rng)
    found = several(s, rng, most=1) if rng.random() < 0.65 else ()
    name, noun = words_of(column), around(s.many, found)
    word = AGGREGATES[function]
    sql = f"SELECT {function}({quote(column.name)}) FROM {s.sql}" + filtered(found)
    templates = [
        f"{TELL} the {word} {name} of [all|the|our|] {noun}?",
        f"{TELL} the {word} {name} [for|across|among|over] [all|the|our|] {noun}?",
        f"[{word}|The {word}] {name} [of|for] {noun}",
        f"What {name} do {noun} have on average?" if function == "AVG" else f"{TELL} the {word} {name} of {noun}?",
    ]
    if function == "SUM":
        templates += [
            f"How much {name} [in total|altogether] [for|across] [all|] {noun}?",
            f"Add up the {name} of [all|the] {noun}",
        ]
    if function == "AVG":
        templates += [f"On average, [what is|how high is|how much is] the {name} of [a|the] {noun}?"]
    return query(sql, *templates)


def top(book: Book, rng: random.Random) -> Query | None:
    """The first N rows of an order."""
    s = book.subject(rng)
    columns = (*s.measures, *s.measures, *s.dates)
    if not columns or not s.label:
        return None
    column, down, n = rng.choice(columns), rng.random() < 0.65, count_of(rng)
    found = several(s, rng, most=1) if rng.random() < 0.35 else ()
    if found and found[0].column == column:
        return None
    with_value = rng.random() < 0.12
    sql = f"SELECT {s.shown()}{f', {quote(column.name)}' if with_value else ''} FROM {s.sql}"
    sql += filtered(found) + f" ORDER BY {quote(column.name)}{' DESC' if down else ''} LIMIT {n}"
    and_value = f" and [its|their|the] {words_of(column)}" if with_value else ""
    return query(
        sql,
        *(
            t + and_value if not t.endswith("?") else t[:-1] + and_value + "?"
            for t in ranked(s, column, down, n, found)
        ),
    )


def extreme_of_named(book: Book, rng: random.Random) -> Query | None:
    """When was the last, what is the highest: MIN or MAX of a date."""
    s = book.subject(rng)
    if not s.dates:
        return None
    column, last = rng.choice(s.dates), rng.random() < 0.6
    found = several(s, rng, most=1) if rng.random() < 0.5 else ()
    if found and found[0].column == column:
        return None
    name, noun, verb = words_of(column), around(s.one, found), verb_of_date(column.name)
    sql = f"SELECT {'MAX' if last else 'MIN'}({quote(column.name)}) FROM {s.sql}" + filtered(found)
    word = "[latest|most recent|last]" if last else "[earliest|first|oldest]"
    templates = [
        f"{TELL} the {word} {name} [of|among|for] [all|the|] {around(s.many, found)}?",
        f"When was the {word} {noun}?",
    ]
    return query(sql, *templates, *([f"When was the {word} {noun} {verb}?"] * 2 if verb else []))


def distinct(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    if not s.categories:
        return None
    column = rng.choice(s.categories)
    names, noun = many_of(column), s.many
    if rng.random() < 0.5:
        return query(
            f"SELECT COUNT(DISTINCT {quote(column.name)}) FROM {s.sql}",
            f"How many [different|distinct|unique|various] {names} [do [the|our|] {noun} have|are there [among|across|for] [the|our|] {noun}]?",
            f"How many [different|distinct] {names} are there?", f"[In|Across] how many [different|] {names} do we have {noun}?",
            f"[Number|Count] of [distinct|different|unique] {names} [among|of|in] {noun}",
        )  # fmt: skip
    return query(
        f"SELECT DISTINCT {quote(column.name)} FROM {s.sql}",
        f"{SHOW} [all|the|] [different|distinct|unique|] {names} of [the|our|] {noun}",
        f"[What|Which] [different|distinct|] {names} [do [the|our|] {noun} have|are there [among|for] [the|] {noun}|exist for {noun}]?",
        f"[What are|Which are] the [different|possible|distinct|] {names} of {noun}?",
    )


def group_count(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    columns = (*s.categories, *s.categories, *s.booleans)
    if not columns:
        return None
    column = rng.choice(columns)
    found = several(s, rng, most=1) if rng.random() < 0.2 else ()
    if found and found[0].column == column:
        return None
    name, names, noun, ref = words_of(column), many_of(column), around(s.many, found), quote(column.name)
    base = f"FROM {s.sql}{filtered(found)} GROUP BY {ref}"
    roll = rng.random()
    if roll < 0.6:
        return query(
            f"SELECT {ref}, COUNT(*) {base}",
            f"How many {noun} [are there|do we have|] [for each|per|in each|by|for every] {name}?",
            f"[Number|Count] of {noun} [per|by|for each] {name}", f"{SHOW} the number of {noun} [per|by|for each|in each] {name}",
            f"[Break down|Split] [the number of|the|our|] {noun} by {name}", f"For each {name}, how many {noun} [are there|do we have]?",
            f"{noun} [count|] [per|by] {name}",
        )  # fmt: skip
    if roll < 0.85:
        n, down = rng.choice((1, 1, 1, 3, 5)), rng.random() < 0.75
        k = "" if n == 1 else f"{spoken_count(n)} "
        most = (
            "[most|highest number of|largest number of]"
            if down
            else "[fewest|least|smallest number of|lowest number of]"
        )
        return query(
            f"SELECT {ref} {base} ORDER BY COUNT(*){' DESC' if down else ''} LIMIT {n}",
            f"[Which|What] {k}{names + ' have' if n > 1 else name + ' has'} the {most} {noun}?",
            f"{SHOW} the {k}{names if n > 1 else name} with the {most} {noun}",
            f"[top|top|the top] {k}{names} by number of {noun}" if n > 1 and down else f"{name} with the {most} {noun}[?|]",
            f"[What is|What's] the [most common|most frequent] {name} [of|among|for] [the|our|] {noun}?" if n == 1 and down
            else f"Which {k}{names if n > 1 else name} [come up|appear] [most|most often]{' ' if down else ' seldom '}[for|among] {noun}?" if down
            else f"[Which|What] {k}{names + ' have' if n > 1 else name + ' has'} the {most} {noun}?",
        )  # fmt: skip
    n = rng.choice((1, 2, 3, 4, 5, 10, 20))
    return query(
        f"SELECT {ref} {base} HAVING COUNT(*) > {n}",
        f"[Which|What] {names} have more than {spoken_count(n)} {noun}?",
        f"{SHOW} [all|the|] {names} [with|that have] [more than|over] {spoken_count(n)} {noun}",
    )


def group_aggregate(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    if not s.categories or not s.measures:
        return None
    column, measure = rng.choice(s.categories), rng.choice(s.measures)
    function = aggregate_function(measure, rng)
    name, noun, ref, value = words_of(column), s.many, quote(column.name), f"{function}({quote(measure.name)})"
    word, what = AGGREGATES[function], words_of(measure)
    roll = rng.random()
    if roll < 0.15 and (threshold := threshold_of(s, measure, rng)):
        above = rng.random() < 0.75
        side = "[above|over|higher than|of more than]" if above else "[below|under|lower than|of less than]"
        return query(
            f"SELECT {ref} FROM {s.sql} GROUP BY {ref} HAVING {value} {'>' if above else '<'} {threshold}",
            f"[Which|What] {many_of(column)} have [a|an] {word} {what} {side} {threshold}?",
            f"{SHOW} [the|all|] {many_of(column)} [with|that have] [a|an] {word} {what} {side} {threshold}",
        )
    if roll < 0.7:
        order, ordered = best_first(value, rng)
        return query(
            f"SELECT {ref}, {value} FROM {s.sql} GROUP BY {ref}{order}",
            f"{TELL} the {word} {what} of {noun} [for each|per|by|in each] {name}?", f"[{word}|The {word}] {what} [per|by|for each] {name}{ordered}",
            f"{SHOW} the {word} {what} [per|by|for each|for every] {name}", f"For each {name}, [what is|show|give me] the {word} {what} of [the|] {noun}{ordered}?",
            f"{SHOW} {name} [and|with] the {word} {what} of [the|its] {noun}{ordered}",
        )  # fmt: skip
    down = rng.random() < 0.75
    high = "[highest|largest|biggest]" if down else "[lowest|smallest]"
    return query(
        f"SELECT {ref} FROM {s.sql} GROUP BY {ref} ORDER BY {value}{' DESC' if down else ''} LIMIT 1",
        f"[Which|What] {name} has the {high} {word} {what} [of {noun}|]?", f"{SHOW} the {name} with the {high} {word} {what} of {noun}",
        f"[In|For] which {name} is the {word} {what} of {noun} [highest|largest]?" if down else f"[In|For] which {name} is the {word} {what} of {noun} [lowest|smallest]?",
    )  # fmt: skip


def share_of(book: Book, rng: random.Random) -> Query | None:
    """What share of the rows meets a condition, in percent."""
    s = book.subject(rng)
    found = several(s, rng, most=1)
    if not found:
        return None
    c = found[0]
    rest = f"are {c.before}" if c.before else f"are {c.instead}" if c.instead else f"are {c.after}"
    return query(
        f"SELECT 100.0 * COUNT(*) FILTER (WHERE {c.sql}) / COUNT(*) FROM {s.sql}",
        f"[What percentage|What share|Which percentage|What percent] of [the|our|all|] {s.many} {rest}[, in percent|]?",
        f"[Percentage|Share] of {s.many} that {rest}[, in percent|]",
    )


def text_counts(book: Book, rng: random.Random) -> Query | None:
    """The most common value of a label: the most popular name."""
    s = book.subject(rng)
    if len(s.label) != 1 or "name" not in s.label[0].name:
        return None
    ref, n = quote(s.label[0].name), rng.choice((1, 1, 3, 5))
    name = human(s.label[0].name)
    return query(
        f"SELECT {ref} FROM {s.sql} GROUP BY {ref} ORDER BY COUNT(*) DESC LIMIT {n}",
        f"[most popular|most common] {s.one} {name}[?|]" if n == 1 else f"[{n}|top {n}] [most popular|most common] {s.one} {name}s[?|]",
        f"[What is|What's] the [most popular|most common] {name} [of|among|for] [our|the|] {s.many}?" if n == 1
        else f"[What are|Which are] the {spoken_count(n)} most [common|popular] {name}s [of|among] [our|the|] {s.many}?",
    )  # fmt: skip


def over_time(book: Book, rng: random.Random) -> Query | None:
    """Counts or sums by year or month."""
    s = book.subject(rng)
    if not s.dates:
        return None
    column = rng.choice(s.dates)
    unit = rng.choice(("YEAR", "YEAR", "MONTH"))
    ref, word, verb = quote(column.name), unit.lower(), verb_of_date(column.name)
    found = by_year(s, column, rng) if unit == "MONTH" else None
    tail = f"FROM {s.sql}{f' WHERE {found[0]}' if found else ''} GROUP BY EXTRACT({unit} FROM {ref})"
    when = f" {found[1]}" if found else ""
    added = [c for c in s.measures if can_be_added(c)]
    if added and rng.random() < 0.4:
        measure = rng.choice(added)
        return query(
            f"SELECT EXTRACT({unit} FROM {ref}), SUM({quote(measure.name)}) {tail}",
            f"[What is|What's|Show me|Give me] the total {words_of(measure)} of {s.many} [per|by|for each] {word}{when}?",
            f"[Total|Sum of] {words_of(measure)} [per|by] {word}{when}", f"{words_of(measure)} of {s.many} [by|per] {word}{when}",
        )  # fmt: skip
    return query(
        f"SELECT EXTRACT({unit} FROM {ref}), COUNT(*) {tail}",
        f"How many {s.many} [{'were ' + verb if verb else 'did we have'}|do we have|are there] [per|each|in each|by] {word}{when}?",
        f"[Number|Count] of {s.many} [per|by|for each] {word}{when}", f"{s.many} [per|by] {word}{when}",
        f"{SHOW} the number of {s.many} [{verb or 'for'} each|per|by] {word}{when}",
    )  # fmt: skip


def by_year(s: Subject, column: Column, rng: random.Random) -> tuple[str, str] | None:
    years = sorted({v.year for v in s.values(column) if hasattr(v, "year")})
    if not years:
        return None
    year = rng.choice(years)
    return f"EXTRACT(YEAR FROM {quote(column.name)}) = {year}", f"[in|for|during] {year}"


def above_average(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    if not s.measures or not s.label:
        return None
    column, above = rng.choice(s.measures), rng.random() < 0.7
    ref, name, op = quote(column.name), words_of(column), ">" if above else "<"
    word = "[above|higher than|greater than|over]" if above else "[below|lower than|under]"
    noun = f"{s.many} [with [a|] {name} {word} [the|] average|whose {name} is {word} [the|] average|with {word.split('|')[0].strip('[')}-average {name}]"
    compare = f"FROM {s.sql} WHERE {ref} {op} (SELECT AVG({ref}) FROM {s.sql})"
    if rng.random() < 0.3:
        return query(f"SELECT COUNT(*) {compare}", *how_many(noun))
    return query(f"SELECT {s.shown()} {compare}", *listing(s, noun))


def best_per_group(book: Book, rng: random.Random) -> Query | None:
    """A window function: the first row of each group."""
    s = book.subject(rng)
    columns = (*s.measures, *s.dates)
    if not columns or not s.categories or not s.label:
        return None
    column, group, down = rng.choice(columns), rng.choice(s.categories), rng.random() < 0.7
    ref, best, g = quote(column.name), superlative(column, down), words_of(group)
    inner = f"SELECT {quote(group.name)}, {s.shown()}, RANK() OVER (PARTITION BY {quote(group.name)} ORDER BY {ref}{' DESC' if down else ''}) AS place FROM {s.sql}"
    one = f"{best} {s.one}" if best else f"{s.one} with the {extreme(column, down)} {words_of(column)}"
    return query(
        f"SELECT {quote(group.name)}, {s.shown()} FROM ({inner}) AS ranked WHERE place = 1",
        f"[For each|For every|In each|Per] {g}, [which|what] is the {one}?", f"{SHOW} the {one} [of|in|for|per] [each|every] {g}",
        f"[What is|Which is|Who is] the {one} [in|of|for] each {g}?" if s.is_person else f"[What is|Which is] the {one} [in|of|for] each {g}?",
    )  # fmt: skip


def product_total(book: Book, rng: random.Random) -> Query | None:
    """Quantity times price."""
    s = book.subject(rng)
    amounts = [
        c for c in s.measures if set(human(c.name).split()) & {"quantity", "units", "hours", "days", "amount", "count"}
    ]
    prices = [c for c in s.measures if set(human(c.name).split()) & {"price", "cost", "rate", "fee"}]
    if not amounts or not prices or amounts[0] == prices[0]:
        return None
    found = several(s, rng, most=1) if rng.random() < 0.4 else ()
    noun = around(s.many, found)
    return query(
        f"SELECT SUM({quote(amounts[0].name)} * {quote(prices[0].name)}) FROM {s.sql}" + filtered(found),
        f"{TELL} the total [value|revenue|worth] of [all|the|] {noun}?", f"How much [revenue|money] did we make [from|with|on] {noun}?",
        f"{TELL} the total revenue [from|of] {noun}?",
    )  # fmt: skip


def date_span(book: Book, rng: random.Random) -> Query | None:
    """Average days between two dates of a row."""
    s = book.subject(rng)
    days = [c for c in s.dates if c.kind == "date"]
    if len(days) < 2:
        return None
    first, last = days[0], days[-1]
    return query(
        f"SELECT AVG({quote(last.name)} - {quote(first.name)}) FROM {s.sql}",
        f"[What is|What's|Give me] the average [number of days|time in days|duration in days] between {words_of(first)} and {words_of(last)} [of|for] {s.many}?",
        f"How many days [are there|pass] on average between {words_of(first)} and {words_of(last)} [for|of] {s.many}?",
        f"On average, how many days from {words_of(first)} to {words_of(last)} [for|of] {s.many}?",
    )


def sorted_list(book: Book, rng: random.Random) -> Query | None:
    s = book.subject(rng)
    columns = (*s.measures, *s.dates)
    if not columns or not s.label:
        return None
    column, down = rng.choice(columns), rng.random() < 0.6
    found = several(s, rng, most=1) if rng.random() < 0.5 else ()
    noun, name = around(s.many, found), words_of(column)
    order = ("[latest|newest] first" if down else "[oldest|earliest] first") if column.kind != "number" else (
        "[from highest to lowest|highest first|in descending order|descending]" if down else "[from lowest to highest|lowest first|in ascending order|ascending]"
    )  # fmt: skip
    sql = (
        f"SELECT {s.shown()} FROM {s.sql}"
        + filtered(found)
        + f" ORDER BY {quote(column.name)}{' DESC' if down else ''}"
    )
    return query(
        sql,
        f"{SHOW} [all|the|] {noun} [sorted|ordered|ranked] by {name} {order}",
        f"[Sort|Order|Rank] [the|all|] {noun} by {name}, {order}",
    )


KINDS: tuple[tuple[str, Callable[[Book, random.Random], Query | None], float], ...] = (
    ("count_all", count_all, 2), ("count_where", count_where, 8), ("list_where", list_where, 9), ("lookup", lookup, 6),
    ("attribute_list", attribute_list, 4), ("aggregate", aggregate, 7), ("top", top, 9), ("extreme_date", extreme_of_named, 2),
    ("distinct", distinct, 3), ("group_count", group_count, 6), ("group_aggregate", group_aggregate, 4),
    ("share_of", share_of, 1.5), ("text_counts", text_counts, 0.7), ("over_time", over_time, 2), ("above_average", above_average, 2), ("best_per_group", best_per_group, 1.5),
    ("product_total", product_total, 1.5), ("date_span", date_span, 1), ("sorted_list", sorted_list, 1.5),
)  # fmt: skip
"""(name, kind, weight)."""
