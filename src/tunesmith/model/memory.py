"""How much memory is in use, here and on the GPU."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Megabytes (of 2**20 bytes)."""

    peak_rss: int
    """Most that this process has held so far."""
    gpu_allocated: int | None
    """Held by tensors on the first GPU now; None without one."""
    gpu_peak: int | None
    """Most that tensors have held there."""
    gpu_total: int | None

    def sentence(self) -> str:
        """For a log line."""
        text = f"{self.peak_rss:,} MB of memory at most"
        if self.gpu_total:
            text += f"; GPU {self.gpu_allocated:,} MB now, {self.gpu_peak:,} MB at most, of {self.gpu_total:,} MB"
        return text


def read_memory() -> MemoryReading:
    """Now; does not import torch where nobody has."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return MemoryReading(peak, None, None, None)
    mega = 1024 * 1024
    total = torch.cuda.get_device_properties(0).total_memory // mega
    return MemoryReading(peak, torch.cuda.memory_allocated() // mega, torch.cuda.max_memory_allocated() // mega, total)
