"""Who is trained on and who is set aside, by hash of identity, never by order; and the check that nothing leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from tunesmith.types import Example, Message, Split


def assign_split(identity: str, seed: int, shares: Mapping[Split, float]) -> Split:
    """The side an identity falls on: the same on every machine and in every order.

    Args:
        identity: what must not straddle: the example's group (a database, a document), else its prompt.
        seed: another seed makes another split.
        shares: share of the identities per side other than `train`; the rest is trained on.
    """
    digest = hashlib.blake2b(f"{seed}\0{identity}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    edge = 0.0
    for split, share in shares.items():
        edge += share
        if draw < edge:
            return split
    return "train"


def prompt_key(example: Example) -> str:
    """Hash of what is asked, blind to spacing and case, so that a question written twice is recognised."""
    return _digest(example.prompt)


def example_key(example: Example) -> str:
    """Hash of question and answer, exactly as written."""
    text = "\0".join(
        f"{message.role}\1{message.content}\1{sorted(message.extra.items())}" for message in example.messages
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest(messages: tuple[Message, ...]) -> str:
    text = "\0".join(f"{message.role}\1{_even(message.content)}" for message in messages)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _even(text: str) -> str:
    return _shared(text) if 200 < len(text) < 20_000 else " ".join(text.casefold().split())


@lru_cache(256)
def _shared(text: str) -> str:
    """A system message that thousands of examples share is looked at once."""
    return " ".join(text.casefold().split())
