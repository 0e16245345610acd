"""The ways in which people ask: for a number of rows, for the rows, for the first of an order, for an amount."""

from __future__ import annotations

import random

from tunesmith.tasks.sql.compose.conditions import Condition, around, by_number
from tunesmith.tasks.sql.compose.roles import Subject, can_be_added, is_money, unit_of_time, words_of
from tunesmith.tasks.sql.compose.words import NUMBER_WORDS, SUPERLATIVES, human, verb_of_date
from tunesmith.tasks.sql.schema import Column

SHOW = "[List|Show|Show me|Give me|Find|Get|Name|I need|Can you list|Can I get|Pull up|We need]"
TELL = "[What is|What is|What's|Give me|Show me|Tell me|Find|I need]"
AGGREGATES = {
    "AVG": "[average|mean|avg|typical]",
    "SUM": "[total|total|combined|overall|sum of the]",
    "MAX": "[highest|maximum|largest|biggest|top|max]",
    "MIN": "[lowest|minimum|smallest|min]",
}
MADE = "[spend|pay|make|bring in|earn|invoice|bill|charge|cost us]"


def aggregate_function(column: Column, rng: random.Random) -> str:
    """What to do with a measure; a column whose sum means nothing is averaged instead."""
    function = rng.choice(("SUM", "SUM", "SUM", "AVG", "AVG", "MAX", "MIN"))
    return function if function != "SUM" or can_be_added(column) else "AVG"


def count_of(rng: random.Random) -> int:
    """N of a top-N, as people like them."""
    return rng.choice((1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7, 8, 10, 10, 10, 12, 15, 20))


def spoken_count(n: int) -> str:
    return f"[{n}|{n}|{NUMBER_WORDS[n]}]" if 0 < n <= 10 else str(n)


def superlative(column: Column, descending: bool) -> str:
    """What the first row of that order is called before the noun; empty where only `highest price` will do."""
    words = set(human(column.name).split())
    if column.kind in ("date", "time"):
        if words & {"birth", "born", "founded", "built", "opened", "established"}:
            return "[youngest|newest]" if descending else "oldest"
        if words & {"hired", "hire", "joined", "since", "employed"}:
            return (
                "[newest|most recent|latest]"
                if descending
                else "[longest-serving|longest standing|oldest|most senior|first]"
            )
        verb = verb_of_date(column.name)
        extra = f"|most recently {verb}|last {verb}" if verb and descending else f"|earliest {verb}" if verb else ""
        return f"[latest|most recent|newest{extra}]" if descending else f"[earliest|first|oldest{extra}]"
    for names, most, least in SUPERLATIVES:
        if words & names:
            return f"[{most}]" if descending else f"[{least}]"
    return ""


def wh(subject: Subject) -> str:
    """`Who` for people, `Which` and `What` for things."""
    return "[Who|Who|Which [one|]]" if subject.is_person else "[Which|What]"


def how_many(noun: str) -> tuple[str, ...]:
    """The ways to ask for a number of rows."""
    return (
        f"How many {noun} [are there|do we have|exist|are in the system|have we got|have we had|]?",
        f"How many {noun} [are there|do we have|do we have on record|did we have|are on the books]?",
        f"[What is|What's|Give me|Tell me] the [number|total number|count] of {noun}?",
        f"[Number|Count|Total number] of {noun}",
        f"Count [the|all|] {noun}",
        f"how many {noun}",
        f"[Any idea|Do you know|Can you tell me] how many {noun} [we have|there are|are on the books]?",
        f"How many {noun} [so far|in total|all together|right now|at the moment|these days]?",
    )


def listing(s: Subject, noun: str, names: str = "") -> tuple[str, ...]:
    """The ways to ask for the rows themselves, by their label."""
    label = words_of(s.label[0]) if len(s.label) == 1 else "[name|full name]"
    plural_label = f"{human(s.label[0].name)}s" if len(s.label) == 1 else "names"
    who = (f"Who are [the|our|] {noun}?", f"[Who are|List] all [the|our|] {noun}?") if s.is_person else ()
    return (
        f"{SHOW} [all|the|all the|all our|] {noun}",
        f"{SHOW} [the|all|] {names or f'[{plural_label}|] of '}[the|all|our|] {noun}",
        f"[Which|Which|What] {noun} [do we have|are there|exist]?",
        f"[What are|What were] the {names or f'[{plural_label}|{label}s] of '}{noun}?",
        f"[Which|which] {noun}[?|]",
        f"{noun}[, please|, which ones?|]",
        f"What are [the|our] {noun} called?",
        f"Are there [any|] {noun}? Which [ones|]?",
        f"[Could you|Can you] [pull|give me|send me] [the|all|a list of] {noun}?",
        *who,
    )


