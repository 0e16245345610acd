"""Text -> token ids with offsets, encoding what many texts share once.

A tokenizer takes special tokens out of a text before anything else, so what stands between two of them is tokenised on
its own: cutting there changes no id. A system message that hundreds of examples share (a database's schema) is
therefore encoded once per batch wherever the template closes it with a special token.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

_CHECKED = 8
"""Texts of the first batch that are encoded both ways, and must give the same ids."""


class Encoded:
    """The ids of one text, and where in it they are."""

    def __init__(self, pieces: Sequence[tuple[NDArray[np.int32], Encoding, int]]) -> None:
        """`pieces` are (ids, encoding, characters) in order."""
        self.ids: NDArray[np.int32] = np.concatenate([ids for ids, _, _ in pieces])
        self._encodings = [encoding for _, encoding, _ in pieces]
        self._characters = np.cumsum([0, *(size for _, _, size in pieces)]).tolist()
        self._tokens = np.cumsum([0, *(len(ids) for ids, _, _ in pieces)]).tolist()

    def token_at(self, character: int) -> int | None:
        """The first token that holds a character, or None when the tokenizer left it out."""
        piece = bisect_right(self._characters, character) - 1
        token = self._encodings[piece].char_to_token(character - self._characters[piece])
        return None if token is None else int(self._tokens[piece] + token)

    def start_of(self, token: int) -> int:
        """The character a token begins at."""
        piece = bisect_right(self._tokens, token) - 1
        where = self._encodings[piece].token_to_chars(token - self._tokens[piece])
        return int(self._characters[piece] + (where[0] if where else 0))


class Encoder:
    """A tokenizer's own encoding without added special tokens, as `apply_chat_template(tokenize=True)` does it.

    Args:
        serialised: `backend_tokenizer.to_str()`. A copy is made, because the tokenizer's own may be left padding or
            truncating by whoever used it last; and it loses its post-processor, which adds nothing here and may trim
            blanks off the offsets.
        special: special `AddedToken`s to cut at; any choice gives the same ids, few are found faster.
    """

    def __init__(self, serialised: str, special: Sequence[Any]) -> None:
        self.tokenizer = Tokenizer.from_str(serialised)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.post_processor = None
        # A token that swallows the blanks beside it, or is looked for after normalising, is no clean place to cut.
        clean = [t.content for t in special if not (t.lstrip or t.rstrip or t.single_word or t.normalized)]
        self._cut = re.compile("|".join(map(re.escape, clean))) if clean else None
        self._checked = False

    def encode(self, text: str) -> Encoded:
        """One text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Texts in order; each stretch that several share is encoded once."""
        if self._cut is None or len(texts) < 2:
            return [Encoded([(_ids(e), e, len(t))]) for t, e in zip(texts, self._plain(texts), strict=True)]
        pieces = [_pieces(text, self._cut) for text in texts]
        distinct = list(dict.fromkeys(piece for cut in pieces for piece in cut))
        known = {p: (_ids(e), e, len(p)) for p, e in zip(distinct, self._plain(distinct), strict=True)}
        encoded = [Encoded([known[piece] for piece in cut]) for cut in pieces]
        if not self._checked:
            self._checked = True
            whole = self._plain(texts[:_CHECKED])
            if any(one.ids.tolist() != other.ids for one, other in zip(encoded, whole, strict=False)):
                self._cut = None
                return self.encode_batch(texts)
        return encoded

    def _plain(self, texts: Sequence[str]) -> list[Encoding]:
        encodings: list[Encoding] = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return encodings


def _pieces(text: str, cut: re.Pattern[str]) -> list[str]:
    """The text cut before each special token."""
    edges = [0, *(found.start() for found in cut.finditer(text) if found.start()), len(text)]
    return [text[start:stop] for start, stop in pairwise(edges)]


def _ids(encoding: Encoding) -> NDArray[np.int32]:
    return np.array(encoding.ids, dtype=np.int32)
