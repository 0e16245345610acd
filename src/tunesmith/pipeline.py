"""What happens in a run, in order: the only file that knows all rooms.

    build -> prepare -> grade the base -> train -> grade the tuned -> export -> report

Called again with the same recipe, a run continues where it stopped; a finished one says so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.bench import Announce, Bench, open_run, peak_rss_mb, read_summary, reopen, run_dir, silent
from tunesmith.config.load import Loaded, load_config
from tunesmith.data.sources import read_whole
from tunesmith.errors import CheckFailed, ConfigError, StorageError
from tunesmith.rundir import RunDir
from tunesmith.tasks import get_task, with_built_data
from tunesmith.types import Example, Finding

if TYPE_CHECKING:
    from tunesmith.check.receipt import Receipt
    from tunesmith.data.prepare import Prepared
    from tunesmith.data.render import Renderer
    from tunesmith.evaluate import Evaluation
    from tunesmith.generate.lexicon import Lexicon


def run(loaded: Loaded, *, resume: bool = False, fresh: bool = False, announce: Announce = silent) -> Mapping[str, Any]:
    """The whole life of a specialist: data, training, grading, exports, report. Returns what `run.json` holds.

    Args:
        loaded: settings with the origin of each.
        resume: insist that there is something to continue.
        fresh: set an existing run of this name aside and start anew.
        announce: told what each stage did.

    Raises:
        TunesmithError: see `errors`; what was done so far stays, and the same call continues.
    """
    with open_run(loaded, resume=resume, fresh=fresh, announce=announce) as bench:
        if bench is None:
            _write_missing_report(run_dir(loaded.config))
            return read_summary(run_dir(loaded.config))
        check_first(bench, loaded)
        prepared, tokenizer, renderer = prepare(bench)
        try_grader(bench, prepared)
        model = load_base(bench)
        if bench.config.evaluate.base and prepared.tests:
            grade(bench, "base", model, tokenizer, renderer, prepared)
        model = train(bench, model, tokenizer, prepared, resume=resume)
        if prepared.tests:
            grade(bench, "tuned", model, tokenizer, renderer, prepared, learn_lexicon(bench, prepared))
            compare(bench, prepared)
        export(bench, model, tokenizer, renderer, prepared)
        finish(bench)
    return read_summary(run_dir(loaded.config))


# --- the stages -------------------------------------------------------------------------------------------------------


def check_first(bench: Bench, loaded: Loaded) -> None:
    """The checks that cost nothing, before anything that does; an error among them stops the run."""
    with bench.stage("check"):
        from tunesmith.check import BEFORE_A_RUN, check

        result = check(loaded, families=BEFORE_A_RUN)
        result.save(bench.run.check)
    bench.tell("check", (f for f in result.findings if f.level == "warning"))
    if not result.passed:
        first, count = result.errors[0], len(result.errors)
        more = f" (and {count - 1} more: see {bench.run.check})" if count > 1 else ""
        kind = StorageError if first.check.startswith(("disk.", "storage.")) else CheckFailed
        raise kind(f"{first.message}{more}", place=first.place, remedy=first.remedy)


def receipt_of(loaded: Loaded) -> Receipt:
    """Every setting of a recipe as asked and as in force, read back from what would train; nothing is trained."""
    from tunesmith.check import examine
    from tunesmith.check.receipt import dry_receipt
    from tunesmith.train import build_trainer

    with examine(loaded) as subject:
        return dry_receipt(subject, build_trainer)


def build(bench: Bench) -> None:
    """Make the data set that the task builds itself, and point the settings of the run at it."""
    with bench.stage("build"):
        bench.config, built = with_built_data(bench.config, bench.task, bench.run.data, read_whole)
    if built:
        counts = ", ".join(f"{count:,} {name.removeprefix('test_')}" for name, count in built.counts.items())
        bench.announce("build", f"{counts} examples, {built.proof}")


def prepare(bench: Bench) -> tuple[Prepared, Any, Renderer]:
    """Records to rows of tokens, with every label proved; returns the data, the tokenizer and the renderer."""
    build(bench)
    with bench.stage("prepare"):
        from tunesmith.data.prepare import prepare_dataset
        from tunesmith.data.prove import prove_labels
        from tunesmith.data.render import Renderer
        from tunesmith.model.load import load_tokenizer

        config = bench.config
        tokenizer = load_tokenizer(config.model)
        prepared = prepare_dataset(
            config, bench.task, tokenizer, cache_dir=config.cache_folder, ledger_path=bench.run.ledger
        )
        renderer = Renderer(tokenizer, config.model.end_token, thinks=prepared.thinks)
        if config.model.end_token is None and renderer.end_id != tokenizer.eos_token_id:
            # What the template writes at the end of an answer is what the model learns to stop at.
            end = {"end_token": tokenizer.convert_ids_to_tokens(renderer.end_id)}
            bench.config = config = config.model_copy(update={"model": config.model.model_copy(update=end)})
        proof = prove_labels(prepared.train, tokenizer, renderer, config)
        _require(proof.findings)
        _write_mask(bench.run, prepared, tokenizer)
        figures = {**prepared.ledger.figures(), "key": prepared.key}
        bench.tracker.summary(data=figures, findings=[asdict(f) for f in prepared.findings])
    bench.tell("prepare", (f for f in prepared.findings if f.level != "info"))
    bench.announce("prepare", f"{prepared.ledger.text()}; labels of all {proof.rows:,} rows proved")
    return prepared, tokenizer, renderer


def try_grader(bench: Bench, prepared: Prepared) -> None:
    """Before anything is paid for: right answers must score, other questions' answers and cheap ones must not."""
    examples = [*(e for tests in prepared.tests.values() for e in tests), *prepared.validation_examples]
    if not bench.config.evaluate.self_test or not examples:
        return
    with bench.stage("self-test"):
        from tunesmith.evaluate.trust import try_grader as tried

        trust = tried(bench.task, examples, bench.config)
        bench.tracker.summary(trust=trust.figures())
    bench.tell("self-test", (f for f in trust.findings if f.level != "error"))
    _require(trust.findings, "the grader cannot be trusted")
    bench.announce("self-test", trust.sentence())


