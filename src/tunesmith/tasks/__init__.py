"""What a model should be good at. Importing this package imports no torch; a task's own needs come with the task."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tunesmith.config.schema import ChatTask, CustomTask, MathsTask, RunConfig, Source, SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.types import Task

__all__ = ["get_task", "with_built_data"]


def get_task(config: RunConfig, environ: Mapping[str, str] | None = None) -> Task:
    """The task that a recipe names, ready to phrase and to grade.

    Args:
        config: the resolved settings.
        environ: where a task looks up references such as `env:NAME`; None is the process's own environment.

    Raises:
        ConfigError: a package the task needs is not installed, or a task of the user's cannot be imported or built.
    """
    settings = config.task
    if isinstance(settings, SqlTask):
        if missing := [name for name in ("psycopg", "sqlglot") if find_spec(name) is None]:
            raise ConfigError(
                f"the sql task needs {' and '.join(missing)}", place="task", remedy="pip install 'tunesmith[sql]'"
            )
        from tunesmith.tasks.sql.task import SqlTask as Sql

        return Sql(settings, environ=environ)
    if isinstance(settings, MathsTask):
        from tunesmith.tasks.maths.task import MathsTask as Maths

        return Maths(settings)
    if isinstance(settings, ChatTask):
        from tunesmith.tasks.chat.task import ChatTask as Chat

        return Chat(settings)
    return _custom(settings)


def get_word(word: str) -> Task | None:
    """The task that a word alone names, with its default settings; None where it names none."""
    if word == "maths":
        from tunesmith.tasks.maths.task import MathsTask as Maths

        return Maths(MathsTask())
    if word == "chat":
        from tunesmith.tasks.chat.task import ChatTask as Chat

        return Chat(ChatTask())
    return None


def with_built_data(config: RunConfig, task: Task, folder: Path) -> tuple[RunConfig, Mapping[str, int]]:
    """The settings with `data` pointing at what the task built from its databases, and records by set; where it builds
    none, the settings as they are.

    Args:
        config: the resolved settings.
        task: as `get_task` gave it; its server is asked.
        folder: where data sets are built, and where one that was built with the same settings is found again.

    Raises:
        DataError: no training example could be built.
    """
    settings = config.task
    if not isinstance(settings, SqlTask) or settings.build is None or config.data.train is not None:
        return config, {}
    from tunesmith.tasks.sql.build import SETS, build_dataset, read_built

    built = read_built(settings, folder, config.seed)
    if built is None:
        built = build_dataset(task.server(), settings, folder, config.seed)  # type: ignore[attr-defined]
    sources = {name: Source(path=str(built.files[name]), format="task") for name in SETS if built.counts[name]}
    if "train" not in sources:
        raise DataError("no training example could be built", place="task.build", remedy="raise task.build.examples")
    tests = {name.removeprefix("test_"): source for name, source in sources.items() if name != "train"}
    leaks = config.data.leaks
    if "unseen" in tests:  # the builder kept their skeletons out of training, and the gate holds it to that
        leaks = leaks.model_copy(update={"unseen_skeletons": [*leaks.unseen_skeletons, "unseen"]})
    update = {"train": sources["train"], "test": {**tests, **config.data.test}, "leaks": leaks}
    return config.model_copy(update={"data": config.data.model_copy(update=update)}), built.counts


def _custom(settings: CustomTask) -> Task:
    module_name, _, class_name = settings.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        # The module itself is missing, or one that it imports: the name says which.
        raise ConfigError(
            f"the module {module_name} cannot be imported: {error}",
            place="task.target",
            remedy="put the file beside the recipe, or install the package it is in",
        ) from error
    made = getattr(module, class_name, None)
    if made is None:
        raise ConfigError(
            f"the module {module_name} has no {class_name}",
            place="task.target",
            remedy=f"define it in {getattr(module, '__file__', module_name)}, or correct the name",
        )
    try:
        task = made(**settings.options)
    except TypeError as error:
        raise ConfigError(
            f"{settings.target} does not take these options: {error}", place="task.options", remedy="correct them"
        ) from error
    if not isinstance(task, Task):
        needed = ("name", "version", "examples", "grade", "constraint", "close")
        missing = ", ".join(name for name in needed if not hasattr(task, name))
        raise ConfigError(
            f"{settings.target} is not a task: it lacks {missing}",
            place="task.target",
            remedy="see tunesmith.types.Task for what a task has",
        )
    return task
