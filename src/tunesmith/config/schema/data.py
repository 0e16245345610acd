"""`data`: from records to rows of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tunesmith.config.schema.section import Section


class Source(Section):
    """Where records come from."""

    path: str
    """A file, a folder, a glob, `hf://owner/name` for a Hub data set, `qdrant://host:6333#collection` (or
    `qdrant:///folder#collection`) for a Qdrant collection, or `module:function` that yields dicts."""
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "task", "kept", "custom"] = "auto"
    """The shape of a record. `task` hands the fields to the task as they are; `kept` is a suite of failures that
    `tunesmith evaluate --keep-failures` wrote; `auto` looks at the first records and says what it found."""
    formatter: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:function` taking a record's fields and returning messages (or a list of them); with `format: custom`."""
    split: str = "train"
    """Split of a Hub data set."""
    max_samples: int | None = Field(None, ge=1)
    """Read only this many records."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Only records whose fields have these values: `{grade: 5}`, `{half: sealed}`."""

    @model_validator(mode="after")
    def _formatter_belongs_to_custom(self) -> Self:
        if (self.formatter is None) == (self.format == "custom"):
            raise ValueError("format: custom and formatter: module:function go together; give both or neither")
        return self


def _source_by_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


SourceField = Annotated[Source, BeforeValidator(_source_by_path)]


class Leaks(Section):
    """What training may have seen of the test sets. The same question is always left out of training."""

    near: Literal["allow", "warn", "drop", "error"] = "warn"
    """What to do about training rows that ask nearly the same as a test set does (with the same answer or the same
    values: a template filled otherwise is another question), or that contain its question word for word."""
    similarity: float = Field(0.7, gt=0.5, le=1)
    """From which Jaccard similarity of character 5-grams two questions are nearly the same. One word changed in a
    question of twelve leaves about 0.75."""
    unseen_skeletons: list[str] = Field(default_factory=list)
    """Test sets that claim that no query like theirs was trained on, values masked. A broken claim stops the run."""
    unseen_databases: list[str] = Field(default_factory=list)
    """Test sets that claim that their databases were not trained on. A broken claim stops the run."""
    against: list[SourceField] = Field(default_factory=list)
    """Further files of yours that nothing may be trained on, in any format: a test set that is graded elsewhere."""
    contaminated: Literal["warn", "drop", "error"] = "error"
    """What to do about training rows that repeat something of `against`."""
    shown: int = Field(5, ge=1)
    """How many offending pairs are shown of each kind; `tunesmith data leaks` shows all."""


class Data(Section):
    """From records to rows of tokens."""

    train: SourceField | None = None
    """Training records. May be left out when the task builds its own data."""
    validation: SourceField | None = None
    """Validation records; without it, `validation_share` of the training groups is set aside."""
    test: dict[str, SourceField] = Field(default_factory=dict)
    """Test sets by name, graded for base and tuned model, never trained on."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Share of the training examples set aside for validation, by hash of the group, so never by order."""
    max_length: int = Field(2048, ge=8)
    """Most tokens an example may have."""
    too_long: Literal["error", "drop", "shorten_prompt"] = "error"
    """What to do with a longer example: stop; leave it out and say so; or cut the start of its longest user turn.
    An answer is never cut."""
    max_record_bytes: int = Field(1_000_000, ge=1000)
    """A larger record is reported by size before anything reads it: it is usually a data dump in a prompt."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """The run stops when more than this share of the records would be dropped."""
    leaks: Leaks = Leaks()
    cache_dir: Path | None = None
    """Where prepared rows are kept; without it, `.cache` in `output_dir`."""

    @model_validator(mode="after")
    def _claims_are_of_test_sets(self) -> Self:
        claimed = {*self.leaks.unseen_skeletons, *self.leaks.unseen_databases}
        if missing := sorted(claimed - set(self.test)) if self.train is not None else []:
            raise ValueError(f"data.leaks speaks of test sets that are not there: {', '.join(missing)}")
        return self
