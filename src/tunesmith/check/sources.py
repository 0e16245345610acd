"""The data before anything is rendered: files that are there, records that can be read, shapes that are understood."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.config.schema import ChatTask, CustomTask, RunConfig, Source, SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.types import Finding, Record

_FIRST = 50
"""Records of each source that are read; the rest is for the families that read everything."""


def check_sources(subject: Subject) -> Looked:
    """Files, functions and the first records of every source, and the databases a task builds from."""
    from tunesmith.data.sources import source_files

    config = subject.loaded.config
    findings: list[Finding] = []
    bytes_ = 0
    for key, source in subject.sources.items():
        try:
            findings += _source(key, source, config)
            bytes_ += sum(file.stat().st_size for file in source_files(source) or ())
        except DataError as error:
            findings.append(
                Finding(
                    "sources.unreadable",
                    "error",
                    error.message,
                    error.place or key,
                    error.remedy,
                    "the run stops before training",
                )  # fmt: skip
            )
    findings += _same_file(subject.sources)
    if isinstance(subject.loaded.config.task, CustomTask):
        findings += _task(subject)
    findings += _databases(config)
    return Looked(findings, {"sources": len(subject.sources), "MB": bytes_ / 1e6})


def _task(subject: Subject) -> Iterator[Finding]:
    try:
        _ = subject.task
    except ConfigError as error:
        yield Finding("sources.task", "error", error.message, error.place, error.remedy, "the run stops at its start")


def _source(key: str, source: Source, config: RunConfig) -> Iterator[Finding]:
    from tunesmith.data.formats import detect
    from tunesmith.data.ledger import Dropped
    from tunesmith.data.sources import load_function, read_records

    if source.formatter:
        load_function(source.formatter)
    if source.path.startswith("hf://"):
        return
    if ":" in source.path and not Path(source.path).exists():
        load_function(source.path)
        return
    first = list(islice(read_records(source, config.data.max_record_bytes), _FIRST))
    records = [item for item in first if isinstance(item, Record)]
    for item in first:
        if isinstance(item, Dropped) and item.reason == "record too large":
            yield Finding(
                "sources.record_too_large", "error", item.detail, item.place,
                "for SQL give the schema as DDL alone, without INSERTs; else raise data.max_record_bytes",
                "the GPU waits for the tokeniser while it reads a dump of which a window of tokens is kept",
            )  # fmt: skip
    if first and not records:
        broken = next(item for item in first if isinstance(item, Dropped))
        yield Finding(
            "sources.unreadable", "error", f"none of the first {len(first)} records can be read: {broken.reason}: "
            f"{broken.detail}", broken.place, "repair the file; write one JSON object a line",
            "the run stops before training",
        )  # fmt: skip
    elif not first and source.where:
        wanted = ", ".join(f"{name}: {value}" for name, value in source.where.items())
        yield Finding(
            "sources.nothing_matches", "error", f"no record has {wanted}", f"{key}.where",
            f"correct the field or its value; {_fields(source, config)}", "there is nothing to train on or to test with",
        )  # fmt: skip
    chat = source.format == "auto" and isinstance(config.task, ChatTask)
    if records and chat and not any(detect(record.fields) for record in records):
        keys = ", ".join(map(str, records[0].fields))
        yield Finding(
            "sources.unknown_format", "error", f"the records look like no chat format; their keys are: {keys}",
            records[0].place, "rename them to messages, conversations, instruction/output or prompt/completion",
            "the run stops before training",
        )  # fmt: skip


def _fields(source: Source, config: RunConfig) -> str:
    """The fields that the records have, for a selection that found none of them."""
    from tunesmith.data.sources import read_records

    everything = islice(read_records(source.model_copy(update={"where": {}}), config.data.max_record_bytes), _FIRST)
    first = next((item for item in everything if isinstance(item, Record)), None)
    return f"its records have: {', '.join(map(str, first.fields))}" if first else "the source has no record at all"


def _same_file(sources: dict[str, Source]) -> Iterator[Finding]:
    """One file, read in the same way, on two sides."""
    seen: dict[tuple[str, str], str] = {}
    for key, source in sources.items():
        identity = (source.path, repr(sorted(source.where.items())) + source.split)
        first = seen.setdefault(identity, key)
        if first != key:
            yield Finding(
                "sources.same_file", "error", f"`{first}` and `{key}` read the same records", source.path,
                "give each its own file, or tell them apart with `where`",
                "the model would be measured on what it was trained on",
            )  # fmt: skip


def _databases(config: RunConfig) -> Iterator[Finding]:
    if not isinstance(config.task, SqlTask):
        return
    for name, path in config.task.databases.items():
        if path is not None and not path.is_file():
            yield Finding(
                "sources.no_database", "error", f"the SQL file of database {name!r} is not there: {path}",
                f"task.databases.{name}", "correct the path, or write `null` for a database on your own server",
                "no query could be executed, neither for building nor for grading",
            )  # fmt: skip
    if config.task.build is not None and not config.task.databases:
        yield Finding(
            "sources.no_database", "error", "task.build is set, and task.databases names none", "task.databases",
            "name one: task.databases: {mine: schema.sql}", "there is nothing to build from",
        )  # fmt: skip
