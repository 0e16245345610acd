"""What a run does to the machine: GPU by NVML, host memory. Read beside the steps, once a second."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)

_MEGA = 1024 * 1024
_EVERY = 1.0
"""Seconds between readings."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine now. GPU figures are None where there is no NVIDIA GPU or its library does not answer."""

    rss_mb: int
    """Held by this process."""
    host_used_mb: int
    """Held on the whole machine."""
    host_total_mb: int
    gpu_utilization: float | None = None
    """Share of the last instants in which a kernel ran, 0 to 1."""
    gpu_memory_mb: int | None = None
    """Held on the GPU by everybody, the CUDA context included: what an out-of-memory error is about."""
    gpu_total_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """The readings between two log lines."""

    gpu_utilization: float | None
    """Mean."""
    gpu_memory_mb: int | None
    """Most."""
    rss_mb: int
    """Most."""
    host_memory_share: float
    """Most, 0 to 1."""

    def figures(self) -> dict[str, float]:
        """For `events.jsonl`; what there is no device for is left out."""
        found = {
            "gpu_utilization": None if self.gpu_utilization is None else round(self.gpu_utilization, 3),
            "gpu_memory_mb": self.gpu_memory_mb,
            "rss_mb": self.rss_mb,
            "host_memory_share": round(self.host_memory_share, 4),
        }
        return {name: value for name, value in found.items() if value is not None}


class Gauges:
    """Reads the machine in a thread of its own from `start` to `stop`.

    Args:
        device: index of the GPU among those that NVML sees.
    """

    def __init__(self, device: int = 0) -> None:
        self._process = psutil.Process()
        self._gpu = _Gpu(device)
        self._readings: list[Reading] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; harmless when it has begun."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._watch, name="tunesmith-gauges", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; harmless when there is none."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join(timeout=5)
            self._thread = None
        self._gpu.close()

    def read(self) -> Reading:
        """The machine now."""
        host = psutil.virtual_memory()
        rss = int(self._process.memory_info().rss) // _MEGA
        return Reading(rss, (host.total - host.available) // _MEGA, host.total // _MEGA, *self._gpu.read())

    def take(self) -> Interval:
        """What was read since the last `take`, now included."""
        now = self.read()
        with self._lock:
            readings, self._readings = [*self._readings, now], []
        busy = [one.gpu_utilization for one in readings if one.gpu_utilization is not None]
        held = [one.gpu_memory_mb for one in readings if one.gpu_memory_mb is not None]
        return Interval(
            gpu_utilization=sum(busy) / len(busy) if busy else None,
            gpu_memory_mb=max(held) if held else None,
            rss_mb=max(one.rss_mb for one in readings),
            host_memory_share=max(one.host_used_mb / one.host_total_mb for one in readings),
        )

    def _watch(self) -> None:
        while not self._stopped.wait(_EVERY):
            reading = self.read()
            with self._lock:
                self._readings.append(reading)


class _Gpu:
    """One GPU as NVML sees it; silent where there is none."""

    def __init__(self, device: int) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(device)
            self._nvml = pynvml
        except Exception as error:  # no library, no driver, no such device: every one of them means no figures
            log.debug("no GPU figures: %s", error)

    def read(self) -> tuple[float | None, int | None, int | None]:
        if self._nvml is None:
            return None, None, None
        try:
            busy = self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError as error:  # a card may know its memory and not its load
            log.debug("the GPU does not answer: %s", error)
            return None, None, None
        return busy, int(memory.used) // _MEGA, int(memory.total) // _MEGA

    def close(self) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None


@contextmanager
def reading(gauges: Gauges) -> Iterator[Gauges]:
    """The gauges, read within."""
    gauges.start()
    try:
        yield gauges
    finally:
        gauges.stop()


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, as far as they are still there."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
