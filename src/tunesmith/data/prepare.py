"""Sources -> rendered examples, ready to train on. Read it from the top: each step hands its result to the next."""

from __future__ import annotations

import gc
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith.config.schema import RunConfig, Source
from tunesmith.data.cache import RowWriter, TokensDataset, new_entry, open_entry, read_examples, write_examples
from tunesmith.data.identity import FORMAT, data_key
from tunesmith.data.leaks import Detective, Pair, against, gate, held, policy_of
from tunesmith.data.ledger import Dropped, Ledger, LedgerSummary, Outcome
from tunesmith.data.phrase import phrased
from tunesmith.data.pool import Lines, Pool, Pooled, Progress, Seen
from tunesmith.data.render import Renderer
from tunesmith.data.splits import assign_split, example_key, prompt_key
from tunesmith.errors import DataError
from tunesmith.types import Example, Finding, Task, Tokens

log = logging.getLogger(__name__)

_BATCH = 512
_BATCH_BYTES = 4_000_000
"""Rows, and bytes of them, that are rendered together."""
_COLLECTED = 50_000
"""New objects after which Python looks for unreachable ones."""
_SHARD = 16_384
"""Rows after which what is done is written down."""
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
"""Control, zero-width and direction characters that a person does not see. Joiners are left out: scripts need them."""
_BY_GROUP, _BY_PROMPT = 1, 2
"""Bits of a pooled example: to validation by the hash of its group, or of its prompt."""


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs of its data."""

    train: TokensDataset
    validation: TokensDataset
    tests: Mapping[str, list[Example]]
    """Test sets by name, to be asked and graded."""
    validation_examples: Sequence[Example]
    ledger: LedgerSummary
    findings: tuple[Finding, ...]
    thinks: bool
    """Whether most training answers begin with a thought; the renderer that writes prompts must know."""
    key: str
    """Name of the cache entry: the same key is the same rows."""


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
    key = data_key(config, task, renderer, cache_dir)
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
        validation_examples=TokensDataset(folder, "validation").examples,
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
    with _loaded_objects_left_alone(), new_entry(folder, manifest) as draft:
        progress = Progress.load(draft)
        try:
            with Ledger(draft / "ledger.jsonl", progress.ledger if progress else None) as ledger:
                done = _fill(config, task, renderer, draft, ledger, progress)
                summary = ledger.summary()
        finally:
            if ledger_path is not None:  # a stopped run needs it most
                ledger_path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(draft / "ledger.jsonl", ledger_path)
        for scaffold in (*draft.glob("*.pool"), *draft.glob("*.seen"), *draft.glob("progress.json*")):
            scaffold.unlink()
        manifest["ledger"] = asdict(summary)
        manifest["thinks"] = 2 * done.thoughtful > done.rows
        manifest["findings"] = done.findings
    log.info("%s", summary.text())


@contextmanager
def _loaded_objects_left_alone() -> Iterator[None]:
    """The collector comes seldom, and does not walk what was loaded before: a million objects of torch and
    transformers, again and again while rows come and go. It took a seventh of a preparation."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _fill(
    config: RunConfig, task: Task, renderer: Renderer, draft: Path, ledger: Ledger, progress: Progress | None
) -> Progress:
    """Fill a cache entry: held-out sets first, because training rows must not appear in them."""
    with ExitStack() as open_files:
        lines = open_files.enter_context(Lines(draft))
        pool = Pool(lines, "train")
        held_out = open_files.enter_context(Seen(draft / "held-out.seen"))
        if progress is None:
            progress = _hold_out(config, task, renderer, ledger, lines, pool, held_out)
        else:
            log.info("going on with what was prepared before: %s examples are done", f"{progress.at:,}")
        _train(config, renderer, ledger, lines, pool, held_out, progress)
    return progress


