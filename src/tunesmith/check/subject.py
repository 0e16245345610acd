"""What is being checked: a recipe, and what it leads to, each part fetched when a check first asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tunesmith.check.weights import Weights, read_weights
from tunesmith.config.load import Loaded
from tunesmith.config.schema import RunConfig, Source
from tunesmith.data.sources import read_whole
from tunesmith.errors import CheckFailed, DataError
from tunesmith.rundir import RunDir
from tunesmith.tasks import get_task, look_in, with_built_data
from tunesmith.types import Task

if TYPE_CHECKING:
    from tunesmith.data.prepare import Prepared
    from tunesmith.data.render import Renderer


@dataclass(frozen=True)
class Preparation:
    """The data of a recipe, prepared so far as that can be done."""

    prepared: Prepared
    error: DataError | CheckFailed | None
    """Why a run would stop here; the rows are then those left when every faulty one is dropped."""
    ledger: tuple[Mapping[str, Any], ...]
    """What became of every row: place, split, outcome, reason."""
    ledger_path: Path
    """The file of that."""


class Subject:
    """A recipe under examination. A context manager, because a task may start a server.

    Args:
        loaded: settings with the origin of each.
        environ: variables that servers and trackers are named in; None is the process's own environment.
    """

    def __init__(self, loaded: Loaded, environ: Mapping[str, str] | None = None) -> None:
        self.loaded = loaded
        self.environ = environ
        self.run = RunDir(loaded.config.run_folder)
        look_in(loaded.config.code_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "task" in self.__dict__:
            self.task.close()

    @property
    def cache_dir(self) -> Path:
        """Where prepared rows are kept, by this check as by the run, which therefore finds them ready."""
        return self.loaded.config.cache_folder

    @cached_property
    def config(self) -> RunConfig:
        """The settings; where a task builds its data set, it is built first, in the run's own folder."""
        return with_built_data(self.loaded.config, self.task, self.run.data, read_whole)[0]

    @cached_property
    def task(self) -> Task:
        return get_task(self.loaded.config, self.environ)

    @cached_property
    def weights(self) -> Weights | None:
        """What the files of the base model say, read without torch; None where they are not on this machine."""
        return read_weights(self.loaded.config.model)

    @cached_property
    def tokenizer(self) -> Any:
        from tunesmith.model.load import load_tokenizer

        return load_tokenizer(self.loaded.config.model)

    @cached_property
    def preparation(self) -> Preparation:
        """Rows as the run would make them, or without the rows at which it would stop."""
        from tunesmith.data.prepare import prepare_dataset

        def prepare(config: RunConfig) -> Prepared:
            return prepare_dataset(config, self.task, self.tokenizer, cache_dir=self.cache_dir)

        config, stopped = self.config, None
        try:
            prepared = prepare(config)
        except (DataError, CheckFailed) as error:
            stopped = error
            asked = {"near": "warn", "contaminated": "warn", "unseen_skeletons": [], "unseen_databases": []}
            leaks = config.data.leaks.model_copy(update=asked)
            tolerant = config.data.model_copy(update={"max_dropped": 1.0, "too_long": "drop", "leaks": leaks})
            prepared = prepare(config.model_copy(update={"data": tolerant}))
        path = self.cache_dir / prepared.key / "ledger.jsonl"
        with path.open(encoding="utf-8") as lines:
            return Preparation(prepared, stopped, tuple(json.loads(line) for line in lines), path)

    @cached_property
    def renderer(self) -> Renderer:
        from tunesmith.data.render import Renderer

        return Renderer(self.tokenizer, self.loaded.config.model.end_token, thinks=self.preparation.prepared.thinks)

    @property
    def sources(self) -> dict[str, Source]:
        """The sources that the recipe names, by the key they are named at."""
        data = self.loaded.config.data
        named = {"data.train": data.train, "data.validation": data.validation}
        tests = {f"data.test.{name}": source for name, source in data.test.items()}
        return {key: source for key, source in (named | tests).items() if source is not None}


@contextmanager
def examine(loaded: Loaded, environ: Mapping[str, str] | None = None) -> Iterator[Subject]:
    """A `Subject` that is closed afterwards."""
    with Subject(loaded, environ) as subject:
        yield subject
