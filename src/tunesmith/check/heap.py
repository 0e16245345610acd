"""What the C library's heap keeps beside the tensors that live: asked of the heap itself, in a process of its own.

Freed memory inside the heap stays resident, and a tensor that fits into no hole makes the heap larger: glibc before 2.38
takes no hole of exactly the size that an aligned block needs, and the small objects that come with every tensor settle in
between. How much that is depends on the order in which tensors of which sizes come and go. That order is known
(`footprint.py`), so it is played to the allocator of this machine, on memory that nobody touches.

Run as a program, this file reads what to play from its input: it imports nothing that would fill the heap first.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

LENGTHS = (0.98, 1.0, 0.2, 0.98, 1.0, 0.2, 0.95, 1.0)
"""Rows of a few steps against the longest: filled ones differ a little, the last of a step is what is left. Measured
heaps of 30 steps grew by less than 2 % after these."""
_MAPPED = 32 * 2**20
"""Blocks of more are never in the heap: they are given back when they are freed (`mallopt(3)`, M_MMAP_THRESHOLD)."""
_WITH_A_TENSOR = (112, 208, 304, 80, 48)
"""Bytes of the objects that live as long as a tensor: its storage, itself, its node in the graph, sizes, a reference."""
_ALIGNED = 64
_SECONDS = 60

Event = tuple[int, int]
"""(tensor, bytes): it is made; (tensor, -1): it is freed."""


def heap_holes(row: Sequence[Event], kept: Iterable[int], later: Iterable[int]) -> int:
    """Bytes that the heap holds at its peak beside what lives; 0 where the C library does not say.

    Args:
        row: what the longest row makes and frees, in order.
        kept: sizes of what the first backward pass makes and nobody frees: gradients.
        later: the same of the first update: the optimizer's state.
    """
    large = {tensor for tensor, size in row if size >= _MAPPED}
    told = {
        "row": [event for event in row if event[0] not in large],
        "kept": [size for size in kept if size < _MAPPED],
        "later": [size for size in later if size < _MAPPED],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__], input=json.dumps(told), capture_output=True, text=True,
            timeout=_SECONDS,
        )  # fmt: skip
        return max(0, int(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


class _Info(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = [  # as ctypes wants it
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


class _Heap:
    """The allocator of this process."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(None)
        self._library.mallinfo2.restype = _Info
        self._library.malloc.argtypes, self._library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        self._library.free.argtypes = [ctypes.c_void_p]
        self._library.posix_memalign.argtypes = [
            ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t
        ]  # fmt: skip
        self._before = self._resident()
        self.live = self.peak = self.live_peak = 0

    def allocate(self, size: int) -> tuple[int, list[Any]]:
        """A tensor's block and what comes with it."""
        block = ctypes.c_void_p()
        if self._library.posix_memalign(ctypes.byref(block), _ALIGNED, size):
            raise MemoryError
        self.live += size
        self.live_peak = max(self.live_peak, self.live)
        if size >= 4096:
            self.peak = max(self.peak, self._resident() - self._before)
        return size, [block, *(self._library.malloc(small) for small in _WITH_A_TENSOR)]

    def free(self, made: tuple[int, list[Any]]) -> None:
        """Give all of it back."""
        self.live -= made[0]
        for block in made[1]:
            self._library.free(block)

    def _resident(self) -> int:
        info = self._library.mallinfo2()
        return int(info.arena + info.hblkhd)


def play(row: Sequence[Event], kept: Sequence[int], later: Sequence[int]) -> int:
    """What `heap_holes` returns, in this process."""
    heap = _Heap()
    for number, share in enumerate(LENGTHS):
        blocks: dict[int, tuple[int, list[Any]]] = {}
        gradients = iter(kept if number == 0 else ())
        for at, (tensor, size) in enumerate(row):
            if size < 0:
                heap.free(blocks.pop(tensor))
            else:
                blocks[tensor] = heap.allocate(max(1, round(size * share)))
            if at > len(row) // 2 and (gradient := next(gradients, 0)):
                heap.allocate(gradient)
        for gradient in gradients:
            heap.allocate(gradient)
        for block in blocks.values():
            heap.free(block)
        if number == 2:
            for size in later:
                heap.allocate(size)
    return heap.peak - heap.live_peak


if __name__ == "__main__":
    print(play(**json.load(sys.stdin)))
