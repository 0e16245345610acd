"""Grading a finished run again: against its base, its checkpoints, other runs, or any model behind an address.

Everyone answers the same prompts and is marked by the same grader; each is compared with the tuned model pair by pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import pipeline
from tunesmith.bench import Announce, Bench, read_summary, reopen, silent
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig, Source
from tunesmith.endpoint import Endpoint
from tunesmith.errors import ConfigError
from tunesmith.rundir import RunDir
from tunesmith.types import Example

if TYPE_CHECKING:
    from tunesmith.data.prepare import Prepared
    from tunesmith.evaluate import Evaluation
    from tunesmith.generate.lexicon import Lexicon

SUITE = "regressions"
"""Name of the test set that a suite of kept failures is asked as."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who answers the test sets of a run beside its tuned model."""

    name: str
    """Names its score files and its column; letters, digits, `_` and `.`."""
    kind: str
    """`checkpoint`, `run`, `model` or `endpoint`."""
    where: str
    """A folder, a Hub name, or an address."""


def evaluate_run(
    root: Path,
    *,
    against: Sequence[str] = (),
    key: str | None = None,
    suite: Path | None = None,
    keep: bool = False,
    announce: Announce = silent,
) -> Mapping[str, Any]:
    """Grade base and tuned model of a trained run, and whoever else is named, and write the run's report.

    Args:
        root: the run's folder.
        against: others to compare with, as `contestants` reads them. Scores of base and tuned model that are there
            already are then used again; without it, both are graded anew.
        key: `env:NAME`, a variable that holds the key of an endpoint.
        suite: failures kept earlier, asked as one more test set where the file exists.
        keep: add the tuned model's failures to the suite (`regressions.jsonl` in the run's folder by default).
        announce: told what each stage did.

    Raises:
        ConfigError: no trained run there, no test set, or nobody of that name.
    """
    with reopen(root, announce) as bench:
        others = contestants(against, bench.run)
        suite = suite or (bench.run.root / f"{SUITE}.jsonl" if keep else None)
        if suite is not None and not keep and not suite.exists():
            raise ConfigError("there is no such suite", place=str(suite), remedy="make it with --keep-failures")
        endpoints = {one.name: Endpoint.parse(one.where, key).resolved() for one in others if one.kind == "endpoint"}
        if not others:
            for path in (bench.run.root / "scores").glob("*.jsonl"):
                path.unlink()
            bench.tracker.summary(scores=None, paired=None, contest=None)
        if suite is not None and suite.exists():
            bench.config = with_test_set(bench.config, SUITE, suite)
        prepared, tokenizer, renderer = pipeline.prepare(bench)
        if not prepared.tests:
            raise ConfigError(
                "the recipe has no test set", place="data.test", remedy="add one: data.test: {mine: questions.jsonl}"
            )
        model = pipeline.load_base(bench)
        if bench.config.evaluate.base:
            pipeline.grade(bench, "base", model, tokenizer, renderer, prepared)
        model = pipeline.train(bench, model, tokenizer, prepared)
        lexicon = pipeline.learn_lexicon(bench, prepared)
        tuned = pipeline.grade(bench, "tuned", model, tokenizer, renderer, prepared, lexicon)
        pipeline.compare(bench, prepared)
        for one in others:
            if one.kind == "endpoint":
                ask_endpoint(bench, one, endpoints[one.name], prepared)
                continue
            with loaded(bench, one, model, tokenizer, prepared) as (other, its_tokenizer, its_renderer):
                theirs = lexicon if one.kind == "checkpoint" else _lexicon_of(one)
                pipeline.grade(bench, one.name, other, its_tokenizer, its_renderer, prepared, theirs)
        if others:
            contest(bench, others, tuned)
        if keep and suite is not None:
            keep_tuned(bench, suite, tuned)
        pipeline.finish(bench)
    return read_summary(RunDir(root))


# --- who ------------------------------------------------------------------------------------------------------------


def contestants(against: Sequence[str], run: RunDir) -> list[Contestant]:
    """Who is meant: `checkpoint-40`, `checkpoints` (all of this run), the folder of another run, `model:NAME` (a Hub
    name or folder), or `https://host/v1#model`.

    Raises:
        ConfigError: nobody is.
    """
    found: dict[str, Contestant] = {}
    for text in against:
        for one in _meant(text, run):
            if one.name in ("base", "tuned") or found.setdefault(one.name, one) != one:
                raise ConfigError(
                    f"two models would be called {one.name}", place=text, remedy="rename one of the folders"
                )
    return list(found.values())


