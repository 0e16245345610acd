"""What several verbs take, and how they load settings and speak to people and machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

if TYPE_CHECKING:
    from tunesmith.config.load import Loaded


class Sayable(Protocol):
    """What a verb found."""

    def figures(self) -> Any:
        """For machines."""

    def text(self) -> str:
        """For people."""


Recipe = Annotated[Path, typer.Argument(help="A recipe: a YAML file of settings.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run, for example runs/sql-demo.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings to change, as section.key=value.", show_default=False, metavar="[section.key=value]..."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "--override", help="A setting to change, as section.key=value; may be repeated."),
]
Name = Annotated[str | None, typer.Option("--experiment-name", help="Name of the run.")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
OutputDir = Annotated[Path | None, typer.Option(help="Folder that holds runs.")]
MaxHours = Annotated[float | None, typer.Option(help="Stop with a checkpoint after so many hours of this run.")]
MaxCost = Annotated[float | None, typer.Option(help="The same by cost; needs limits.price_per_hour.")]
QuickTest = Annotated[bool, typer.Option("--quick-test", help="20 steps on a few examples, to see every stage work.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log every step and what the libraries say.")]
Profile = Annotated[bool, typer.Option("--profile", help="Measure three steps: a trace, and what cost most.")]
NoSave = Annotated[bool, typer.Option("--no-save", help="Write no exports.")]
Resume = Annotated[bool, typer.Option("--resume", help="Insist on continuing: an error where there is no such run.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Set a run of this name aside and start anew.")]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print the settings with their origin, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def load(recipe: Path, overrides: list[str] | None, sets: list[str] | None, **short: Any) -> Loaded:
    """The settings of a recipe with what the command line says; `short` are the flags of `shortcuts`."""
    from tunesmith.config.load import load_config
    from tunesmith.config.shortcuts import shortcuts

    loaded = load_config(recipe, [*shortcuts(**short), *(overrides or []), *(sets or [])])
    for note in loaded.notes:
        print(f"note: {note.place}: {note.message}", file=sys.stderr)
    return loaded


@contextmanager
def announcing(debug: bool, as_json: bool) -> Iterator[Any]:
    """Stages as they finish, for a person; nothing on standard output when a machine reads it."""
    from rich.console import Console

    from tunesmith.config.secrets import Redacting

    console = Console(stderr=as_json, highlight=False)
    logging.getLogger("tunesmith").setLevel(logging.DEBUG if debug else logging.INFO)
    if logging.lastResort is not None:  # what shows warnings where nobody set logging up
        logging.lastResort.setFormatter(Redacting())

    def announce(stage: str, outcome: str) -> None:
        console.print(f"[bold]{stage:>11}[/bold]  {outcome.replace('[', chr(92) + '[')}", soft_wrap=True)

    yield announce


def print_json(value: Any) -> None:
    """A result for a machine."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def say(found: Sayable, as_json: bool) -> None:
    """What was found, for a person or a machine."""
    if as_json:
        print_json(found.figures())
    else:
        print(found.text())