def _hold_out(
    config: RunConfig, task: Task, renderer: Renderer, ledger: Ledger, lines: Lines, pool: Pool, held_out: Seen
) -> Progress:
    """Test sets and validation, and the pool that training rows are drawn from."""
    data, draft = config.data, lines.folder
    findings: list[Finding] = []

    def load(source: Source, split: str) -> Iterator[Example]:
        return _load(source, split, config, task, ledger, draft, findings)

    with ExitStack() as open_files:
        tested = open_files.enter_context(Seen(draft / "tested.seen"))
        for at, (name, source) in enumerate(data.test.items()):
            asked = _askable(load(source, f"test:{name}"), f"test:{name}", renderer, ledger)
            write_examples(draft, f"test-{at}", asked)
            for example in asked:
                for table in (tested, held_out):
                    table.first(_prompt(example), f"test set {name!r} ({example.place})")
        assert data.train is not None
        own_side = _pool(load(data.train, "train"), pool, config, findings) if data.validation is None else 0
        progress = Progress(held_side=own_side)
        validation, split = pool, "train"
        if data.validation is not None:
            for example in load(data.train, "train"):
                pool.add(example, _prompt(example))
            validation, split = Pool(lines, "validation"), "validation"
            for example in load(data.validation, "validation"):
                validation.add(example, _prompt(example))

        def kept() -> Iterator[tuple[Pooled, Example]]:
            for row in validation.rows():
                if data.validation is None and not row.sides & own_side:
                    continue
                example, where = lines.read(row.start, row.size), tested.where(row.prompt)
                if where is None:
                    yield row, example
                else:
                    _leak(example, where, split, ledger, progress)

        with RowWriter(draft, "validation") as writer:
            for batch in _batches(kept()):
                _render(batch, split, "validation", renderer, lines, writer, ledger)
                for row, example in batch:
                    held_out.first(row.prompt, f"the validation set ({example.place})")
            writer.sync()
    held_out.keep()
    progress.findings = [asdict(finding) for finding in findings]
    return progress


def _train(
    config: RunConfig, renderer: Renderer, ledger: Ledger, lines: Lines, pool: Pool, held_out: Seen, progress: Progress
) -> None:
    """Render what is trained on, shard by shard."""
    data, draft = config.data, lines.folder
    tests = [read_examples(draft, f"test-{at}") for at in range(len(data.test))]
    questions = [one for name, examples in zip(data.test, tests, strict=True) for one in held(name, examples)]
    questions += against(data.leaks, data.max_record_bytes)
    detective = Detective(questions, data.leaks) if questions else None

    def kept() -> Iterator[tuple[Pooled, Example]]:
        for row in pool.rows(progress.at):
            if row.sides & progress.held_side:
                continue
            example, where = lines.read(row.start, row.size), held_out.where(row.prompt)
            if where is not None:
                _leak(example, where, "train", ledger, progress)
                continue
            pair = detective.look(example) if detective else None
            if pair is not None:
                progress.pairs.append(asdict(_brief(pair)))
                if policy_of(pair, data.leaks) == "drop":
                    ledger.drop(Dropped(example.place, "leak", pair.reason(), example.id), "train")
                    continue
            progress.thoughtful += _thinks(example)
            progress.rows += 1
            yield row, example

    def written_down() -> None:
        writer.sync()
        lines.sync()
        progress.ledger = ledger.state()
        progress.save(draft)

    with RowWriter(draft, "train") as writer:
        written_down()
        since = progress.at
        for batch in _batches(kept()):
            _render(batch, "train", "train", renderer, lines, writer, ledger)
            progress.at = batch[-1][0].at + 1
            if progress.at - since >= _SHARD:
                written_down()
                since = progress.at
    ledger.gate(data.max_dropped)
    told = [] if progress.leaks == 0 else [_leaks(progress)]
    told += gate([Pair(**pair) for pair in progress.pairs], data.leaks)
    told += _remarks(config, renderer, TokensDataset(draft, "train"))
    progress.findings += [asdict(finding) for finding in told]


# --- reading ----------------------------------------------------------------------------------------------------------


def _load(
    source: Source, split: str, config: RunConfig, task: Task, ledger: Ledger, draft: Path, findings: list[Finding]
) -> Iterator[Example]:
    """The examples of one source without exact duplicates; whatever is refused is settled in the ledger."""
    form, items = phrased(source, config, task)
    findings.append(Finding("format", "info", f"{split}: records are read as {form}", source.path))
    table = draft / "source.seen"
    table.unlink(missing_ok=True)
    hidden, first_hidden, usable = 0, "", 0
    with Seen(table) as seen:
        for one in items:
            ledger.admit(split)
            if isinstance(one, Dropped):
                ledger.drop(one, split)
                continue
            first = seen.first(bytes.fromhex(example_key(one)), one.place)
            if first != one.place:
                ledger.drop(Dropped(one.place, "duplicate", f"the same as {first}", one.id), split)
                continue
            if any(_hides(message.content) for message in one.messages):
                hidden, first_hidden = hidden + 1, first_hidden or one.place
            usable += 1
            yield one
    table.unlink()
    ledger.gate(config.data.max_dropped)
    if not usable:
        raise DataError(
            "no record can be used", place=source.path, remedy="see the reasons:\n" + ledger.summary().text()
        )
    if hidden:
        message = f"{hidden:,} records hold characters nobody sees (control, zero-width, direction)"
        findings.append(
            Finding("hidden characters", "warning", message, first_hidden, "remove them if they are not meant")
        )


