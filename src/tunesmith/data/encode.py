"""Text -> token ids with offsets, encoding what many texts share once.

A tokenizer takes special tokens out of a text before anything else, so what stands between two of them is tokenised on
its own: cutting there changes no id. A system message that hundreds of examples share (a database's schema) is
therefore encoded once wherever the template closes it with a special token.

Where it does not (`[INST] schema question [/INST]`), a long common beginning is encoded once and each text only from
the beginning's last tokens on. That is right where the text's own encoding begins with those tokens again: byte pair
encoding is a row of tokens of which each two neighbours would be encoded so alone, and the words that a tokenizer cuts
a text into are found from left to right. It is looked at for every text; one where it does not hold is encoded whole.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tunesmith.data.beginnings import common_start

_CHECKED = 8
"""Texts of the first batch that are encoded both ways, and must give the same ids."""
_LONG = 400
"""Characters from which a common beginning is worth a look."""
_MOST = 0.8
"""Share of a text; a known beginning that is so much of it is gone on from, and no better one looked for."""
_TAIL = 16
"""Tokens of a common beginning that are encoded again with what follows."""
_AGREE = 8
"""So many of them must come out as before."""
_REMEMBERED = 1 << 24
"""Characters of shared stretches that are kept from batch to batch."""
_OPENING = 64
"""Characters from a stretch's start in which a place may be told from ids alone."""
_OPENINGS = 1024
"""Different ones that are kept."""
_KEEPING = {"NFC", "Lowercase", "ByteLevel", "Split", "Digits"}
"""Normalisers and pre-tokenisers under which no character of a text goes without a token."""


class _Stretch:
    """A part of a text that was encoded on its own, with what stood before it for the tokenizer's sake (`lead`)."""

    __slots__ = ("_encoding", "_found", "_lead", "_lead_tokens", "_text", "ids", "size")

    def __init__(self, text: str, ids: NDArray[np.int32], size: int, lead: int = 0, lead_tokens: int = 0) -> None:
        self.ids = ids
        self.size = size
        self._text = text
        self._lead, self._lead_tokens = lead, lead_tokens
        self._encoding: Encoding | None = None
        self._found = (0, 0)

    def forgetting(self) -> _Stretch:
        """The same without its encoding, which takes much more memory than its ids."""
        self._encoding = None
        return self

    def token_at(self, character: int, encoder: Encoder) -> int | None:
        if self._encoding is None and not self._lead and character <= _OPENING:
            before = encoder.opening(self._text[:character])
            if before is not None and len(before) < len(self.ids) and self.ids[: len(before)].tolist() == before:
                self._found = (len(before), character)
                return len(before)
        token = self._places(encoder).char_to_token(character + self._lead)
        return None if token is None or token < self._lead_tokens else token - self._lead_tokens

    def start_of(self, token: int, encoder: Encoder) -> int:
        if self._encoding is None and token == self._found[0]:
            return self._found[1]
        where = self._places(encoder).token_to_chars(token + self._lead_tokens)
        return max(0, where[0] - self._lead) if where else 0

    def _places(self, encoder: Encoder) -> Encoding:
        if self._encoding is None:
            self._encoding = encoder.places(self._text)
        return self._encoding


class Encoded:
    """The ids of one text, and where in it they are."""

    def __init__(self, stretches: Sequence[_Stretch], encoder: Encoder) -> None:
        ids = [one.ids for one in stretches]
        self.ids: NDArray[np.int32] = ids[0] if len(ids) == 1 else np.concatenate(ids)
        self._stretches = stretches
        self._encoder = encoder
        self._characters = [0, *accumulate(one.size for one in stretches)]
        self._tokens = [0, *accumulate(map(len, ids))]

    def token_at(self, character: int) -> int | None:
        """The first token that holds a character, or None when the tokenizer left it out."""
        at = min(bisect_right(self._characters, character), len(self._stretches)) - 1
        token = self._stretches[at].token_at(character - self._characters[at], self._encoder)
        return None if token is None else self._tokens[at] + token

    def start_of(self, token: int) -> int:
        """The character a token begins at."""
        at = min(bisect_right(self._tokens, token), len(self._stretches)) - 1
        return self._characters[at] + self._stretches[at].start_of(token - self._tokens[at], self._encoder)


