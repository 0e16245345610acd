"""What the files of a base model say of it, read without torch: names, shapes and sizes of its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.config.schema import Lora, Model

_WIDTH = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_DEMO = Path(__file__).resolve().parents[1] / "demo_base"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor."""

    shape: tuple[int, ...]
    dtype: str
    file: str

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Weights:
    """A base model's folder."""

    folder: Path
    config: Mapping[str, Any]
    """`config.json`; of a model that also sees or hears, its text part."""
    tensors: Mapping[str, Tensor]
    """By name; empty where no safetensors file is there."""
    missing: tuple[str, ...]
    """Files that the index names and that are not there."""
    broken: tuple[str, ...]
    """Files whose header or length is wrong: cut off or damaged."""

    @property
    def parameters(self) -> int:
        """Weights, those packed in 4 bits counted by what is stored."""
        return sum(one.count for one in self.tensors.values())

    @property
    def size(self) -> int:
        """Bytes of the weights as stored."""
        return sum(one.count * _WIDTH.get(one.dtype, 1) for one in self.tensors.values())

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of every matrix but the embeddings, by module name."""
        return {
            name.removesuffix(".weight"): (one.shape[0], one.shape[1])
            for name, one in self.tensors.items()
            if name.endswith(".weight") and len(one.shape) == 2 and "embed" not in name
        }

    def adapter_parameters(self, lora: Lora) -> int:
        """Trained weights of adapters of this rank on the layers that `target_modules` names."""
        wanted = lora.target_modules
        return sum(
            lora.r * (rows + columns)
            for name, (rows, columns) in self.matrices().items()
            if (name.rsplit(".", 1)[-1] != "lm_head" if wanted == "all-linear" else name.rsplit(".", 1)[-1] in wanted)
        )


def read_weights(model: Model) -> Weights | None:
    """The base model's files as they lie in its folder or in the Hub's cache; None where they are not here."""
    folder = _folder(model)
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    tensors: dict[str, Tensor] = {}
    broken: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        found = _header(file)
        if found is None:
            broken.append(file.name)
        else:
            tensors |= found
    text = config.get("text_config") or config.get("llm_config") or config
    return Weights(folder, text, tensors, _missing(folder), tuple(broken))


def _folder(model: Model) -> Path | None:
    if model.name == "demo":
        return _DEMO
    folder = Path(model.name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.name.count("/") != 1:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    except (ImportError, ValueError):
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _header(file: Path) -> dict[str, Tensor] | None:
    """Tensors of a safetensors file, whose first 8 bytes say how long the JSON header is; None when it is damaged."""
    try:
        with file.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            if length > 100_000_000:
                return None
            header = json.loads(raw.read(length))
        header.pop("__metadata__", None)
        stop = max((one["data_offsets"][1] for one in header.values()), default=0)
        if file.stat().st_size != 8 + length + stop:
            return None
        return {name: Tensor(tuple(one["shape"]), one["dtype"], file.name) for name, one in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _missing(folder: Path) -> tuple[str, ...]:
    index = folder / "model.safetensors.index.json"
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return ()
    return tuple(sorted(name for name in named if not (folder / name).is_file()))