def _hides(text: str) -> bool:
    return _shared_hides(text) if 200 < len(text) < 20_000 else bool(_HIDDEN.search(text))


@lru_cache(256)
def _shared_hides(text: str) -> bool:
    return bool(_HIDDEN.search(text))


def _prompt(example: Example) -> bytes:
    return bytes.fromhex(prompt_key(example))


# --- splitting --------------------------------------------------------------------------------------------------------


def _pool(examples: Iterable[Example], pool: Pool, config: RunConfig, findings: list[Finding]) -> int:
    """Pool examples for training and validation; returns the bit that sends one to validation.

    Groups stay together unless there are too few to set any aside.
    """
    share = config.data.validation_share

    def aside(identity: str) -> bool:
        return share > 0 and assign_split(identity, config.seed, {"validation": share}) == "validation"

    groups: set[str] = set()
    found = [0, 0]
    for example in examples:
        prompt = prompt_key(example)
        by_prompt = aside(prompt)
        by_group = aside(example.group) if example.group else by_prompt
        sides = _BY_PROMPT * by_prompt | _BY_GROUP * by_group
        found[sides & _BY_GROUP] += 1
        if example.group and not all(found):  # afterwards nobody asks
            groups.add(example.group)
        pool.add(example, bytes.fromhex(prompt), sides)
    if not share or all(found) or not groups:
        return _BY_GROUP
    findings.append(
        Finding(
            "split",
            "warning",
            f"with {len(groups)} group(s) none can be set aside whole, so validation is split by question instead",
            "data.validation_share",
            "set data.validation, or raise data.validation_share",
        )
    )
    return _BY_PROMPT


def _leak(example: Example, where: str, split: str, ledger: Ledger, progress: Progress) -> None:
    progress.leaks += 1
    progress.leaked = progress.leaked or [example.place, where]
    ledger.drop(Dropped(example.place, "leak", f"the same question is in {where}", example.id), split)


def _leaks(progress: Progress) -> Finding:
    place, where = progress.leaked
    return Finding(
        "leak",
        "warning",
        f"{progress.leaks:,} rows ask a question that is also held out, and were left out; the first is also in "
        f"{where}",
        place,
        "nothing, if held-out sets were drawn from the same records; else check how they were made",
    )


# --- rendering --------------------------------------------------------------------------------------------------------


def _askable(examples: Iterable[Example], split: str, renderer: Renderer, ledger: Ledger) -> list[Example]:
    """Test examples whose prompt the template can write."""
    asked: list[Example] = []
    for example in examples:
        if dropped := renderer.check(example):
            ledger.drop(dropped, split)
        else:
            ledger.settle(example.place, example.id, split, "test")
            asked.append(example)
    return asked


def _batches(rows: Iterable[tuple[Pooled, Example]]) -> Iterator[list[tuple[Pooled, Example]]]:
    """Runs of rows that are rendered together; one is handed on as soon as it is full."""
    batch: list[tuple[Pooled, Example]] = []
    size = 0
    for row, example in rows:
        batch.append((row, example))
        size += row.size
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _render(
    batch: Sequence[tuple[Pooled, Example]],
    split: str,
    into: str,
    renderer: Renderer,
    lines: Lines,
    writer: RowWriter,
    ledger: Ledger,
) -> None:
    """Render, settle and write some rows."""
    rows: list[Tokens] = []
    places: list[tuple[int, int]] = []
    results = renderer.render_many([example for _, example in batch])
    for (row, example), result in zip(batch, results, strict=True):
        if isinstance(result, Dropped):
            ledger.drop(result, split)
            continue
        reason = "prompt shortened" if result.note else ""
        outcome: Outcome = "trained" if into == "train" else "validation"
        ledger.settle(example.place, example.id, split, outcome, reason, result.note)
        rows.append(result.tokens)
        places.append(lines.write(result.example) if result.note else (row.start, row.size))
    writer.add(rows, places)


def _brief(pair: Pair) -> Pair:
    """As much of a pair as is shown."""
    return replace(pair, train_text=pair.train_text[:1000], held_text=pair.held_text[:1000])


def _thinks(example: Example) -> bool:
    answer = example.messages[-1]
    return bool(answer.extra.get("reasoning_content")) or answer.content.lstrip().startswith("<think>")


def _remarks(config: RunConfig, renderer: Renderer, rows: TokensDataset) -> list[Finding]:
    findings: list[Finding] = []
    count = len(rows)
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
