"""What the rows of a data set depend on, as one digest: the name of their cache entry."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.schema import RunConfig, Source
from tunesmith.data.cache import cache_key, file_digest
from tunesmith.data.ledger import Dropped
from tunesmith.data.render import Renderer
from tunesmith.data.sources import read_records, source_files
from tunesmith.data.template import DATE
from tunesmith.types import Task

FORMAT = 5
"""Part of the key: raise it when the same inputs would give other rows."""


def data_key(config: RunConfig, task: Task, renderer: Renderer, cache_dir: Path) -> str:
    """Digest of everything the rows depend on."""
    data = config.data
    sources = {"train": data.train, "validation": data.validation, **{f"test:{n}": s for n, s in data.test.items()}}
    sources |= {f"against:{at}": source for at, source in enumerate(data.leaks.against)}
    module = sys.modules[type(task).__module__].__file__
    return cache_key(
        {
            "format": FORMAT,
            "sources": {name: _source_identity(s, config, cache_dir) for name, s in sources.items() if s is not None},
            "task": [type(task).__qualname__, task.name, task.version, _placeless(config.task.model_dump())],
            "task_code": file_digest(Path(module), cache_dir) if module else "",
            "task_files": [[path.name, file_digest(path, cache_dir)] for path in _files_in(config.task.model_dump())],
            "tokenizer": hashlib.blake2b(renderer.serialised.encode(), digest_size=16).hexdigest(),
            "template": renderer.template.text,
            "special": [renderer.tokenizer.bos_token, renderer.tokenizer.eos_token, config.model.end_token, DATE],
            "lengths": [data.max_length, data.too_long, data.max_record_bytes],
            "split": [config.seed, data.validation_share, data.max_dropped],
            "leaks": data.leaks.model_dump(mode="json", exclude={"against"}),
        }
    )


def _source_identity(source: Source, config: RunConfig, cache_dir: Path) -> list[Any]:
    settings = source.model_dump(mode="json")
    files = source_files(source)
    if files is not None:
        settings["path"] = ""  # the bytes count, not where they lie
        identity: list[Any] = [[file.name, file_digest(file, cache_dir)] for file in files]
    else:  # a function or a Hub data set has no bytes to look at, so its records are read
        identity = [hashlib.blake2b("".join(_identities(source, config)).encode(), digest_size=16).hexdigest()]
    if source.formatter:
        module = sys.modules.get(source.formatter.partition(":")[0])
        if module is not None and module.__file__:
            identity.append(file_digest(Path(module.__file__), cache_dir))
    return [settings, *identity]


def _identities(source: Source, config: RunConfig) -> Iterator[str]:
    for item in read_records(source, config.data.max_record_bytes):
        yield f"{item.place}{item.reason}" if isinstance(item, Dropped) else item.id


def _placeless(value: Any) -> Any:
    """Settings as plain values, files by their names alone: their bytes count, not where they lie."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _placeless(item) for key, item in value.items()}
    return [_placeless(item) for item in value] if isinstance(value, list | tuple) else value


def _files_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        if value.is_file():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _files_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _files_in(item)
