"""Who is trained on and who is set aside, by hash of identity, never by order; and the check that nothing leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from tunesmith.types import Example, Message, Role, Split


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
    return _digest(example.prompt, _even)


def example_key(example: Example) -> str:
    """Hash of question and answer, exactly as written."""
    return _digest(example.messages, _exact)


def _digest(messages: Sequence[Message], form: Callable[[Message], str]) -> str:
    first = messages[0] if messages else None
    if first is None or first.extra or not 200 < len(first.content) < 20_000:
        return hashlib.blake2b("\0".join(map(form, messages)).encode(), digest_size=16).hexdigest()
    digest = _begun(first.role, first.content, form).copy()
    for message in messages[1:]:
        digest.update(f"\0{form(message)}".encode())
    return digest.hexdigest()


@lru_cache(256)
def _begun(role: Role, text: str, form: Callable[[Message], str]) -> hashlib.blake2b:
    """The digest after a system message that thousands of examples share."""
    return hashlib.blake2b(form(Message(role, text)).encode(), digest_size=16)


def _exact(message: Message) -> str:
    return f"{message.role}\1{message.content}\1{sorted(message.extra.items())}"


def _even(message: Message) -> str:
    return f"{message.role}\1{' '.join(message.content.casefold().split())}"
