"""Sources -> rendered examples, ready to train on. Read it from the top: each step hands its result to the next."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.config.schema import ChatTask, RunConfig, Source
from tunesmith.data.cache import (
    TokensDataset,
    cache_key,
    file_digest,
    new_entry,
    open_entry,
    read_examples,
    write_examples,
    write_tokens,
)
from tunesmith.data.formats import Format, RowRefused, Turns, detect, read_example, to_messages
from tunesmith.data.leaks import Detective, Held, Pair, against, gate, held, policy_of
from tunesmith.data.ledger import Dropped, Ledger, LedgerSummary
from tunesmith.data.render import Renderer
from tunesmith.data.sources import read_records, source_files
from tunesmith.data.splits import assign_split, example_key, prompt_key
from tunesmith.data.template import DATE
from tunesmith.errors import DataError
from tunesmith.types import Example, Finding, Record, Task, Tokens

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of the cache's key: raise it when the same inputs would give other rows."""
_LOOK_AHEAD = 20
_BATCH = 512
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
"""Control, zero-width and direction characters that a person does not see. Joiners are left out: scripts need them."""


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs of its data."""

    train: TokensDataset
    validation: TokensDataset
    tests: Mapping[str, list[Example]]
    """Test sets by name, to be asked and graded."""
    validation_examples: list[Example]
    ledger: LedgerSummary
    findings: tuple[Finding, ...]
    thinks: bool
    """Whether most training answers begin with a thought; the renderer that writes prompts must know."""
    key: str
    """Name of the cache entry: the same key is the same rows."""


class Loaded(NamedTuple):
    """One source as examples."""

    examples: list[Example]
    findings: list[Finding]


def prepare_dataset(
    config: RunConfig, task: Task, tokenizer: Any, *, cache_dir: Path, ledger_path: Path | None = None
) -> Prepared:
    """Read, phrase, split and render the data of a run, or open what an earlier run with the same inputs prepared.

    Args:
        config: the run; `data.train` must be set (a task that builds its data has done so before).
        task: phrases records that are not conversations already.
        tokenizer: with the chat template that is to be used.
        cache_dir: where entries are kept.
        ledger_path: where to put the ledger of this data; None keeps it in the cache only.

    Raises:
        DataError: a source cannot be read, more than `data.max_dropped` of its rows would be dropped, an example is
            too long under `too_long: error`, or the chat template would lose part of a conversation.
    """
    data = config.data
    renderer = Renderer(tokenizer, config.model.end_token, max_length=data.max_length, too_long=data.too_long)
    key = _key(config, task, renderer, cache_dir)
    folder = cache_dir / key
    if open_entry(folder) is None:
        _build(config, task, renderer, folder, ledger_path)
    manifest = open_entry(folder)
    if manifest is None:
        raise DataError("prepared data vanished while it was opened", place=str(folder), remedy="run again")
    if ledger_path is not None:
        ledger_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "ledger.jsonl", ledger_path)
    return Prepared(
        train=TokensDataset(folder, "train"),
        validation=TokensDataset(folder, "validation"),
        tests={name: read_examples(folder, f"test-{at}") for at, name in enumerate(manifest["tests"])},
        validation_examples=read_examples(folder, "validation"),
        ledger=LedgerSummary(**manifest["ledger"]),
        findings=tuple(Finding(**finding) for finding in manifest["findings"]),
        thinks=manifest["thinks"],
        key=key,
    )


def _build(config: RunConfig, task: Task, renderer: Renderer, folder: Path, ledger_path: Path | None) -> None:
    data = config.data
    if data.train is None:
        raise DataError("there are no training records", place="data.train", remedy="set data.train or task.build")
    manifest: dict[str, Any] = {"format": FORMAT, "tests": list(data.test)}
    with new_entry(folder, manifest) as draft:
        try:
            with Ledger(draft / "ledger.jsonl") as ledger:
                findings, thinks = _fill(config, task, renderer, draft, ledger)
                summary = ledger.summary()
        finally:
            if ledger_path is not None:  # a stopped run needs it most
                ledger_path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(draft / "ledger.jsonl", ledger_path)
        manifest["ledger"] = asdict(summary)
        manifest["thinks"] = thinks
        manifest["findings"] = [asdict(finding) for finding in findings]
    log.info("%s", summary.text())


def _fill(config: RunConfig, task: Task, renderer: Renderer, draft: Path, ledger: Ledger) -> tuple[list[Finding], bool]:
    """Fill a cache entry: held-out sets first, because training rows must not appear in them."""
    data = config.data
    findings: list[Finding] = []
    held_out: dict[str, str] = {}

    def load(source: Source, split: str) -> list[Example]:
        loaded = _load(source, split, config, task, ledger)
        findings.extend(loaded.findings)
        return loaded.examples

    questions: list[Held] = []
    for at, (name, source) in enumerate(data.test.items()):
        asked = _askable(load(source, f"test:{name}"), f"test:{name}", renderer, ledger)
        questions += held(name, asked)
        write_examples(draft, f"test-{at}", asked)
        for example in asked:
            held_out.setdefault(prompt_key(example), f"test set {name!r} ({example.place})")
    assert data.train is not None
    pool = load(data.train, "train")
    if data.validation is not None:
        training, validation = pool, load(data.validation, "validation")
    else:
        training, validation = _split(pool, config, findings)
    validation, repeated = _without_leaks(validation, held_out)
    _drop(repeated, "validation" if data.validation else "train", ledger)
    for example in validation:
        held_out.setdefault(prompt_key(example), f"the validation set ({example.place})")
    training, leaked = _without_leaks(training, held_out)
    _drop(leaked, "train", ledger)
    if leaked or repeated:
        findings.append(_leak(leaked + repeated))
    training, told = _without_likeness(
        training, [*questions, *against(data.leaks, data.max_record_bytes)], config, ledger
    )
    findings.extend(told)
    rows = {
        "train": _render(training, "train", "train", renderer, draft, ledger),
        "validation": _render(
            validation, "validation" if data.validation else "train", "validation", renderer, draft, ledger
        ),
    }
    ledger.gate(data.max_dropped)
    thoughtful = sum(_thinks(example) for example in training)
    return findings + _remarks(config, renderer, rows), 2 * thoughtful > len(training)


# --- reading ----------------------------------------------------------------------------------------------------------


def _load(source: Source, split: str, config: RunConfig, task: Task, ledger: Ledger) -> Loaded:
    """One source as examples without exact duplicates; whatever is refused is settled in the ledger."""
    items = read_records(source, config.data.max_record_bytes)
    ahead = list(itertools.islice(items, _LOOK_AHEAD))
    form = _form(source, [item for item in ahead if isinstance(item, Record)], config)
    turns: Turns = config.task.train_turns if isinstance(config.task, ChatTask) else "all"
    findings = [Finding("format", "info", f"{split}: records are read as {form}", source.path)]
    examples: list[Example] = []
    seen: dict[str, str] = {}
    hidden: list[str] = []
    for item in itertools.chain(ahead, items):
        made = [item] if isinstance(item, Dropped) else _examples(item, form, source, turns, task)
        ledger.admit(split, len(made))
        for one in made:
            if isinstance(one, Dropped):
                ledger.drop(one, split)
                continue
            first = seen.setdefault(example_key(one), one.place)
            if first != one.place:
                ledger.drop(Dropped(one.place, "duplicate", f"the same as {first}", one.id), split)
                continue
            if any(_HIDDEN.search(message.content) for message in one.messages):
                hidden.append(one.place)
            examples.append(one)
    ledger.gate(config.data.max_dropped)
    if not examples:
        raise DataError(
            "no record can be used", place=source.path, remedy="see the reasons:\n" + ledger.summary().text()
        )
    if hidden:
        message = f"{len(hidden):,} records hold characters nobody sees (control, zero-width, direction)"
        findings.append(
            Finding("hidden characters", "warning", message, hidden[0], "remove them if they are not meant")
        )
    return Loaded(examples, findings)


def conversations(source: Source, config: RunConfig, task: Task) -> Iterator[Example | Dropped]:
    """Every record of a source as the examples it makes, or why it makes none; nothing is rendered or counted.

    Raises:
        DataError: the source cannot be read, or its records have no shape that is known.
    """
    items = read_records(source, config.data.max_record_bytes)
    ahead = list(itertools.islice(items, _LOOK_AHEAD))
    form = _form(source, [item for item in ahead if isinstance(item, Record)], config)
    turns: Turns = config.task.train_turns if isinstance(config.task, ChatTask) else "all"
    for item in itertools.chain(ahead, items):
        yield from [item] if isinstance(item, Dropped) else _examples(item, form, source, turns, task)


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


def _examples(record: Record, form: Format, source: Source, turns: Turns, task: Task) -> list[Example | Dropped]:
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


# --- splitting --------------------------------------------------------------------------------------------------------


def _split(pool: list[Example], config: RunConfig, findings: list[Finding]) -> tuple[list[Example], list[Example]]:
    """Training and validation examples. Groups stay together unless there are too few to set any aside."""
    share = config.data.validation_share
    if not share:
        return pool, []

    def by(identity: list[str]) -> tuple[list[Example], list[Example]]:
        held = [assign_split(one, config.seed, {"validation": share}) == "validation" for one in identity]
        return [e for e, h in zip(pool, held, strict=True) if not h], [e for e, h in zip(pool, held, strict=True) if h]

    training, validation = by([example.group or prompt_key(example) for example in pool])
    if (training and validation) or not any(example.group for example in pool):
        return training, validation
    groups = len({example.group for example in pool})
    findings.append(
        Finding(
            "split",
            "warning",
            f"with {groups} group(s) none can be set aside whole, so validation is split by question instead",
            "data.validation_share",
            "set data.validation, or raise data.validation_share",
        )
    )
    return by([prompt_key(example) for example in pool])


def _without_leaks(
    examples: list[Example], held_out: Mapping[str, str]
) -> tuple[list[Example], list[tuple[Example, str]]]:
    kept, leaked = [], []
    for example in examples:
        where = held_out.get(prompt_key(example))
        if where is None:
            kept.append(example)
        else:
            leaked.append((example, where))
    return kept, leaked


def _without_likeness(
    training: list[Example], questions: list[Held], config: RunConfig, ledger: Ledger
) -> tuple[list[Example], list[Finding]]:
    """The training examples that give nothing away; raises `CheckFailed` where a test set's claim is broken."""
    if not questions:
        return training, []
    settings, detective = config.data.leaks, Detective(questions, config.data.leaks)
    kept: list[Example] = []
    pairs: list[Pair] = []
    for example in training:
        pair = detective.look(example)
        if pair is not None:
            pairs.append(pair)
        if pair is not None and policy_of(pair, settings) == "drop":
            ledger.drop(Dropped(example.place, "leak", pair.sentence(), example.id), "train")
        else:
            kept.append(example)
    return kept, gate(pairs, settings)


