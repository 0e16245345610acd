"""The command line: one short function per verb. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tunesmith import __version__
from tunesmith.cli.data import data_app
from tunesmith.cli.options import (
    AsJson,
    Debug,
    Fresh,
    LearningRate,
    MaxCost,
    MaxHours,
    MaxSteps,
    Name,
    NoSave,
    OutputDir,
    Overrides,
    Profile,
    QuickTest,
    Recipe,
    Resume,
    RunFolder,
    Sets,
    ShowConfig,
    announcing,
    load,
    print_json,
    say,
)
from tunesmith.errors import ConfigError, TunesmithError

app = typer.Typer(
    name="tunesmith",
    help="Turns a small open language model into a specialist, and proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")

_DISK = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EROFS: "name a folder that can be written with --output-dir",
    errno.EACCES: "give yourself permission, or name another folder with --output-dir",
    errno.EPERM: "give yourself permission, or name another folder with --output-dir",
    errno.EIO: "the disk reports an error; name a folder on another one with --output-dir",
}
"""What a disk may say, and what to do about it."""

_NAMES = {
    errno.EEXIST: "a file stands where a folder is needed: move it, or name another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it, or name another folder",
    errno.EISDIR: "a folder stands where a file is to be written: name a file",
}
"""The same of a name that was given."""

_CTRL_C = 130
"""What typer returns for it."""


def main() -> None:
    """Run the command line; a `TunesmithError` becomes its message and exit code, anything else keeps its traceback."""
    try:
        ended = app(standalone_mode=False)
    except TunesmithError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("stopped", 75)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno in _DISK:
            _fail(f"{place}{error.strerror}\n  remedy: {_DISK[error.errno]}; the same command continues", 4)
        if error.errno in _NAMES:
            _fail(f"{place}{error.strerror}\n  remedy: {_NAMES[error.errno]}", 4)
        _defect()
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own usage errors
            _fail(f"{error.format_message()}\n  remedy: see `tunesmith --help`", 2)
        _defect()
    # Neither `typer.Exit` nor Ctrl-C comes as an exception: what is returned is the code that it stands for.
    if ended == _CTRL_C:
        _fail("stopped; the same command continues", 75)
    if ended:
        raise SystemExit(ended)


def _defect() -> NoReturn:
    """An error nobody foresaw keeps its traceback; secrets that stand in it do not."""
    import traceback

    from tunesmith.config.secrets import redact

    print(redact(traceback.format_exc()), file=sys.stderr, end="")
    raise SystemExit(1)


def _fail(message: str, code: int) -> NoReturn:
    from tunesmith.config.secrets import redact

    print(f"error: {redact(message)}", file=sys.stderr)
    raise SystemExit(code)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    trust_remote_code: Annotated[
        str | None,
        typer.Option(help="Let a model's own code run: owner/name@COMMIT. No recipe can say so.", show_default=False),
    ] = None,
) -> None:
    if version:
        print(f"tunesmith {__version__}")
        raise typer.Exit
    if trust_remote_code is not None:
        from tunesmith.model.outside import allow_remote_code

        allow_remote_code(trust_remote_code)


# --- a run and its parts ----------------------------------------------------------------------------------------------


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    experiment_name: Name = None,
    max_steps: MaxSteps = None,
    learning_rate: LearningRate = None,
    output_dir: OutputDir = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    quick_test: QuickTest = False,
    debug: Debug = False,
    profile: Profile = False,
    no_save: NoSave = False,
    resume: Resume = False,
    fresh: Fresh = False,
    show_config: ShowConfig = False,
    as_json: AsJson = False,
) -> None:
    """Everything, in order: data, training, grading, exports, report. Given again, it continues."""
    loaded = load(
        recipe, overrides, sets,
        experiment_name=experiment_name, max_steps=max_steps, learning_rate=learning_rate, output_dir=output_dir,
        max_hours=max_hours, max_cost=max_cost, quick_test=quick_test, debug=debug, profile=profile, no_save=no_save,
    )  # fmt: skip
    if show_config:
        _show(loaded, as_json)
        return
    from tunesmith import pipeline

    with announcing(debug, as_json) as announce:
        summary = pipeline.run(loaded, resume=resume, fresh=fresh, announce=announce)
    _print_summary(summary, loaded.config.run_folder, as_json)


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    experiment_name: Name = None,
    max_steps: MaxSteps = None,
    learning_rate: LearningRate = None,
    output_dir: OutputDir = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    quick_test: QuickTest = False,
    debug: Debug = False,
    profile: Profile = False,
    resume: Resume = False,
    fresh: Fresh = False,
    show_config: ShowConfig = False,
    as_json: AsJson = False,
) -> None:
    """Data and training only; `evaluate`, `export` and `report` take the run from there."""
    loaded = load(
        recipe, overrides, sets,
        experiment_name=experiment_name, max_steps=max_steps, learning_rate=learning_rate, output_dir=output_dir,
        max_hours=max_hours, max_cost=max_cost, quick_test=quick_test, debug=debug, profile=profile,
    )  # fmt: skip
    if show_config:
        _show(loaded, as_json)
        return
    from tunesmith import pipeline

    with announcing(debug, as_json) as announce:
        summary = pipeline.train_only(loaded, resume=resume, fresh=fresh, announce=announce)
    _print_summary(summary, loaded.config.run_folder, as_json)


@app.command()
def prepare(
    recipe: Recipe, overrides: Overrides = None, sets: Sets = None, debug: Debug = False, as_json: AsJson = False
) -> None:
    """Build and prepare the data, with every label proved; what a run would train on."""
    from tunesmith import pipeline

    with announcing(debug, as_json) as announce:
        prepared = pipeline.prepare_only(load(recipe, overrides, sets), announce=announce)
    if as_json:
        print_json(prepared.ledger.figures())


@app.command()
def evaluate(
    run: RunFolder,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Whom to compare with: checkpoint-40, checkpoints, the folder of another run, model:NAME, or "
            "https://host/v1#model; may be repeated."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Variable with an endpoint's key, as env:NAME.")] = None,
    suite: Annotated[
        Path | None, typer.Option(help="Failures kept earlier, asked as one more test set (and added to).")
    ] = None,
    keep_failures: Annotated[
        bool, typer.Option("--keep-failures", help="Keep what the tuned model fails as a regression suite.")
    ] = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Grade the base and the tuned model of a run, and whoever else is named, and write its report again."""
    from tunesmith import contest

    with announcing(debug, as_json) as announce:
        summary = contest.evaluate_run(
            run, against=against or (), key=key, suite=suite, keep=keep_failures, announce=announce
        )
    _print_summary(summary, run, as_json)