def train(bench: Bench, model: Any, tokenizer: Any, prepared: Prepared, *, resume: bool = False) -> Any:
    """Fine-tune; returns the tuned model, which also lies in `adapter/`."""
    with bench.stage("train"):
        from tunesmith.check.receipt import take_receipt
        from tunesmith.model.lora import add_lora
        from tunesmith.train import build_trainer
        from tunesmith.train.fit import fit, load_trained

        config = bench.config
        if bench.run.adapter.exists():
            return load_trained(config, bench.run, model)
        if config.lora is not None:
            model = add_lora(model, config.lora, config.seed)
        trainer = build_trainer(config, model, tokenizer, prepared, bench.run, bench.tracker, bench.task)
        if bench.mirror is not None:
            bench.mirror.follow(trainer)
        take_receipt(trainer, config, tokenizer, prepared, bench.run, lambda told: bench.announce("receipt", told))
        # Limits count what a run has taken over all its calls, and one that is killed says nothing at its end.
        trainer.on_commit.append(lambda *_: bench.tracker.summary(seconds=bench.elapsed))
        result = fit(trainer, bench.run, config, resume=resume, stop=bench.stop, lock=bench.lock)
        bench.tracker.summary(training=result.figures())
    bench.announce("train", result.sentence())
    return trainer.model


def learn_lexicon(bench: Bench, prepared: Prepared) -> Lexicon | None:
    """The lexicon of the training data, where `generate.lexicon` asks for one; it also lies in the run's folder."""
    if not bench.config.generate.lexicon:
        return None
    with bench.stage("lexicon"):
        from tunesmith.generate.lexicon import EXAMPLES, Lexicon

        path = bench.run.lexicon
        if path.exists() and (known := Lexicon.load(path)).data == prepared.key:
            return known
        count, seed = len(prepared.train), bench.config.seed
        drawn = range(count) if count <= EXAMPLES else sorted(random.Random(seed).sample(range(count), EXAMPLES))
        examples = map(prepared.train.example, drawn)
        lexicon = Lexicon.learn(((one.question, one.answer) for one in examples), seed, prepared.key)
        lexicon.save(path)
    asked, written = lexicon.size
    bench.announce("lexicon", f"{asked:,} pieces of questions and {written:,} of answers weighed against each other")
    return lexicon


