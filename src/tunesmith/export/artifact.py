"""An exported folder: how it is named, written whole, and described."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.config.schema import Model, RunConfig
from tunesmith.errors import ModelError
from tunesmith.rundir import RunDir

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an export wrote."""

    format: str
    path: Path
    bytes: int
    files: tuple[str, ...]
    """Names relative to `path`, sorted."""

    def figures(self) -> dict[str, Any]:
        """For `run.json`: the path is relative to the run, so that it says nothing of the machine."""
        where = f"{self.path.parent.name}/{self.path.name}"
        return {"format": self.format, "path": where, "bytes": self.bytes, "files": len(self.files)}


def describe(format_: str, path: Path) -> Artifact:
    """The artifact that lies in a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    names = tuple(p.relative_to(path).as_posix() for p in files)
    return Artifact(format_, path, sum(p.stat().st_size for p in files), names)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder to write in that becomes `target` at the end, in one step; an error leaves `target` as it was.

    Raises:
        ModelError: something wrote a pickle, which may run code when it is loaded.
    """
    draft = target.with_name(f".{target.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        pickles = [path.name for path in draft.rglob("*") if path.suffix in _PICKLES]
        if pickles:
            raise ModelError(
                f"the export holds a pickle, {pickles[0]}, which may run code when it is loaded",
                place=target.name,
                remedy="train and export with weights in safetensors",
            )
        for path in draft.rglob("*"):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_trained(run: RunDir, weights: str) -> Path:
    """The folder of the trained weights. Raises ModelError when the run has none."""
    if not any(run.adapter.glob(weights)):
        raise ModelError(
            "this run has no trained weights to export", place=str(run.adapter), remedy="train it: tunesmith train"
        )
    return run.adapter


def public_name(model: Model) -> str:
    """The base model's name as it may leave this machine: a Hub name whole, of a folder its last part only."""
    return Path(model.name).name if model.name == "demo" or Path(model.name).exists() else model.name


def save_tokenizer(config: RunConfig, folder: Path) -> Any:
    """Write tokenizer and chat template as training used them; returns the tokenizer."""
    from tunesmith.model.load import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    tokenizer.save_pretrained(str(folder))
    settings = folder / "tokenizer_config.json"
    written = json.loads(settings.read_text("utf-8"))
    # The library notes the folder a tokenizer came from, a path of this machine that nobody else can use.
    if written.pop("name_or_path", None) is not None:
        settings.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return tokenizer


def generation_settings(config: RunConfig, tokenizer: Any) -> Any:
    """The generation settings with every token that ends an answer, so that servers stop where training did.

    The base's own settings are kept beside them. Sampling settings of a greedy default, which some bases ship and
    transformers refuses to write, are made consistent by sampling as the base's author meant.
    """
    from transformers import GenerationConfig

    from tunesmith.generate import end_ids_of
    from tunesmith.model.load import model_path

    try:
        settings = GenerationConfig.from_pretrained(model_path(config.model), revision=config.model.revision)
    except OSError:
        settings = GenerationConfig()
    holder = _Settings(settings)
    settings.eos_token_id = sorted(end_ids_of(holder, tokenizer, config.model.end_token))
    settings.pad_token_id = tokenizer.pad_token_id
    settings.bos_token_id = tokenizer.bos_token_id
    if settings.do_sample is not True and any(
        getattr(settings, name) not in (None, usual) for name, usual in (("temperature", 1.0), ("top_p", 1.0))
    ):
        settings.do_sample = True
    return settings


@dataclass(frozen=True)
class _Settings:
    generation_config: Any