@app.command()
def export(run: RunFolder, debug: Debug = False, as_json: AsJson = False) -> None:
    """Write the exports of a trained run, load each back and hold it against the trained model."""
    from tunesmith import pipeline

    with announcing(debug, as_json) as announce:
        summary = pipeline.export_run(run, announce=announce)
    if as_json:
        print_json(summary.get("exports", []))


@app.command()
def report(run: RunFolder) -> None:
    """Write the report page of a run from what lies in its folder, and print where it is."""
    from tunesmith.report import write_report
    from tunesmith.rundir import RunDir

    if not RunDir(run).config.exists():
        raise ConfigError(
            "there is no run here", place=str(run), remedy="give the folder of a run, for example runs/sql-demo"
        )
    print(write_report(RunDir(run)))


@app.command()
def resume(
    run: RunFolder,
    output_dir: OutputDir = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Continue a run wherever it stopped: from its own folder, or from its mirror's address on an empty machine."""
    from tunesmith import pipeline
    from tunesmith.checkpoints.mirror import read_address, restored_settings
    from tunesmith.config.load import load_saved
    from tunesmith.config.shortcuts import shortcuts
    from tunesmith.rundir import RunDir

    address = read_address(str(run))
    saved = RunDir(run).config
    if address is None and not saved.exists():
        raise ConfigError(
            "there is no run to resume here",
            place=str(run),
            remedy="give the folder of a run, for example runs/sql-demo, or its address in a mirror",
        )
    short = shortcuts(max_hours=max_hours, max_cost=max_cost)
    with announcing(debug, as_json) as announce:
        if address is not None:
            loaded = restored_settings(address, output_dir or Path("runs"), short)
        else:
            loaded = load_saved(saved, RunDir(run).origins, short)
        summary = pipeline.run(loaded, resume=True, announce=announce)
    _print_summary(summary, loaded.config.run_folder, as_json)


# --- settings ---------------------------------------------------------------------------------------------------------


@app.command()
def show(recipe: Recipe, overrides: Overrides = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Every setting of a recipe, with where its value came from."""
    _show(load(recipe, overrides, sets), as_json)


@app.command()
def check(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only what needs neither torch nor the whole data.")] = False,
    family: Annotated[list[str] | None, typer.Option("--family", help="Only this family; may be repeated.")] = None,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Load the model and show every setting as asked and as in force.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What would stop a run or spoil its result, found before it is paid for; every training row is proved."""
    from tunesmith.check import FAMILIES
    from tunesmith.check import check as look
    from tunesmith.rundir import RunDir

    if unknown := set(family or ()) - set(FAMILIES):
        raise ConfigError(
            f"there is no family {unknown.pop()!r}", place="--family", remedy=f"use some of: {', '.join(FAMILIES)}"
        )
    loaded = load(recipe, overrides, sets)
    if receipt:
        from tunesmith.pipeline import receipt_of

        taken = receipt_of(loaded)
        print_json(taken.figures()) if as_json else print(f"{taken.text()}\n{taken.sentence()}")
        raise typer.Exit(1 if taken.findings else 0)
    result = look(loaded, quick=quick, families=family, progress=None if as_json or quick else _looking_at)
    with suppress(OSError):  # a folder that cannot be written is among the findings
        result.save(RunDir(loaded.config.run_folder).check)
    say(result, as_json)
    raise typer.Exit(0 if result.passed else 1)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """This machine: Python, packages, GPU, disk, memory, credentials; what to do about each."""
    from tunesmith.check.doctor import examine_machine

    found = examine_machine()
    say(found, as_json)
    raise typer.Exit(0 if found.passed else 1)


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Run the worst real batch, some steps, a validation and a save here.")
    ] = False,
    settings_only: Annotated[
        bool, typer.Option("--settings-only", help="Look at no data; every example as long as allowed.")
    ] = False,
    examples: Annotated[int | None, typer.Option(min=1, help="Size of the training set, without data.")] = None,
    label_share: Annotated[float, typer.Option(min=0.001, max=1, help="Share of tokens trained, without data.")] = 0.25,
    cards: Annotated[Path | None, typer.Option(help="Your table of cards: prices, further cards.")] = None,
    as_json: AsJson = False,
) -> None:
    """Memory by component, time and money of a run on this machine and on every card, with intervals."""
    from tunesmith.check.plan import plan_text, read_scored
    from tunesmith.forecast import plan as forecast

    loaded = load(recipe, overrides, sets)
    with announcing(False, True) as announce:
        made = forecast(
            loaded, probe=probe, settings_only=settings_only, examples=examples, label_share=label_share, cards=cards,
            announce=announce,
        )  # fmt: skip
    if as_json:
        print_json(made.figures())
    else:
        print(plan_text(made, read_scored(loaded.config.output_dir)))


