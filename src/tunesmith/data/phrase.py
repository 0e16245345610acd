"""Record -> examples: conversations as they are, everything else as the task phrases it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tunesmith.config.schema import ChatTask, RunConfig, Source
from tunesmith.data.formats import Format, RowRefused, Turns, detect, read_example, to_messages
from tunesmith.data.ledger import Dropped
from tunesmith.data.sources import read_records
from tunesmith.errors import DataError
from tunesmith.types import Example, Record, Task

_LOOK_AHEAD = 20
"""Records that are looked at for their shape."""


def conversations(source: Source, config: RunConfig, task: Task) -> Iterator[Example | Dropped]:
    """Every record of a source as the examples it makes, or why it makes none; nothing is rendered or counted.

    Raises:
        DataError: the source cannot be read, or its records have no shape that is known.
    """
    return phrased(source, config, task)[1]


def phrased(source: Source, config: RunConfig, task: Task) -> tuple[Format, Iterator[Example | Dropped]]:
    """The same, with the shape that the records have."""
    items = read_records(source, config.data.max_record_bytes)
    ahead = list(itertools.islice(items, _LOOK_AHEAD))
    form = _form(source, [item for item in ahead if isinstance(item, Record)], config)
    turns: Turns = config.task.train_turns if isinstance(config.task, ChatTask) else "all"
    made = (
        [item] if isinstance(item, Dropped) else _phrase(item, form, source, turns, task)
        for item in itertools.chain(ahead, items)
    )
    return form, itertools.chain.from_iterable(made)


def _form(source: Source, records: Sequence[Record], config: RunConfig) -> Format:
    """The shape of a source's records: as set, or that of the first record whose keys say it."""
    if source.format != "auto":
        return source.format
    for record in records:
        if form := detect(record.fields):
            return form
    if isinstance(config.task, ChatTask):
        keys = ", ".join(map(str, records[0].fields)) if records else "none that can be read"
        raise DataError(
            f"the records look like no chat format; their keys are: {keys}",
            place=records[0].place if records else source.path,
            remedy="rename the keys to `messages`, `conversations`, `instruction`/`output` or `prompt`/`completion`, "
            "or set format: custom with a formatter",
        )
    return "task"


def _phrase(record: Record, form: Format, source: Source, turns: Turns, task: Task) -> list[Example | Dropped]:
    try:
        if form == "task":
            made = [one if one.place else replace(one, place=record.place) for one in task.examples(record)]
        elif form == "kept":
            made = [read_example(record.fields, record.place)]
        else:
            conversations = to_messages(record.fields, form, source.formatter, record.place, turns)
            meta = {"tools": record.fields["tools"]} if isinstance(record.fields.get("tools"), list) else {}
            meta |= {key: record.fields[key] for key in ("checks", "kind", "language") if record.fields.get(key)}
            made = [
                Example(
                    id=record.id if len(conversations) == 1 else f"{record.id}-{at}",
                    messages=messages,
                    target=messages[-1].content,
                    group=str(record.fields.get("group") or ""),
                    meta=meta,
                    place=record.place,
                )
                for at, messages in enumerate(conversations)
            ]
    except RowRefused as refusal:
        return [Dropped(record.place, refusal.reason, refusal.detail, record.id)]
    except DataError as error:
        if form == "custom":
            raise
        return [Dropped(record.place, "the task refuses", error.message, record.id)]
    return list(made) or [Dropped(record.place, "no example", "the record gave no example", record.id)]