def grade(
    bench: Bench,
    which: str,
    model: Any,
    tokenizer: Any,
    renderer: Renderer,
    prepared: Prepared,
    lexicon: Lexicon | None = None,
) -> dict[str, Evaluation]:
    """Ask the model every test question and mark its answers."""
    from tunesmith.evaluate import evaluate

    def asked(examples: Sequence[Example]) -> Evaluation:
        return evaluate(model, tokenizer, renderer.prompt_ids, examples, bench.task, bench.config, lexicon=lexicon)

    return grade_by(asked, bench, which, prepared)


def grade_by(
    asked: Callable[[Sequence[Example]], Evaluation], bench: Bench, which: str, prepared: Prepared
) -> dict[str, Evaluation]:
    """Have every test set answered and marked; sets that were marked before are read, not asked again."""
    from tunesmith.evaluate import summarize, write_scores

    done: dict[str, Evaluation] = {}
    with bench.stage(f"grade {which}"):
        for name, examples in prepared.tests.items():
            if known := _already_graded(bench, which, name, examples):
                done[name] = known
                continue
            done[name] = asked(examples)
            write_scores(bench.run.scores(which, name), done[name])
        figures = {name: summarize(result, bench.config.evaluate.slices) for name, result in done.items()}
        bench.tracker.summary(scores={which: figures})
    bench.announce(f"grade {which}", ", ".join(f"{name} {_percent(result)}" for name, result in done.items()))
    return done


def _already_graded(bench: Bench, which: str, test_set: str, examples: Sequence[Example]) -> Evaluation | None:
    """The scores that lie in the run's folder, where they are of these questions: a data set that is built again after
    its builder changed asks others, and answers to different questions cannot be compared pair by pair."""
    from tunesmith.evaluate import read_scores
    from tunesmith.evaluate.metrics import sample

    path = bench.run.scores(which, test_set)
    if not path.exists():
        return None
    known = read_scores(path, bench.config.evaluate.confidence)
    asked = sample(examples, bench.config.evaluate.max_samples, bench.config.seed)
    if [_question(one.example) for one in known.judged] == [_question(example) for example in asked]:
        return known
    bench.announce(f"grade {which}", f"{path.name} answers other questions than {test_set} has now: graded anew")
    return None


def _question(example: Example) -> list[str]:
    return [example.id, *(f"{turn.role}: {turn.content}" for turn in example.prompt)]


def compare(bench: Bench, prepared: Prepared) -> None:
    """The paired comparison of base and tuned on the same prompts, whole and by slice."""
    from tunesmith.evaluate import compare as paired
    from tunesmith.evaluate import read_scores
    from tunesmith.evaluate.paired import compare_slices

    found, wanted = {}, bench.config.evaluate
    for name in prepared.tests:
        paths = bench.run.scores("base", name), bench.run.scores("tuned", name)
        if all(path.exists() for path in paths):
            base, tuned = (read_scores(path, wanted.confidence) for path in paths)
            figures = asdict(paired(base, tuned, wanted.resamples, bench.config.seed))
            found[name] = {**figures, "slices": compare_slices(base, tuned, tuned.slice_keys(wanted.slices))}
    bench.tracker.summary(paired=found)


def export(bench: Bench, model: Any, tokenizer: Any, renderer: Renderer, prepared: Prepared) -> None:
    """Write every export of the recipe, load it back and hold it against the trained model."""
    from tunesmith.export import export as write
    from tunesmith.export.verify import verify

    prompts = compared_prompts(renderer, prepared)
    with bench.stage("export"):
        artifacts = []
        for wanted in bench.config.exports:
            artifact = write(bench.config, bench.run, wanted)
            verified = verify(artifact, model, tokenizer, prompts, bench.config)
            artifacts.append({**artifact.figures(), "verified": verified.figures()})
            bench.announce("export", f"{wanted.format}: {artifact.path}; {verified.sentence()}")
        bench.tracker.summary(exports=artifacts)


def finish(bench: Bench) -> None:
    """Mark the run complete and write its report."""
    from tunesmith.report import write_report

    bench.tracker.summary(status="complete", seconds=bench.elapsed, peak_rss_mb=peak_rss_mb())
    score_forecast(bench)
    write_report(bench.run)
    bench.announce("report", str(bench.run.report))


def _write_missing_report(run: RunDir) -> None:
    """Of a complete run that was killed before its report was written."""
    from tunesmith.report import write_report

    if not run.report.exists():
        write_report(run)