def _meant(text: str, run: RunDir) -> Iterator[Contestant]:
    if re.match(r"https?://", text):
        address, _, model = text.partition("#")
        yield Contestant(_slug(model or re.sub(r"^https?://", "", address)), "endpoint", text)
        return
    if text.startswith("model:"):
        where = text.removeprefix("model:")
        yield Contestant(_slug(where.rstrip("/").split("/")[-1]), "model", where)
        return
    there = sorted(
        (p for p in run.checkpoints.glob("checkpoint-*") if p.is_dir()), key=lambda p: int(p.name.rpartition("-")[2])
    )
    if text == "checkpoints" or any(p.name == text for p in there):
        chosen = there if text == "checkpoints" else [run.checkpoints / text]
        yield from (Contestant(_slug(path.name), "checkpoint", str(path)) for path in chosen)
        return
    other = RunDir(Path(text))
    if other.config.exists() and other.adapter.exists():
        yield Contestant(_slug(f"run_{Path(text).resolve().name}"), "run", text)
        return
    have = ", ".join(p.name for p in there) or "none"
    raise ConfigError(
        "this names no model",
        place=f"--against {text}",
        remedy=f"give a checkpoint of this run ({have}), the folder of a trained run, model:NAME, or "
        "https://host/v1#model",
    )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("_.") or "other"


# --- their answers --------------------------------------------------------------------------------------------------


@contextmanager
def loaded(bench: Bench, one: Contestant, tuned: Any, tokenizer: Any, prepared: Prepared) -> Iterator[Any]:
    """(model, tokenizer, renderer) of a contestant; the tuned model is as it was afterwards."""
    from tunesmith.data.render import Renderer
    from tunesmith.model.load import load_model, load_tokenizer
    from tunesmith.model.lora import with_peft
    from tunesmith.train.fit import load_trained

    if one.kind == "checkpoint" and bench.config.lora is not None:
        with_peft(lambda: tuned.load_adapter(one.where, adapter_name=one.name))
        tuned.set_adapter(one.name)
        try:
            renderer = Renderer(tokenizer, bench.config.model.end_token, thinks=prepared.thinks)
            yield tuned.eval(), tokenizer, renderer
        finally:
            tuned.set_adapter("default")
            tuned.delete_adapter(one.name)
        return
    config, its_tokenizer = bench.config, tokenizer
    if one.kind == "run":
        config = load_config(RunDir(Path(one.where)).config, environ={}).config
    elif one.kind == "model":
        config = _of_model(config, name=one.where, revision=None, chat_template=None, end_token=None)
    elif one.kind == "checkpoint":
        config = _of_model(config, name=one.where)
    if one.kind != "checkpoint":
        its_tokenizer = load_tokenizer(config.model)
    model = load_model(config.model, precision=config.train.precision)
    if one.kind == "run":
        model = load_trained(config, RunDir(Path(one.where)), model)
    yield model, its_tokenizer, Renderer(its_tokenizer, config.model.end_token, thinks=prepared.thinks)


def _lexicon_of(one: Contestant) -> Lexicon | None:
    """What another run learned beside its model; a model without a run has learned nothing."""
    from tunesmith.generate.lexicon import Lexicon

    path = RunDir(Path(one.where)).lexicon
    return Lexicon.load(path) if one.kind == "run" and path.exists() else None


def _of_model(config: RunConfig, **changed: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=changed)})


def ask_endpoint(bench: Bench, one: Contestant, endpoint: Endpoint, prepared: Prepared) -> None:
    """Grade a model behind an address on every test set; answers that are there already are not paid for again."""
    from tunesmith.evaluate.ask import evaluate_endpoint

    def asked(examples: Sequence[Example]) -> Evaluation:
        return evaluate_endpoint(endpoint, examples, bench.task, bench.config)

    pipeline.grade_by(asked, bench, one.name, prepared)


def contest(bench: Bench, others: Sequence[Contestant], tuned: Mapping[str, Evaluation]) -> None:
    """The tuned model against each of the others, pair by pair; p-values are Holm's over all others of a test set."""
    from tunesmith.evaluate.metrics import read_scores
    from tunesmith.evaluate.paired import compare, holm

    level, settings = bench.config.evaluate.confidence, bench.config.evaluate
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, evaluation in tuned.items():
        pairs = {
            one.name: compare(
                read_scores(bench.run.scores(one.name, name), level), evaluation, settings.resamples, bench.config.seed
            )
            for one in others
        }
        adjusted = holm({other: paired.p_value for other, paired in pairs.items()})
        found[name] = {other: {**asdict(p), "p_adjusted": adjusted[other]} for other, p in pairs.items()}
    bench.tracker.summary(contest={"others": [asdict(one) for one in others], "sets": found})


def keep_tuned(bench: Bench, suite: Path, tuned: Mapping[str, Evaluation]) -> None:
    """Add the tuned model's failures to the suite."""
    from tunesmith.evaluate.regressions import keep_failures

    kept = keep_failures(suite, {name: one for name, one in tuned.items() if name != SUITE}, bench.config.name)
    bench.announce("keep", f"{kept.added} failures added to {suite}, which holds {kept.total}")


def with_test_set(config: RunConfig, name: str, path: Path) -> RunConfig:
    """The settings with one more test set."""
    tests = {**config.data.test, name: Source(path=str(path.resolve()), format="kept")}
    return config.model_copy(update={"data": config.data.model_copy(update={"test": tests})})
