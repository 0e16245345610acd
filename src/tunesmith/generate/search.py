"""Which token comes next: the likeliest answers in the making, held to a constraint where one is given.

A beam is an answer in the making. At every step each beam is extended by its likeliest tokens, and of all extensions
the likeliest that the constraint allows go on. With one beam this is greedy decoding, or sampling where noise is added
to the logits. With more, a beam that the constraint leaves no good way on dies, and another goes on, where a single one
would be forced into nonsense.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.schema import Generate
from tunesmith.types import Completion, Constraint, Covers, Tries

Progress = Callable[[int], None]
Opinion = Callable[[Sequence[str]], Sequence[float]]
"""Of whole answers to one prompt: how likely something else than the model finds each, in nats."""

_CANDIDATES = 4096
"""Tokens tried at one step of one answer, likeliest first, before its constraint is given up."""
_FAR = 7.0
"""Nats: what is a thousand times less likely than the likeliest is not worth going on with."""
_PATIENCE = 8
"""Tokens after one beam that are refused before its constraint is asked which characters cannot come next."""
_MOST_SILENT = 3
"""Tokens in a row that may spell nothing: the first three bytes of a character of four."""


@dataclass(slots=True, eq=False)
class Beam:
    """One answer in the making."""

    constraint: Constraint | None
    ids: list[int] = field(default_factory=list)
    score: float = 0.0
    """Natural logarithm of its probability (of the noisy one, where answers are sampled)."""
    text: str = ""
    """What `ids` spell, kept only while a constraint is held."""
    silent: int = 0
    """Tokens since `text` last grew: bytes of a character that is not whole yet."""
    held: bool = True
    stopped: bool = False
    refused: int = 0
    """Tokens that the constraint did not let follow."""
    starts: dict[str, bool] = field(default_factory=dict)
    """`text` with one character more: whether the constraint lets an answer begin so, where it was asked."""
    worth: float = 0.0
    """Its score less what it leaves out costs, once it has ended, and with what a lexicon says, once all have."""


@dataclass(slots=True, eq=False)
class Answer:
    """The search for one completion."""

    live: list[Beam]
    """Likeliest first; empty when the search is over."""
    noise: torch.Generator | None = None
    """Source of its samples; None when nothing is left to chance."""
    opinion: Opinion | None = None
    """Has a say in which of the beams is given, once the search is over."""
    whole: list[Beam] = field(default_factory=list)
    """Beams that ended, by an end token or at the greatest length."""

    @classmethod
    def sought(
        cls, constraint: Constraint | None, config: Generate, seed: int, index: int, opinion: Opinion | None = None
    ) -> Answer:
        """The search for the answer to prompt `index`, before its first token."""
        if config.temperature == 0:
            return cls([Beam(constraint)], opinion=opinion)
        # PyTorch's generator looks at 32 bits of a seed: a hash of both numbers keeps neighbours apart.
        return cls([Beam(constraint)], torch.Generator().manual_seed(random.Random(f"{seed} {index}").getrandbits(32)))

    def best(self) -> Beam:
        """The ended one of most worth that works."""
        ranked = sorted(self.whole, key=lambda beam: beam.worth, reverse=True)
        return next((beam for beam in ranked if self._works(beam)), ranked[0])

    def _works(self, beam: Beam) -> bool:
        if len(self.whole) == 1 or not isinstance(beam.constraint, Tries):
            return True
        return beam.held and beam.constraint.works(beam.text)


class Chooser:
    """Extends the beams of every answer by a token."""

    def __init__(
        self, tokenizer: Any, end_ids: frozenset[int], config: Generate, progress: Progress | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.config = config
        self.progress = progress
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._unspoken = frozenset(tokenizer.all_special_ids) - end_ids

    def take(self, logits: Tensor, answers: Sequence[Answer]) -> list[int]:
        """Choose the next token of every beam.

        Args:
            logits: (live beams of all `answers`, in order; vocabulary).

        Returns:
            For each beam that is live now, in order, the row of `logits` that it goes on from.
        """
        scores = self._scores(logits, answers)
        likeliest = torch.topk(scores, min(2 * self.config.beams, scores.shape[1]))
        values, tokens = likeliest.values.tolist(), likeliest.indices.tolist()
        rows, row = [], 0
        for answer in answers:
            count = len(answer.live)
            ranked = [_Ranked(scores[i], values[i], tokens[i]) for i in range(row, row + count)]
            rows += [row + i for i in self._extend(answer, ranked)]
            row += count
        if self.progress and (done := sum(not answer.live for answer in answers)):
            self.progress(done)
        return rows

    def completion(self, answer: Answer) -> Completion:
        """The best of an answer's beams."""
        alone = self._completion(answer.best())
        if answer.opinion is None or not self.config.lexicon:
            return alone
        texts = [self._completion(beam).text for beam in answer.whole]
        for beam, nats in zip(answer.whole, answer.opinion(texts), strict=True):
            beam.worth += self.config.lexicon * nats
        return replace(self._completion(answer.best()), alone=alone.text)

    def _completion(self, beam: Beam) -> Completion:
        spoken = beam.ids[:-1] if beam.stopped else beam.ids
        return Completion(self._decode(spoken), beam.stopped, len(beam.ids), beam.held)

    def _scores(self, logits: Tensor, answers: Sequence[Answer]) -> Tensor:
        scores = logits.float()
        if self.config.temperature:
            # The largest of logits plus Gumbel noise is a sample, and the next largest ones are further samples
            # without replacement: so sampling and greedy decoding meet constraints in the same way.
            draws = [torch.empty(scores.shape[1]).exponential_(generator=answer.noise) for answer in answers]
            scores = scores / self.config.temperature - torch.stack(draws).log().to(scores.device)
        return torch.log_softmax(scores, -1)

    def _extend(self, answer: Answer, ranked: Sequence[_Ranked]) -> list[int]:
        """Replace an answer's live beams by their best extensions; returns, for each new one, the old one's index."""
        ways = [(-(beam.score + ranked[i].score(0)), i, 0) for i, beam in enumerate(answer.live)]
        heapq.heapify(ways)
        new: list[Beam] = []
        came: list[int] = []
        for _ in range(_CANDIDATES):
            if not ways or len(new) == self.config.beams:
                break
            minus, i, rank = heapq.heappop(ways)
            if self._hopeless(-minus, answer, new):
                break
            beam = answer.live[i]
            extended = self._extended(beam, ranked[i].token(rank), -minus)
            if extended is not None and extended.stopped:
                self._end(answer, extended)
            elif extended is not None:
                new.append(extended)
                came.append(i)
            if rank + 1 < len(ranked[i]):
                heapq.heappush(ways, (-(beam.score + ranked[i].score(rank + 1)), i, rank + 1))
        if not new and not answer.whole:  # the constraint leaves no way on: the likeliest goes on freely, and says so
            free = answer.live[0]
            free.held = False
            extended = self._extended(free, ranked[0].token(0), free.score + ranked[0].score(0))
            assert extended is not None
            if extended.stopped:
                self._end(answer, extended)
            else:
                new.append(extended)
            came = [0]
        if new and len(new[0].ids) >= self.config.max_new_tokens:
            for beam in [] if answer.whole else new:
                self._end(answer, beam)
            new = []
        answer.live = new
        return came[: len(new)]

    def _end(self, answer: Answer, beam: Beam) -> None:
        beam.worth = beam.score
        if self.config.coverage and beam.held and isinstance(beam.constraint, Covers):
            beam.worth -= self.config.coverage * beam.constraint.omits(beam.text)
        answer.whole.append(beam)

    def _hopeless(self, score: float, answer: Answer, new: Sequence[Beam]) -> bool:
        """Whether nothing this likely, or less, can matter any more, even if it leaves nothing out."""
        ended = sorted((beam.worth for beam in answer.whole), reverse=True)
        enough = len(ended) >= self.config.beams and score <= ended[self.config.beams - 1]
        best = max([*ended[:1], *(beam.score for beam in new[:1])], default=score)
        return enough or score < best - _FAR

    def _extended(self, beam: Beam, token: int, score: float) -> Beam | None:
        """The beam with one token more; None where its constraint forbids that."""
        ids, ends = [*beam.ids, token], token in self.end_ids
        if beam.constraint is None or not beam.held:
            return Beam(beam.constraint, ids, score, held=beam.held, stopped=ends)
        if ends:
            whole = beam.constraint.complete(beam.text)
            return Beam(beam.constraint, ids, score, beam.text, stopped=True) if whole else None
        if token in self._unspoken:
            return None
        # Decoding the whole answer is the only exact way: what a piece spells depends on the pieces before it. A
        # character whose bytes are not all there yet shows as U+FFFD and is judged when it is whole.
        text = self._decode(ids).rstrip("\ufffd")
        silent = beam.silent + 1 if text == beam.text else 0
        if silent > _MOST_SILENT or _is_barred(beam, beam.constraint, text):
            return None
        constraint = copy(beam.constraint)  # each beam's remembers what it has read
        if not constraint.allows(text):
            beam.refused += 1
            return None
        return Beam(constraint, ids, score, text, silent)

    def _decode(self, ids: list[int]) -> str:
        if self._backend is not None:  # the same, without what transformers does around it
            return str(self._backend.decode(ids, skip_special_tokens=True))
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _is_barred(beam: Beam, constraint: Constraint, text: str) -> bool:
    """Whether the text begins with a character that cannot come after the beam's: then nothing that begins so can.

    Where few tokens are right, thousands are tried; a character settles a whole lot of them.
    """
    start = text[: len(beam.text) + 1]
    if beam.refused >= _PATIENCE and start not in beam.starts and len(text) > len(start):
        beam.starts[start] = copy(constraint).allows(start)
    return not beam.starts.get(start, True)


class _Ranked:
    """The tokens after one beam, likeliest first. Few are ever asked for, so only those are sorted at first."""

    def __init__(self, scores: Tensor, values: list[float], tokens: list[int]) -> None:
        self._all, self._values, self._tokens = scores, values, tokens

    def __len__(self) -> int:
        return min(_CANDIDATES, len(self._all))

    def score(self, rank: int) -> float:
        """Natural logarithm of the probability of the token at a rank."""
        if rank >= len(self._values):
            best = self._all.topk(min(len(self), 8 * len(self._values)))
            self._values, self._tokens = best.values.tolist(), best.indices.tolist()
        return self._values[rank]

    def token(self, rank: int) -> int:
        """The token at a rank that `score` was asked for."""
        return self._tokens[rank]
