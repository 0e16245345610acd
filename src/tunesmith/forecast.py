"""What a run will take, before it is paid for: `tunesmith plan`, and its probe on this machine."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith import pipeline
from tunesmith.bench import open_run
from tunesmith.config.load import Loaded
from tunesmith.config.schema import RunConfig
from tunesmith.config.schema.limits import Limits
from tunesmith.errors import DataError, ModelError

if TYPE_CHECKING:
    from tunesmith.check.plan import Plan
    from tunesmith.check.speed import Probed
    from tunesmith.check.workload import Workload

log = logging.getLogger(__name__)


def plan(
    loaded: Loaded,
    *,
    probe: bool = False,
    settings_only: bool = False,
    examples: int | None = None,
    label_share: float = 0.25,
    cards: Path | None = None,
    announce: Callable[[str, str], None] = lambda stage, outcome: None,
) -> Plan:
    """Memory by component, time and money of a run on this machine and on every card of the table, with intervals.

    The plan is kept beside the runs; when its run is complete, it is scored against it.

    Args:
        loaded: settings with the origin of each.
        probe: run the worst real batch, some steps, a validation and a save here, and narrow what is said of here.
        settings_only: look at no data, and take every example to be as long as the settings allow.
        examples: size of the training set, where no data is looked at.
        label_share: share of the tokens that are trained, where no data is looked at.
        cards: the user's own table of cards.
        announce: told what each stage did.

    Raises:
        ModelError: the model's config cannot be read, or with `probe` the run does not fit here.
        ConfigError: without data, the settings do not say how long the run is.
    """
    baseline = libraries().bytes
    from tunesmith.check.cards import read_cards
    from tunesmith.check.plan import keep_plan, make_plan, read_architecture
    from tunesmith.check.workload import assumed_workload

    config = loaded.config
    table = read_cards(cards)
    read_architecture(config)  # what everything else needs is missed first
    found = None if settings_only or probe else _look(loaded, announce)
    probed, peak = None, None
    if probe:
        found, probed, peak = _probe(loaded, announce)
    workload = found or assumed_workload(config, examples=examples, label_share=label_share)
    made = make_plan(config, workload, table, baseline=baseline, device_name=_device_name(), probed=probed, peak=peak)
    keep_plan(made, config.output_dir)
    return made


class Libraries(NamedTuple):
    """What a run imports."""

    bytes: int
    """That Python holds once it is imported."""
    seconds: float
    """That importing took."""


@cache
def libraries() -> Libraries:
    """Import everything that a run imports; asked first, before anything is made."""
    start = time.perf_counter()
    import psutil

    import tunesmith.evaluate
    import tunesmith.export.verify
    import tunesmith.train.fit  # noqa: F401

    return Libraries(int(psutil.Process().memory_info().rss), time.perf_counter() - start)


def _device_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _look(loaded: Loaded, announce: Callable[[str, str], None]) -> Workload | None:
    """The run on its data; None, and why, where the data or the tokenizer is not here."""
    from tunesmith.check.workload import prompt_lengths, workload_of
    from tunesmith.data.render import Renderer

    try:
        with pipeline.look(loaded) as (prepared, tokenizer):
            renderer = Renderer(tokenizer, loaded.config.model.end_token, thinks=prepared.thinks)
            return workload_of(loaded.config, prepared, prompt_lengths(prepared, renderer))
    except (DataError, ModelError) as error:
        announce("plan", f"without the data: {error.place}: {error.message}")
        return None


def _probe(loaded: Loaded, announce: Callable[[str, str], None]) -> tuple[Workload, Probed, int]:
    """A part of the run itself, in a folder of its own that is gone afterwards."""
    from tunesmith.check.plan import FOLDER
    from tunesmith.check.receipt import take_receipt
    from tunesmith.check.speed import Probed
    from tunesmith.check.workload import prompt_lengths, workload_of
    from tunesmith.model.lora import add_lora
    from tunesmith.train import BUILDERS
    from tunesmith.train.probe import probe

    config = loaded.config
    folder = config.output_dir / FOLDER / "probe"
    rehearsed = replace(loaded, config=_apart(config, folder))
    started = time.perf_counter()
    try:
        with open_run(rehearsed, fresh=True) as bench:
            assert bench is not None  # a fresh run is never complete
            prepared, tokenizer, renderer = pipeline.prepare(bench)
            workload = workload_of(config, prepared, prompt_lengths(prepared, renderer))
            loading = time.perf_counter()
            model = pipeline.load_base(bench)
            loading = time.perf_counter() - loading
            pipeline.try_grader(bench, prepared)
            before = time.perf_counter() - started
            # The base answers before it has learned anything, as in the run.
            grading = _grading(bench, model, tokenizer, renderer, prepared)
            export = loading + _comparing(bench, model, tokenizer, renderer, prepared)
            if config.lora is not None:
                model = add_lora(model, config.lora, config.seed)
            trainer = BUILDERS[config.train.method](bench.config, model, tokenizer, prepared, bench.run, bench.tracker)
            trainer.lock = bench.lock
            take_receipt(trainer, bench.config, tokenizer, prepared, bench.run)
            measured = probe(trainer, workload.step_tokens)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    announce(
        "probe",
        f"{measured.steps} steps, {measured.step_seconds:.3g} s for a mean one; the longest row, "
        f"{measured.worst_tokens:,} tokens; a validation, {measured.evaluation:.1f} s; a save, {measured.saving:.1f} s",
    )
    told = Probed(
        measured.step_seconds,
        measured.step_error,
        measured.evaluation,
        measured.saving,
        libraries().seconds + before + measured.beginning,
        *grading,
        export,
    )
    return workload, told, measured.peak


def _apart(config: RunConfig, folder: Path) -> RunConfig:
    """The run in another folder, on the same prepared data, with no copy elsewhere and no end but the probe's own."""
    return config.model_copy(
        update={
            "output_dir": folder,
            "data": config.data.model_copy(update={"cache_dir": config.cache_folder}),
            "checkpoints": config.checkpoints.model_copy(update={"mirror": None}),
            "tracking": config.tracking.model_copy(update={"report_to": []}),
            "limits": Limits(),
        }
    )


