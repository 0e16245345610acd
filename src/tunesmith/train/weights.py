"""Trained weights on disk and back, in safetensors and without a pickle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.commit import digest
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config
from tunesmith.errors import ModelError

SETTINGS = "tunesmith.yaml"
"""The resolved settings beside the weights; itself a recipe."""
SUMS = "SHA256SUMS"
"""Digest of every file beside it, as `sha256sum --check` reads them."""


def write_weights(model: Any, folder: Path) -> None:
    """The adapter with its config, or the whole model where there is no adapter."""
    # "auto" would ask the Hub whether the vocabulary grew; layers trained in full are saved by `modules_to_save`.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), **options)


def save_adapter(model: Any, tokenizer: Any, config: RunConfig, folder: Path) -> None:
    """Write what was trained, its tokenizer and the run's settings to `folder`, whole or not at all."""
    draft = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    write_weights(model, draft)
    tokenizer.save_pretrained(str(draft))
    (draft / SETTINGS).write_text(dump_config(config), encoding="utf-8")
    (draft / "README.md").write_text(_card(config), encoding="utf-8")  # PEFT's is a form nobody has filled in
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in sorted(draft.iterdir()) if path.is_file())
    (draft / SUMS).write_text(sums, encoding="utf-8")
    for path in [*draft.iterdir(), draft]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def require_unchanged(folder: Path) -> None:
    """Make sure that what `save_adapter` wrote is what lies there.

    Raises:
        ModelError: a file is missing or is not what was written.
    """
    if not (folder / SUMS).exists():
        return  # of an earlier version
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        sha, _, name = line.partition("  ")
        path = folder / Path(name).name
        if not path.is_file() or digest(path) != sha:
            raise ModelError(
                f"{name} is not what was written when training ended",
                place=str(path),
                remedy=f"restore it from a copy, or delete {folder}: the same command writes it again from the last "
                "checkpoint",
            )


def _card(config: RunConfig) -> str:
    """What this folder is; the card with figures is that of an export."""
    kind = "All weights" if config.lora is None else f"LoRA adapter (rank {config.lora.r})"
    base = f"{config.model.name}" + (f" at {config.model.revision}" if config.model.revision else "")
    return (
        f"# {config.name}\n\n{kind} of `{base}`, tuned with tunesmith for the task `{config.task.name}`.\n"
        f"`{SETTINGS}` holds every setting and is itself a recipe; `run.json` beside this folder says what came.\n"
    )


def save_trainable(model: Any, path: Path) -> None:
    """The trained weights alone, written whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    draft = path.with_suffix(".tmp")
    save_file(tensors, draft)
    draft.replace(path)


def load_trainable(model: Any, path: Path) -> None:
    """Put weights that `save_trainable` wrote back where they were."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])
