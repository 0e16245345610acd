"""Which base a run is trained on, as far as it can be told without reading gigabytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tunesmith.config.schema import Model
from tunesmith.model.load import model_path

_SAMPLES, _BLOCK = 64, 4096
_WEIGHTS = (".safetensors", ".bin", ".gguf")


def base_identity(config: Model, model: Any) -> str:
    """The commit of a base from the Hub; of a folder, a digest of its small files and of samples of its weights."""
    folder = Path(model_path(config))
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (*_WEIGHTS, ".json") and p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            if path.suffix == ".json" or size <= _SAMPLES * _BLOCK:
                digest.update(file.read())
                continue
            for at in range(_SAMPLES):
                file.seek(at * (size - _BLOCK) // (_SAMPLES - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:32]