@app.command()
def prove(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    steps: Annotated[int, typer.Option(min=4, help="Optimizer steps of the rehearsal.")] = 20,
    at: Annotated[int, typer.Option(min=2, help="The step in whose save the run is killed.")] = 10,
    minutes: Annotated[float, typer.Option(min=0.1, help="Longest that a part may take.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """A rehearsal of the run on a slice: killed in a save, resumed, finished, exported, reloaded, graded."""
    from tunesmith.check.prove import prove as rehearse

    with announcing(False, as_json) as announce:
        proof = rehearse(load(recipe, overrides, sets), steps=steps, at=at, minutes=minutes, announce=announce)
    say(proof, as_json)
    raise typer.Exit(0 if proof.passed else 1)


@app.command()
def adopt(
    old: Annotated[
        Path, typer.Argument(help="A config of Axolotl, LLaMA-Factory, TRL or another tool.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write the recipe; without it, it is printed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn another tool's config into a recipe, and say what could not be carried over and why."""
    from tunesmith.config.adopt import adopt as convert

    adopted = convert(old)
    if as_json:
        print_json(
            {
                "recipe": adopted.recipe,
                "left": [{"key": i.key, "value": i.value, "reason": i.reason} for i in adopted.left],
            }
        )
        return
    if out is None:
        print(adopted.recipe, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(adopted.recipe, encoding="utf-8")
        print(f"wrote {out}: {len(adopted.carried)} settings carried over", file=sys.stderr)
    for item in adopted.left:
        print(f"left out: {item.key}: {item.value}\n    {item.reason}", file=sys.stderr)


@app.command()
def judge(recipe: Recipe, overrides: Overrides = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """How far the judge of a chat recipe agrees with examples that people labelled (`task.judge.labelled`)."""
    from tunesmith.tasks.chat.agreement import agreement_of

    found = agreement_of(load(recipe, overrides, sets).config)
    if as_json:
        print_json(found.figures())
    else:
        print(found.sentence())


# --- inside -----------------------------------------------------------------------------------------------------------


def _show(loaded: Any, as_json: bool) -> None:
    from tunesmith.config.show import show_lines

    lines = list(show_lines(loaded))
    if as_json:
        print_json({key: {"value": value, "origin": origin} for key, value, origin in lines})
        return
    width = max(len(f"{key}: {value}") for key, value, _ in lines if len(value) < 60)
    for key, value, origin in lines:
        print(f"{f'{key}: {value}':<{width}}  # {origin}")


def _looking_at(family: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[Kchecking {family} ...", end="", file=sys.stderr, flush=True)


def _print_summary(summary: Mapping[str, Any], root: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    from tunesmith.report.terminal import summary_text

    print(summary_text(summary, root))