class _Beginning:
    """What several texts begin with: all of it but its last tokens, which are encoded again with what follows."""

    def __init__(self, head: _Stretch, agree: list[int], lead: str, lead_tokens: int) -> None:
        self.head = head
        self.agree = agree
        """The first of those last tokens: what follows must come out beginning with them."""
        self.lead = lead
        self.lead_tokens = lead_tokens


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
        self._cut = clean
        # What stands before a stretch that is taken out of the middle of a text, so that it is not its beginning.
        self._leads = ["", *clean[:1]]
        made = json.loads(serialised)
        model = made["model"]
        self._local = model.get("type") == "BPE" and not model.get("dropout")
        self._spells = self._local and _spells(made)
        self._unknown = self.tokenizer.token_to_id(model.get("unk_token") or "")
        self._with_places = not self._spells
        self._openings: dict[str, list[int] | None] = {}
        self._checked = False
        self._known: dict[str, _Stretch] = {}
        self._beginnings: dict[str, _Beginning | None] = {}
        self._remembered = 0

    def encode(self, text: str) -> Encoded:
        """One text."""
        return Encoded([self._stretch(text, self._plain([text])[0])], self)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Texts in order; each stretch that several share is encoded once."""
        if len(texts) < 2:
            return [self.encode(text) for text in texts]
        pieces = [_pieces(text, self._cut) for text in texts]
        if self._remembered > _REMEMBERED:
            self._known.clear()
            self._beginnings.clear()
            self._remembered = 0
        counts = Counter(piece for cut in pieces for piece in cut)
        stretches: dict[str, list[_Stretch]] = {p: [self._known[p]] for p in counts if p in self._known}
        fresh = [piece for piece in counts if piece not in self._known]
        stretches |= self._from_beginnings([piece for piece in fresh if counts[piece] == 1 and len(piece) >= _LONG])
        whole = [piece for piece in fresh if piece not in stretches]
        for piece, encoding in zip(whole, self._plain(whole), strict=True):
            stretches[piece] = [self._stretch(piece, encoding)]
        encoded = [Encoded([s for piece in cut for s in stretches[piece]], self) for cut in pieces]
        if not self._checked:
            self._checked = True
            alone = self._plain(texts[:_CHECKED])
            if any(one.ids.tolist() != other.ids for one, other in zip(encoded, alone, strict=False)):
                self._cut, self._local = [], False
                return self.encode_batch(texts)
        for piece in fresh:
            if counts[piece] > 1:
                self._known[piece] = stretches[piece][0].forgetting()
                self._remembered += len(piece)
        return encoded

    def _from_beginnings(self, pieces: list[str]) -> dict[str, list[_Stretch]]:
        """Of the pieces that begin like others, those that may be encoded from there on."""
        if not self._local or not pieces:
            return {}
        chosen = _common_beginnings(pieces, self._beginnings)
        self._learn([text for text in dict.fromkeys(chosen.values()) if text not in self._beginnings])
        found = [(piece, known) for piece, text in chosen.items() if (known := self._beginnings[text]) is not None]
        rest = [known.lead + piece[known.head.size :] for piece, known in found]
        made: dict[str, list[_Stretch]] = {}
        for (piece, known), text, encoding in zip(found, rest, self._plain(rest), strict=True):
            stretch = self._stretch(text, encoding, len(known.lead), known.lead_tokens)
            if stretch.ids[:_AGREE].tolist() == known.agree:
                made[piece] = [known.head, stretch]
        return made

    def _learn(self, texts: list[str]) -> None:
        """Encode beginnings, and find for each where it may be gone on from."""
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            self._beginnings[text] = None
            self._remembered += len(text)
            ids = np.array(encoding.ids, dtype=np.int32)
            where = encoding.token_to_chars(len(ids) - _TAIL) if len(ids) > 2 * _TAIL else None
            for lead in self._leads if where else []:
                assert where is not None
                before = len(self._plain([lead])[0].ids) if lead else 0
                again = self._plain([lead + text[where[0] :]])[0].ids
                if again[before:] == encoding.ids[-_TAIL:]:
                    head = _Stretch(text, ids[:-_TAIL], where[0])
                    self._beginnings[text] = _Beginning(head, encoding.ids[-_TAIL:][:_AGREE], lead, before)
                    break

    def opening(self, text: str) -> list[int] | None:
        """The ids of what a stretch begins with, where a stretch whose ids begin so goes on right after it.

        That is so where tokens spell the text: the same ids are the same characters. None where they need not.
        """
        if text not in self._openings:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._openings) == _OPENINGS:
                self._openings.clear()
            self._openings[text] = ids if self._spells and self._unknown not in ids else None
        return self._openings[text]

    def places(self, text: str) -> Encoding:
        """One stretch with the places of its tokens; the next ones are encoded with theirs at once."""
        self._with_places = True
        encoding: Encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding

    def _stretch(self, text: str, encoding: Encoding, lead: int = 0, lead_tokens: int = 0) -> _Stretch:
        ids = np.array(encoding.ids[lead_tokens:], dtype=np.int32)
        stretch = _Stretch(text, ids, len(text) - lead, lead, lead_tokens)
        if self._with_places:
            stretch._encoding = encoding
        return stretch

    def _plain(self, texts: Sequence[str]) -> list[Encoding]:
        encode = self.tokenizer.encode_batch if self._with_places else self.tokenizer.encode_batch_fast
        encodings: list[Encoding] = encode(list(texts), add_special_tokens=False)
        return encodings


def _spells(made: dict[str, Any]) -> bool:
    """Whether the tokens of a serialised byte pair encoder spell the text: nothing is left out, put in or swallowed."""
    model = made["model"]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    if any(token["lstrip"] or token["rstrip"] for token in made["added_tokens"]):
        return False
    return all(map(_keeps, (*_parts(made["normalizer"]), *_parts(made["pre_tokenizer"]))))


def _keeps(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":  # of one character, so that none on the other side of an edge is drawn in
        return len(part["pattern"].get("String", "")) == 1 and part["content"] != ""
    return part["type"] in _KEEPING and part.get("behavior") != "Removed" and not part.get("add_prefix_space")


def _parts(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """What a normaliser or a pre-tokeniser consists of."""
    if step is not None and step["type"] == "Sequence":
        for part in step.get("normalizers") or step.get("pretokenizers") or ():
            yield from _parts(part)
    elif step is not None:
        yield step


def _pieces(text: str, cut: Sequence[str]) -> list[str]:
    """The text cut before each special token: the leftmost, and of those the longest, as a tokenizer finds them."""
    found: list[tuple[int, int]] = []
    for word in cut:
        at = text.find(word)
        while at >= 0:
            found.append((at, -len(word)))
            at = text.find(word, at + len(word))
    edges, end = [0], 0
    for at, minus in sorted(found):
        if at >= end:
            end = at - minus
            if at:
                edges.append(at)
    edges.append(len(text))
    return [text[start:stop] for start, stop in pairwise(edges)]


def _common_beginnings(pieces: list[str], known: dict[str, Any]) -> dict[str, str]:
    """For each piece that begins like another, or like a known text, what it shares, up to a line's or word's end."""
    chosen: dict[str, str] = {}
    under: list[str] = []  # the known texts that the one at hand begins with, the longest last
    rest: list[tuple[str, str]] = []
    for text in sorted({*pieces, *known}):
        while under and not text.startswith(under[-1]):
            under.pop()
        if text in known:
            under.append(text)
        elif under and len(under[-1]) >= _MOST * len(text):
            chosen[text] = under[-1]
        else:
            rest.append((text, under[-1] if under else ""))
    shared = [0, *(common_start(a, b) for (a, _), (b, _) in pairwise(rest)), 0]
    for at, (text, found) in enumerate(rest):
        most = max(shared[at], shared[at + 1])
        line, word = text.rfind("\n", 0, most), text.rfind(" ", 0, most)
        stop = line if 2 * line >= most else word
        if found and len(found) >= 0.9 * stop:
            chosen[text] = found
        elif stop >= _LONG:
            chosen[text] = text[:stop]
    return chosen
