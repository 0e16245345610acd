"""Rows by the row that they belong to: what is said of orders by way of their customer."""

from __future__ import annotations

import random

from tunesmith.tasks.sql.compose.conditions import Condition, by_value, draw
from tunesmith.tasks.sql.compose.roles import Edge, Subject, is_place
from tunesmith.tasks.sql.compose.words import SITE_WORDS


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
    if found.after and is_place(found.column):
        ways.append(f"whose {edge.role} is {found.after}")
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
    if own.trailing:
        return f"[{edge.child.many} {after} {own.after}|{edge.child.many} {own.after} {after}]"
    return f"{own.on(edge.child.many)} {after}"


def is_site(subject: Subject) -> bool:
    """Whether the rows are places where people work and things happen: clinics, stores, schools."""
    return subject.singular.split()[-1] in SITE_WORDS


def full(child: Subject, edge: Edge) -> str:
    return f"{child.sql} JOIN {edge.parent.sql} ON {edge.on}"


def value_of(condition: Condition) -> str:
    """The value of an equality, as it is stored; empty for other conditions."""
    return condition.sql.split(" = ", 1)[1].strip("'").replace("''", "'") if " = '" in condition.sql else ""
