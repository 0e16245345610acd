"""Which prompts are decoded together: those that begin alike share what they begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.data.beginnings import common_start

_LEAST_PREFIX = 16
"""Tokens; sharing fewer saves less than a batch of its own costs."""
_LEAST_GROUP = 4
"""Prompts; smaller groups decode faster together with others than alone with their prefix."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that begin with the same `prefix` tokens, longest first."""

    prefix: int
    members: tuple[int, ...]


def plan(prompts: Sequence[list[int]]) -> list[Group]:
    """Group prompts by the tokens they share at the start; each keeps at least one token of its own.

    Sorted, prompts that begin alike stand together. Runs of neighbours that share at least half of the longest prompt
    become groups, then, of those left over, runs that share a quarter, and so on. The last rest has prefix 0.
    """
    rest = sorted(range(len(prompts)), key=lambda i: prompts[i])
    groups = []
    least = max(map(len, prompts), default=0) // 2
    while rest and least >= _LEAST_PREFIX:
        runs: list[tuple[int, list[int]]] = []
        for i in rest:
            shared = common_start(prompts[runs[-1][1][-1]], prompts[i]) if runs else 0
            if shared >= least:
                prefix, members = runs[-1]
                members.append(i)
                runs[-1] = (min(prefix, shared), members)
            else:
                runs.append((len(prompts[i]), [i]))
        rest = []
        for prefix, members in runs:
            prefix = min(prefix, *(len(prompts[i]) - 1 for i in members))
            if len(members) >= _LEAST_GROUP and prefix >= _LEAST_PREFIX:
                groups.append(Group(prefix, longest_first(members, prompts)))
            else:
                rest += members
        least //= 2
    return [*groups, Group(0, longest_first(rest, prompts))] if rest else groups


def longest_first(members: Sequence[int], prompts: Sequence[list[int]]) -> tuple[int, ...]:
    """Prompts of like length stand together, so that little of a batch is padding."""
    return tuple(sorted(members, key=lambda i: -len(prompts[i])))


def chunks(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """`order` in pieces of `size`, the last one shorter."""
    for start in range(0, len(order), size):
        yield order[start : start + size]