def measured(function: str, column: Column, many: str, one: str) -> list[str]:
    """How people ask for an amount without naming the column: `how much did we spend on`, `how long does a ... take`."""
    name, unit = words_of(column), unit_of_time(column)
    if function == "SUM":
        found = [
            f"How much {name} [in total|altogether|] [for|across|in] [all|] {many}?",
            f"Add up the {name} of [all|the] {many}",
        ]
        if is_money(column):
            found += [
                f"How much [did we spend|have we spent|did we pay|did we make|did we earn|did we take|have we made|money did we make|did we charge|did we bill] [on|for|with|from] {many} [in total|altogether|]?",
                f"How much [money|] [is|was] [in|tied up in|sitting in|there in] {many} [in total|altogether|]?",
                f"What did {many} [cost us|bring in|bring us|earn us|come to] [in total|altogether|so far|]?",
                f"[What is|What's] the total of [all|our|the] {many}?",
            ]
        if set(human(column.name).split()) & {"quantity", "units", "count", "pieces", "packs"}:
            found += [
                f"How many [units|pieces|items|packs] [are there|did we have|] [in|of|for] {many} [in total|]?"
            ] * 2
        if unit:
            found += [f"How many {unit} [in total|altogether] [for|of|on] {many}?"] * 2
        return found
    if function == "AVG":
        found = [f"On average, [what is|how high is|how much is] the {name} of [a|the] {many}?"]
        if unit is not None:
            found += [
                f"How long [does|do] [a|an|the] {one} [take|last|run] on average[, in {unit or 'total'}|]?",
                f"[average|mean] length of [a|an|] {one}[?|]",
            ] * 2
        if is_money(column):
            found += [
                f"How much [does|do] [a|an|the average] {one} [cost|pay|bring in|earn] on average?",
                f"How much do we [charge|pay|spend] [for|on] {many} on average?",
            ]
        return found
    best = superlative(column, function == "MAX")
    how = "How long" if unit is not None else "How much" if is_money(column) else "How [big|high|large]"
    return [f"{how} [is|was] [the|our] {best or ('highest' if function == 'MAX' else 'lowest')} {one} [ever|we had|]?"]


def ranked(s: Subject, column: Column, down: bool, n: int, found: tuple[Condition, ...] = ()) -> list[str]:
    """The ways to ask for the first N rows by a column."""
    name, best = words_of(column), superlative(column, down)
    high = "[highest|largest|biggest|greatest|most]" if down else "[lowest|smallest|least]"
    if column.kind in ("date", "time"):
        high = "[latest|most recent]" if down else "[earliest|oldest]"
    one, many = around(s.one, found), around(s.many, found)
    if n == 1:
        templates = [
            f"[Which|What] {one} has the {high} {name}?",
            f"{SHOW} the {one} with the {high} {name}",
            f"{wh(s)} has the {high} {name}?" if not found else f"Which {one} has the {high} {name}?",
            f"{TELL} the {one} with the {high} {name}?",
        ]
        if best:
            templates += [
                f"[Which is|What is|What's|Show me|Name] the {best} {one}?",
                f"Which {one} is the {best}?",
                f"[our|the] {best} {one}",
            ]
            templates += [f"Who is [the|our] {best} {one}?"] * 2 if s.is_person else []
        return templates
    k = spoken_count(n)
    templates = [
        f"[What are|Which are|Show me|List|Give me|Find] the {k} {many} with the {high} {name}?",
        f"[Top|Show the top|Give me the top|What are the top|List the top] {k} {many} by {name}" if down
        else f"[Bottom|Show the bottom|Give me the bottom|List the bottom] {k} {many} by {name}",
        f"Which {k} {many} have the {high} {name}?",
    ]  # fmt: skip
    if best:
        templates += [
            f"[What are|Which are|Show me|List|Give me] [the|our] {k} {best} {many}?",
            f"[The|] {k} {best} {many}",
        ] * 2
    return templates


def threshold_of(s: Subject, column: Column, rng: random.Random) -> str:
    """A round value of the column to compare with; empty where there is none."""
    condition = by_number(s, column, rng, False)
    return condition.sql.split()[-1] if condition else ""


def best_first(value: str, rng: random.Random) -> tuple[str, str]:
    """Sometimes an order over groups, and how people ask for it."""
    roll = rng.random()
    if roll < 0.14:
        return (
            f" ORDER BY {value} DESC",
            "[, highest first|, biggest first|, best first|, largest first| from highest to lowest| in descending order]",
        )
    if roll < 0.18:
        return f" ORDER BY {value}", "[, lowest first|, smallest first| from lowest to highest| in ascending order]"
    return "", ""


def extreme(column: Column, down: bool) -> str:
    """The first of an order by a column, said before its name: `the highest price`, `the latest date`."""
    if column.kind != "number":
        return "[latest|most recent]" if down else "[earliest|oldest]"
    return "[highest|largest]" if down else "[lowest|smallest]"