def _drop(leaked: list[tuple[Example, str]], split: str, ledger: Ledger) -> None:
    for example, where in leaked:
        ledger.drop(Dropped(example.place, "leak", f"the same question is in {where}", example.id), split)


def _leak(leaked: list[tuple[Example, str]]) -> Finding:
    example, where = leaked[0]
    return Finding(
        "leak",
        "warning",
        f"{len(leaked):,} rows ask a question that is also held out, and were left out; the first is also in {where}",
        example.place,
        "nothing, if held-out sets were drawn from the same records; else check how they were made",
    )


# --- rendering --------------------------------------------------------------------------------------------------------


def _askable(examples: list[Example], split: str, renderer: Renderer, ledger: Ledger) -> list[Example]:
    """Test examples whose prompt the template can write."""
    asked: list[Example] = []
    for example in examples:
        if dropped := renderer.check(example):
            ledger.drop(dropped, split)
        else:
            ledger.settle(example.place, example.id, split, "test")
            asked.append(example)
    return asked


def _render(
    examples: list[Example], split: str, into: str, renderer: Renderer, draft: Path, ledger: Ledger
) -> list[Tokens]:
    """Render, settle and write one split; returns its rows."""
    rows: list[Tokens] = []
    kept: list[Example] = []
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        for example, result in zip(batch, renderer.render_many(batch), strict=True):
            if isinstance(result, Dropped):
                ledger.drop(result, split)
                continue
            reason = "prompt shortened" if result.note else ""
            ledger.settle(
                example.place,
                example.id,
                split,
                "trained" if into == "train" else "validation",
                reason,
                result.note,
            )
            rows.append(result.tokens)
            kept.append(result.example)
    write_tokens(draft, into, rows, kept)
    return rows


def _thinks(example: Example) -> bool:
    answer = example.messages[-1]
    return bool(answer.extra.get("reasoning_content")) or answer.content.lstrip().startswith("<think>")


def _remarks(config: RunConfig, renderer: Renderer, rows: Mapping[str, list[Tokens]]) -> list[Finding]:
    findings: list[Finding] = []
    count = len(rows["train"])
    if not count:
        raise DataError("no row is left to train on", place="data.train", remedy="see the ledger")
    if count < config.train.batch_size:
        findings.append(
            Finding(
                "batch",
                "warning",
                f"{count} training rows are fewer than one step's batch_size ({config.train.batch_size})",
                "train.batch_size",
                "add data or lower train.batch_size",
            )
        )
    if renderer.adds_bos_elsewhere:
        findings.append(
            Finding(
                "bos",
                "info",
                "the tokenizer begins plain text with its BOS token, but the chat template writes none; rows have none "
                "either, because that is what serving through the template gives the model",
                "model.chat_template",
            )
        )
    return findings


# --- identity ---------------------------------------------------------------------------------------------------------


def _key(config: RunConfig, task: Task, renderer: Renderer, cache_dir: Path) -> str:
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
