"""The steps of a run in order, from wherever it is; a worker that dies or hangs is replaced and nothing is lost."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from tunesmith.train.steps import Step, Steps, only

log = logging.getLogger(__name__)

_REPLACEMENTS = 3
"""Times that dead workers are replaced; after that steps are planned in the main process."""
_HANG_SECONDS = 20.0
"""A worker that has planned nothing for this long is taken for dead, and one that died is noticed; a step takes
milliseconds."""


class StepLoader:
    """What the training loop iterates over. Which step comes next is asked when iteration begins.

    Args:
        steps: all of the run.
        start: number of steps done.
        workers: processes that plan steps ahead; 0 plans in the main process.
        pin_memory: copy rows to page-locked memory.
        prefetch: steps each worker prepares ahead.
    """

    def __init__(
        self, steps: Steps, start: Callable[[], int], workers: int, pin_memory: bool, prefetch: int | None
    ) -> None:
        self.dataset = steps
        self._start = start
        self._workers, self._pin_memory, self._prefetch = workers, pin_memory, prefetch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Step]:
        at, failures = self._start(), 0
        while at < len(self.dataset):
            workers = self._workers if failures <= _REPLACEMENTS else 0
            steps = self._open(at, workers)
            while True:
                try:
                    step = next(steps, None)
                except (RuntimeError, OSError, EOFError) as error:  # the last two: killed while it handed a row over
                    if not workers:
                        raise
                    failures += 1
                    log.warning(
                        "a process that plans steps ahead was lost (%s); %s, from step %d",
                        (str(error) or type(error).__name__).splitlines()[0],
                        "it is replaced" if failures <= _REPLACEMENTS else "steps are planned in this process now",
                        at + 1,
                    )
                    break
                if step is None:
                    return
                yield step
                at += 1

    def _open(self, at: int, workers: int) -> Iterator[Step]:
        options: dict[str, Any] = {}
        if workers:
            options = {"num_workers": workers, "prefetch_factor": self._prefetch, "timeout": _HANG_SECONDS}
        loader = DataLoader(
            Subset(self.dataset, range(at, len(self.dataset))),
            batch_size=1,
            collate_fn=only,
            pin_memory=self._pin_memory,
            generator=torch.Generator().manual_seed(0),  # its own: workers' seeds must not come from the run's stream
            **options,
        )
        in_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if in_main else None
        steps = iter(loader)
        if in_main:
            # torch's handler raises wherever the main thread happens to be, be it half-way through an update. Without
            # it a dead worker is noticed when its step is asked for.
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        return steps
