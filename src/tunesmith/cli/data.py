"""`tunesmith data`: make a data set, and look at it before anything is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson, Overrides, Recipe, Sets, announcing, load, print_json

data_app = typer.Typer(
    help="Make a data set, look at its mask, count its tokens.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command("build")
def data_build(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="Collect documents instead: qdrant://host:6333#collection, or a file.", metavar="URL"
        ),
    ] = None,
    collection: Annotated[str, typer.Option(help="Qdrant collection.")] = "",
    type: Annotated[str, typer.Option(help="Only documents of this type.")] = "",
    grade: Annotated[str, typer.Option(help="Only documents of this grade.")] = "",
    where: Annotated[list[str] | None, typer.Option(help="Only documents with FIELD=VALUE; may be repeated.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Which field is what, as question=FIELD, document=FIELD, ...")
    ] = None,
    validation_share: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the documents.")] = 0.05,
    test_share: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the documents.")] = 0.1,
    keep_personal: Annotated[bool, typer.Option(help="Do not mask addresses and numbers of people in chats.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data set.")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Make a data set: as `task.build` of a recipe says; or, with --from, from documents.

    `tunesmith data build maths --from qdrant://host:6333#exams --type exam --grade 5 -o data/grade5` reads, checks and
    splits a collection; `chat` does the same with transcripts. A recipe in place of the word brings its task settings.
    """
    if source is not None:
        from tunesmith.data.collect import Wanted, collect, pairs, typed
        from tunesmith.tasks import get_task, get_word

        collector, seed = get_word(str(recipe)), 0
        if collector is None:
            config = load(recipe, overrides, sets).config
            collector, seed = get_task(config), config.seed
        wanted = Wanted(
            source, collector.name, collection, type, grade, {k: typed(v) for k, v in pairs(where, "--where").items()},
            pairs(field, "--field"), validation_share, test_share, not keep_personal, seed,
        )  # fmt: skip
        with announcing(False, as_json) as announce:
            found = collect(wanted, collector, out, announce)
            announce("build", found.ledger.text())
            announce("build", ", ".join(f"{count:,} in {found.files[name]}" for name, count in found.counts.items()))
        if as_json:
            print_json({**found._asdict(), "ledger": found.ledger.figures()})
        return
    from tunesmith.data.sources import read_whole
    from tunesmith.tasks import build_data, get_task, with_build

    config = with_build(load(recipe, overrides, sets).config)
    task = get_task(config)
    try:
        with announcing(False, as_json) as announce:
            built = build_data(config, task, out, read_whole)
            assert built is not None
            announce("build", ", ".join(f"{count:,} in {built.files[name]}" for name, count in built.counts.items()))
    finally:
        task.close()
    if as_json:
        files = {name: str(path) for name, path in built.files.items()}
        print_json({"files": files, "counts": built.counts, "kinds": built.kinds, "left_out": built.rejected})


@data_app.command("show")
def data_show(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many examples.")] = 3,
    start: Annotated[int, typer.Option(min=0, help="Number of the first.")] = 0,
) -> None:
    """Training examples token by token; the trained ones are coloured."""
    from rich.console import Console

    from tunesmith import pipeline
    from tunesmith.data.show import show_example

    console = Console()
    with pipeline.look(load(recipe, overrides, sets)) as (prepared, tokenizer):
        for i in range(start, min(start + count, len(prepared.train))):
            console.print(show_example(prepared.train[i], tokenizer))
            console.print()


@data_app.command("stats")
def data_stats(recipe: Recipe, overrides: Overrides = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Lengths, trained tokens, what was dropped, and what sharing prefixes saves."""
    from tunesmith import pipeline
    from tunesmith.data.show import stats

    loaded = load(recipe, overrides, sets)
    with pipeline.look(loaded) as (prepared, _):
        found = stats(
            prepared.train, loaded.config.train.batch_size, loaded.config.train.max_tokens, loaded.config.seed
        )
    if as_json:
        print_json({**asdict(found), "ledger": prepared.ledger.figures()})
    else:
        print(found.text())
        print(prepared.ledger.text())


@data_app.command("leaks")
def data_leaks(
    recipe: Recipe,
    overrides: Overrides = None,
    sets: Sets = None,
    against: Annotated[
        list[str] | None, typer.Option(help="A further file that nothing may be trained on; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Training rows that a test set, or a test file of your own, has seen: every pair; exit code 1 if there is one."""
    from tunesmith import pipeline
    from tunesmith.data.leaks import leaks_of

    loaded = load(recipe, [*(overrides or []), "data.leaks.near=warn", "data.leaks.contaminated=warn"], sets)
    with pipeline.look(loaded) as (prepared, _):
        pairs, ledger = leaks_of(prepared, loaded.config.data, against or ()), prepared.ledger
    if as_json:
        print_json({"pairs": [asdict(pair) for pair in pairs], "ledger": ledger.figures()})
    else:
        print("\n".join(pair.sentence() for pair in pairs) or "no training row is like a held-out one")
        print(ledger.text())
    raise typer.Exit(1 if pairs else 0)
