"""When a step's loss is out of all proportion."""

from __future__ import annotations

from collections import deque
from statistics import fmean, pstdev

HISTORY = 128
LEAST = 32


class Spikes:
    """The rule: more than `sigma` standard deviations above the mean of the last 128 steps, of which there must be 32.

    The gradient's norm is not asked: it has heavy tails, and clipping bounds what a step of large norm can do.

    Args:
        sigma: None never finds a spike.
    """

    def __init__(self, sigma: float | None) -> None:
        self._sigma = sigma
        self.losses: deque[float] = deque(maxlen=HISTORY)
        """Of the latest steps that were no spikes; part of every checkpoint."""

    def is_spike(self, loss: float) -> bool:
        """Whether the loss of a step is one; if not, it counts for the next."""
        if self._sigma is not None and len(self.losses) >= LEAST:
            mean = fmean(self.losses)
            # Losses that hardly differ must not make any change a spike.
            if loss > mean + self._sigma * max(pstdev(self.losses), 1e-3 * abs(mean)):
                return True
        self.losses.append(loss)
        return False

    def sentence(self, loss: float) -> str:
        """For a person."""
        mean = fmean(self.losses)
        sigmas = (loss - mean) / max(pstdev(self.losses), 1e-12)
        return f"the loss is {loss:.4f}, {sigmas:.0f} standard deviations above the last {len(self.losses)} steps"