def score_forecast(bench: Bench) -> None:
    """Hold the run against the plan that was made of it, where there is one."""
    from tunesmith.check.plan import score_plan

    scored = score_plan(load_config(bench.run.config, environ={}).config, read_summary(bench.run))
    if scored is not None:
        bench.tracker.summary(forecast=scored)
        parts = (f"{name} {one['error']:+.0%}" for name, one in scored.items() if isinstance(one, Mapping))
        bench.announce("forecast", f"against what happened: {', '.join(parts)}")


# --- verbs that do a part of it ---------------------------------------------------------------------------------------


def train_only(
    loaded: Loaded, *, resume: bool = False, fresh: bool = False, announce: Announce = silent
) -> Mapping[str, Any]:
    """Data and training, no grading and no export but the adapter."""
    with open_run(loaded, resume=resume, fresh=fresh, announce=announce) as bench:
        if bench is not None:
            check_first(bench, loaded)
            prepared, tokenizer, _ = prepare(bench)
            try_grader(bench, prepared)
            train(bench, load_base(bench), tokenizer, prepared, resume=resume)
            from tunesmith.report import write_report

            bench.tracker.summary(status="trained")
            write_report(bench.run)
    return read_summary(run_dir(loaded.config))


def prepare_only(loaded: Loaded, *, announce: Announce = silent) -> Prepared:
    """Build and prepare the data of a recipe, with every label proved."""
    with open_run(loaded, announce=announce) as bench:
        if bench is None:
            raise ConfigError(
                "this run is complete", place=str(run_dir(loaded.config).root), remedy="give another name"
            )
        prepared, _, _ = prepare(bench)
        return prepared


@contextmanager
def look(loaded: Loaded) -> Iterator[tuple[Prepared, Any]]:
    """The prepared data of a recipe and its tokenizer, without starting a run."""
    from tunesmith.data.prepare import prepare_dataset
    from tunesmith.model.load import load_tokenizer

    task = get_task(loaded.config)
    try:
        config, _ = with_built_data(loaded.config, task, run_dir(loaded.config).data, read_whole)
        tokenizer = load_tokenizer(config.model)
        yield prepare_dataset(config, task, tokenizer, cache_dir=config.cache_folder), tokenizer
    finally:
        task.close()


def export_run(root: Path, *, announce: Announce = silent) -> Mapping[str, Any]:
    """Write the exports of a trained run again, verified."""
    with reopen(root, announce) as bench:
        prepared, tokenizer, renderer = prepare(bench)
        model = train(bench, load_base(bench), tokenizer, prepared)
        export(bench, model, tokenizer, renderer, prepared)
        finish(bench)
    return read_summary(RunDir(root))


# --- small things -----------------------------------------------------------------------------------------------------


def load_base(bench: Bench) -> Any:
    """The untuned model."""
    with bench.stage("load"):
        from tunesmith.model.load import load_model

        return load_model(bench.config.model, precision=bench.config.train.precision)


def _require(findings: tuple[Finding, ...], what: str = "") -> None:
    errors = [f for f in findings if f.level == "error"]
    if errors:
        first = errors[0]
        what = what or f"{len(errors)} rows have wrong labels; the first"
        raise CheckFailed(f"{what}: {first.message}", place=first.place, remedy=first.remedy)


def _write_mask(run: RunDir, prepared: Prepared, tokenizer: Any) -> None:
    from tunesmith.data.show import mask

    run.mask.write_text(
        json.dumps([mask(prepared.train[i], tokenizer) for i in range(min(3, len(prepared.train)))]), encoding="utf-8"
    )


def compared_prompts(renderer: Renderer, prepared: Prepared) -> list[list[int]]:
    """Token ids of the prompts that an export is compared with the model on."""
    return [renderer.prompt_ids(example.prompt) for example in probes(prepared, 12)]


def probes(prepared: Prepared, most: int) -> list[Example]:
    """A few examples to compare an export with the model on: held-out ones, where there are any."""
    pools = [examples for examples in (*prepared.tests.values(), prepared.validation_examples) if examples]
    pools = pools or [[prepared.train.example(i) for i in range(min(most, len(prepared.train)))]]
    return [example for pool in pools for example in pool[: max(1, most // len(pools))]]


def _percent(result: Evaluation) -> str:
    value = result.accuracy.value
    return "not judged" if value is None else f"{100 * value:.1f} %"
