"""Which words an answer should have, judged by the words of its question: a second opinion on finished beams.

A discriminative word lexicon (Mauser, Hasan and Ney, 2009, ACL anthology D09-1022): for every word, and every two in a
row, that answers are made of, a logistic regression says from those of the question whether it occurs. It sees no order
and no schema, so it errs elsewhere than the model does, and the two together choose better than either. It learns in
seconds from the very examples that the model is trained on.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, logsigmoid

from tunesmith.errors import StorageError

_QUOTED = re.compile(r"(?<!\w)'(?:[^']|'')*'(?!\w)")
_NUMBER = re.compile(r"(?<![^\W\d_])\d+(?:[.,]\d+)*")
_LONG = re.compile(r"[^\W\d_]{5,}")
_WORD = re.compile(r"\w+|[<>=!]+|[^\w\s]")
EXAMPLES = 50_000
"""As many teach it what there is to learn; more would be held in memory for nothing."""
_MOST = 20_000, 2_000
"""Pieces of questions and of answers, the most frequent: 160 MB of weights at most."""
_RARE = 3
"""Examples that a piece must be in."""
_EVERYWHERE = 0.98
"""A piece of more answers than this share of them tells none from another."""
_PASSES = 3
_BATCH = 256
_RATE = 0.2


def pieces(text: str) -> set[str]:
    """The words of a text and every two in a row, line by line; quoted texts are one word, and so are numbers."""
    found: set[str] = set()
    for line in text.lower().splitlines():
        words = ["^", *_WORD.findall(_NUMBER.sub(" 0 ", _QUOTED.sub(" _ ", line))), "$"]
        found.update(words[1:-1], map(" ".join, pairwise(words)))
    return found


def _clues(question: str) -> set[str]:
    """The pieces of a question, and every four letters in a row of its longer words: forms of a word share them, and so
    does the word misspelt."""
    bounded = [f"<{word}>" for word in _LONG.findall(question.lower())]
    return pieces(question) | {f"~{word[at : at + 4]}" for word in bounded for at in range(len(word) - 3)}


class Lexicon:
    """Weights between the pieces of questions and those of answers.

    Args:
        asked: rows of `weights` by piece of a question.
        written: columns by piece of an answer.
        weights: (asked, written), natural logarithms of odds.
        prior: (written,), of a question that has no piece known here.
        data: name of the data that it was learned from.
    """

    def __init__(
        self, asked: Sequence[str], written: Sequence[str], weights: Tensor, prior: Tensor, data: str = ""
    ) -> None:
        self.data = data
        self._asked = {piece: row for row, piece in enumerate(asked)}
        self._written = {piece: column for column, piece in enumerate(written)}
        self._weights, self._prior = weights, prior

    @classmethod
    def learn(cls, pairs: Iterable[tuple[str, str]], seed: int, data: str = "") -> Lexicon:
        """From questions and their right answers, by stochastic gradients with rates of their own (Adagrad: Duchi et
        al., 2011).

        Args:
            pairs: at least one.
            seed: of the order of examples.
            data: their name.
        """
        made_of = [(_clues(question), pieces(answer)) for question, answer in pairs]
        asked = _frequent((question for question, _ in made_of), _MOST[0])
        written = _frequent((answer for _, answer in made_of), _MOST[1], _EVERYWHERE * len(made_of))
        counts = torch.tensor([float(count) for count in written.values()])
        prior = torch.logit((counts / len(made_of)).clamp(1e-4))
        lexicon = cls(list(asked), list(written), torch.zeros(len(asked), len(written)), prior, data)
        rows = [(lexicon._rows(question), lexicon._columns(answer)) for question, answer in made_of]
        steps = torch.zeros_like(lexicon._weights), torch.zeros_like(prior)
        order, draw = list(range(len(rows))), random.Random(f"lexicon {seed}")
        for _ in range(_PASSES):
            draw.shuffle(order)
            for start in range(0, len(order), _BATCH):
                lexicon._step([rows[at] for at in order[start : start + _BATCH]], *steps)
        lexicon._weights = lexicon._weights.half().float()  # as they will be when they are read back
        return lexicon

    def _step(self, batch: Sequence[tuple[list[int], list[int]]], squares: Tensor, prior_squares: Tensor) -> None:
        """One step of Adagrad, on the rows that occur alone; `squares` are the sums of squared gradients so far."""
        flat, bag = _flat([rows for rows, _ in batch])
        wanted = torch.zeros(len(batch), len(self._prior))
        wanted[_flat([columns for _, columns in batch])[::-1]] = 1
        error = self._odds(flat, bag, len(batch)).sigmoid_().sub_(wanted)
        known, place = torch.unique(flat, return_inverse=True)
        has = torch.stack([place, bag]), torch.ones(len(flat)), (len(known), len(batch))
        slope = torch.sparse.mm(torch.sparse_coo_tensor(*has, check_invariants=False), error)
        sums = squares.index_select(0, known).addcmul_(slope, slope)
        squares.index_copy_(0, known, sums)
        self._weights.index_add_(0, known, slope.div_(sums.sqrt_().add_(1e-10)), alpha=-_RATE)
        slope = error.sum(0)
        self._prior.addcdiv_(slope, prior_squares.addcmul_(slope, slope).sqrt().add_(1e-10), value=-_RATE)

    def _odds(self, flat: Tensor, bag: Tensor, count: int) -> Tensor:
        """(count, written): logarithms of the odds that each piece occurs in the answer."""
        starts = torch.searchsorted(bag, torch.arange(count))
        return embedding_bag(flat, self._weights, starts, mode="sum") + self._prior

    def weigh(self, question: str, answers: Sequence[str]) -> list[float]:
        """For each answer, the logarithm of the probability that it has the pieces that it has and lacks those that it
        lacks."""
        rows = torch.tensor(self._rows(_clues(question)), dtype=torch.long)
        odds = self._odds(rows, torch.zeros_like(rows), 1)[0]
        nothing = float(logsigmoid(-odds).sum())  # log p - log (1 - p) is the logarithm of the odds
        return [nothing + float(odds[self._columns(pieces(answer))].sum()) for answer in answers]

    def _rows(self, found: set[str]) -> list[int]:
        return sorted(self._asked[piece] for piece in found if piece in self._asked)

    def _columns(self, found: set[str]) -> list[int]:
        return sorted(self._written[piece] for piece in found if piece in self._written)

    @property
    def size(self) -> tuple[int, int]:
        """Pieces of questions, and of answers."""
        return self._weights.shape[0], self._weights.shape[1]

    def save(self, path: Path) -> None:
        """Write it as safetensors, weights in 16 bits, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        told = {"asked": list(self._asked), "written": list(self._written), "data": self.data}
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file({"weights": self._weights.half(), "prior": self._prior}, draft, {"lexicon": json.dumps(told)})
            draft.replace(path)
        except (OSError, SafetensorError) as error:
            draft.unlink(missing_ok=True)
            remedy = "make room, then give the same command again: it goes on from here"
            raise StorageError(f"the lexicon cannot be written: {error}", place=str(path), remedy=remedy) from None

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Read what `save` wrote.

        Raises:
            StorageError: the file is no lexicon.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                told: dict[str, Any] = json.loads((file.metadata() or {})["lexicon"])
                tensors = file.get_tensor("weights").float(), file.get_tensor("prior")
                return cls(told["asked"], told["written"], *tensors, told["data"])
        except (SafetensorError, KeyError, ValueError) as error:
            remedy = "delete it and run again: it is learned anew"
            raise StorageError(f"is no lexicon: {error}", place=str(path), remedy=remedy) from None


def _frequent(found: Iterable[set[str]], most: int, below: float = float("inf")) -> dict[str, int]:
    counts = Counter(piece for one in found for piece in one)
    kept = ((piece, count) for piece, count in counts.items() if _RARE <= count <= below)
    return dict(sorted(kept, key=lambda item: (-item[1], item[0]))[:most])


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """All members in order, and which list each is of."""
    members = torch.tensor([member for one in lists for member in one], dtype=torch.long)
    return members, torch.repeat_interleave(torch.tensor([len(one) for one in lists]))
