"""What a model should be good at. Importing this package imports no torch; a task's own needs come with the task."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunesmith.config.schema import (
    ChatBuild,
    ChatTask,
    CustomTask,
    MathsBuild,
    MathsTask,
    RunConfig,
    Source,
    SqlBuild,
    SqlTask,
)
from tunesmith.errors import ConfigError, DataError
from tunesmith.types import Record, Task

if TYPE_CHECKING:
    from tunesmith.tasks.built import Built

Read = Callable[[Source, int], Sequence[Record]]
"""The records of a source, of at most so many bytes each: `tunesmith.data.sources.read_whole`."""

__all__ = ["build_data", "get_task", "look_in", "with_build", "with_built_data"]


def get_task(config: RunConfig, environ: Mapping[str, str] | None = None) -> Task:
    """The task that a recipe names, ready to phrase and to grade.

    Args:
        config: the resolved settings.
        environ: where a task looks up references such as `env:NAME`; None is the process's own environment.

    Raises:
        ConfigError: a package the task needs is not installed, or a task of the user's cannot be imported or built.
    """
    look_in(config.code_dir)
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

        return Chat(settings, environ=environ)
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


def with_built_data(config: RunConfig, task: Task, folder: Path, read: Read) -> tuple[RunConfig, Built | None]:
    """The settings with `data` pointing at what the task built, and what that is; where it builds none, the settings as
    they are and None.

    Args:
        config: the resolved settings.
        task: as `get_task` gave it; it builds.
        folder: where data sets are built, and where one that was built with the same settings is found again.
        read: for records of the user's that go into the data set.

    Raises:
        DataError: no training example could be built, or a record of the user's is no good.
    """
    built = None if config.data.train is not None else build_data(config, task, folder, read)
    if built is None:
        return config, None
    form: Literal["messages", "task"] = "messages" if task.name == "chat" else "task"
    sources = {name: Source(path=str(path), format=form) for name, path in built.files.items() if built.counts[name]}
    if "train" not in sources:
        raise DataError("no training example could be built", place="task.build", remedy="raise task.build.examples")
    tests = {name.removeprefix("test_"): source for name, source in sources.items() if name != "train"}
    leaks = config.data.leaks
    if "unseen" in tests:  # the builder kept their skeletons out of training, and the gate holds it to that
        leaks = leaks.model_copy(update={"unseen_skeletons": [*leaks.unseen_skeletons, "unseen"]})
    update = {"train": sources["train"], "test": {**tests, **config.data.test}, "leaks": leaks}
    return config.model_copy(update={"data": config.data.model_copy(update=update)}), built


def build_data(config: RunConfig, task: Task, out: Path, read: Read) -> Built | None:
    """The data set that the task makes itself, as `task.build` says; None where the recipe asks for none.

    What an earlier call with the same settings left in `out` is taken as it is.

    Raises:
        DataError: too little could be made, or a record of the user's is no good.
    """
    settings = config.task
    if isinstance(settings, CustomTask) or settings.build is None:
        return None
    if isinstance(settings, SqlTask):
        from tunesmith.tasks.sql.build import build_dataset, read_built

        file = settings.build.asked
        asked = read(Source(path=str(file)), config.data.max_record_bytes) if file is not None else ()
        built = read_built(settings, out, config.seed, asked)
        return built or build_dataset(task.server(), settings, out, config.seed, asked)  # type: ignore[attr-defined]
    if isinstance(settings, MathsTask):
        from tunesmith.tasks.maths.build import build_problems

        return build_problems(settings, out, config.seed)
    from tunesmith.tasks.chat.build import build_dialogues

    return build_dialogues(settings, out, config.seed)


def with_build(config: RunConfig) -> RunConfig:
    """The same settings, building data: with the defaults of `task.build` where the recipe has none.

    Raises:
        ConfigError: a task of the user's own builds no data.
    """
    settings = config.task
    if isinstance(settings, CustomTask):
        raise ConfigError("a task of your own builds no data", place="task.name", remedy="use task: sql, maths or chat")
    if settings.build is not None:
        return config
    defaults = {"sql": SqlBuild, "maths": MathsBuild, "chat": ChatBuild}
    return config.model_copy(update={"task": settings.model_copy(update={"build": defaults[settings.name]()})})


def look_in(folder: Path) -> None:
    """Have Python find modules in a folder, after everywhere else: no file beside a recipe may hide a library."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _custom(settings: CustomTask) -> Task:
    module_name, _, class_name = settings.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        # The module itself is missing, or one that it imports: the name says which.
        raise ConfigError(
            f"the module {module_name} cannot be imported: {error}",
            place="task.target",
            remedy="put the file beside the recipe, set code_dir to its folder, or install the package it is in",
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
