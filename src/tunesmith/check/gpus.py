"""The NVIDIA GPUs of this machine, asked of the driver, so that torch need not be imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card."""

    name: str
    total: int
    """Bytes of its memory."""
    free: int


@dataclass(frozen=True, slots=True)
class Gpus:
    """What the driver says."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    """Version; empty where there is no driver."""
    cuda: str = ""
    """Newest CUDA version that the driver runs."""


def read_gpus() -> Gpus:
    """Cards, driver and CUDA version through NVML; nothing where there is no driver or it does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, or a driver that does not fit its library
        return Gpus()
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(Gpu(_text(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)))
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return Gpus(tuple(found), driver, f"{number // 1000}.{number % 1000 // 10}")
    except pynvml.NVMLError:
        return Gpus()
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