def _grading(bench: Any, model: Any, tokenizer: Any, renderer: Any, prepared: Any) -> tuple[float, float, float]:
    """Seconds of a batch of answers whatever its size, of each prompt besides, and the share of both after training.

    Two batches are answered, a full one and a quarter of one. After training answers are about as long as those that
    were trained, and so is the time that they take. All 0 where nothing is graded.
    """
    from tunesmith.evaluate import evaluate

    pool = [example for found in prepared.tests.values() for example in found]
    if not pool:
        return 0.0, 0.0, 0.0
    most = min(len(pool), bench.config.generate.batch_size)
    taken, tokens = [], 0.0
    for count in (most, max(1, most // 4)):
        asked = pool[:: max(1, len(pool) // count)][:count]
        start = time.perf_counter()
        found = evaluate(model, tokenizer, renderer.prompt_ids, asked, bench.task, bench.config)
        taken.append((count, time.perf_counter() - start))
        tokens = tokens or found.mean_tokens or 1.0
    (full, long), (few, short) = taken
    each = max(0.0, (long - short) / (full - few)) if full > few else long / full
    trained = min(float(prepared.train.label_counts.mean()), bench.config.generate.max_new_tokens)
    return max(0.0, long - each * full), each, min(1.0, trained / tokens)


def _comparing(bench: Any, model: Any, tokenizer: Any, renderer: Any, prepared: Any) -> float:
    """Seconds in which an export is held against the model: both answer a few prompts, then both read them again."""
    import torch

    from tunesmith.export.verify import greedy_answers

    prompts = pipeline.compared_prompts(renderer, prepared) if bench.config.exports else []
    start = time.perf_counter()
    if prompts:
        greedy_answers(model, tokenizer, prompts, bench.config)
    with torch.inference_mode():
        for ids in prompts:
            model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1, use_cache=False)
    return 2 * (time.perf_counter() - start)
