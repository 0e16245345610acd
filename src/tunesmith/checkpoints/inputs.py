"""What a run reads from this machine's disk, so that its mirror alone is enough to continue it elsewhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.schema import RunConfig, Source
from tunesmith.config.show import write_value
from tunesmith.data.sources import source_files
from tunesmith.errors import DataError
from tunesmith.rundir import RunDir

log = logging.getLogger(__name__)

LIST = "inputs.json"
LIMIT = 4 * 1024**3
"""Most bytes of data files that are copied; a larger data set is worth a bucket of its own."""


def gather(config: RunConfig) -> dict[str, tuple[str, list[Path]]]:
    """Setting to (what it is to say elsewhere, relative to the run's folder; the files it names)."""
    found: dict[str, tuple[str, list[Path]]] = {}
    for number, (key, path, files) in enumerate(_named(config)):
        found[key] = (f"inputs/{number}/{path.name}", files)
    total = sum(file.stat().st_size for _, files in found.values() for file in files)
    if total > LIMIT:
        log.warning("%.1f GB of data files are not copied to the mirror: keep them for another machine", total / 1e9)
        return {}
    if len(contents(found)) < sum(len(files) for _, files in found.values()):
        log.warning("data files of the same name in several folders are not copied to the mirror")
        return {}
    return found


def contents(found: dict[str, tuple[str, list[Path]]]) -> dict[str, Path]:
    """Path in the run's folder to the file it is a copy of."""
    copies: dict[str, Path] = {}
    for said, files in found.values():
        folder = Path(said).parent
        for file in files:
            inside = file.relative_to(_root(file, said))
            copies[(folder / inside).as_posix()] = file
    return copies


def overrides(listed: bytes, run: RunDir) -> list[str]:
    """Settings for a machine that lacks the files: those of the run's own folder instead."""
    said = json.loads(listed)
    return [
        f"{key}={write_value(str(run.root.absolute() / copy))}"
        for key, (copy, original) in said.items()
        if not Path(original).exists() or "*" in original
    ]


def to_bytes(found: dict[str, tuple[str, list[Path]]], config: RunConfig) -> bytes:
    """`inputs.json`: setting to [the copy, what it says here]."""
    originals = {key: str(path) for key, path, _ in _named(config)}
    return json.dumps({key: [copy, originals[key]] for key, (copy, _) in found.items()}, indent=1).encode()


def _root(file: Path, said: str) -> Path:
    """The folder that a copy keeps its place under: that of a folder the setting names, else the file's own."""
    name = Path(said).name
    return next((parent.parent for parent in file.parents if parent.name == name), file.parent)


def _named(config: RunConfig) -> Iterator[tuple[str, Path, list[Path]]]:
    data = config.data
    sources: dict[str, Source | None] = {"data.train": data.train, "data.validation": data.validation}
    sources |= {f"data.test.{name}": source for name, source in data.test.items()}
    for key, source in sources.items():
        if source is None:
            continue
        try:
            files = source_files(source)
        except DataError:
            continue  # whoever reads it says so, with the reason
        if files:
            yield f"{key}.path", Path(source.path), files
    yield from _paths(config.task, "task")
    if config.model.chat_template is not None and config.model.chat_template.is_file():
        yield "model.chat_template", config.model.chat_template, [config.model.chat_template]


def _paths(section: Any, prefix: str) -> Iterator[tuple[str, Path, list[Path]]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        items = value.items() if isinstance(value, dict) else [("", value)]
        for inner, item in items:
            key = f"{prefix}.{name}.{inner}" if inner else f"{prefix}.{name}"
            if isinstance(item, Path) and item.is_file():
                yield key, item, [item]
            elif hasattr(type(item), "model_fields"):
                yield from _paths(item, key)
