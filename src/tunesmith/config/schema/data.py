"""`data`: from records to rows of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tunesmith.config.schema.section import Section


class Source(Section):
    """Where records come from."""

    path: str
    """A file, a folder, a glob, `hf://owner/name` for a Hub data set, or `module:function` that yields dicts."""
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
    cache_dir: Path | None = None
    """Where prepared rows are kept; without it, `.tunesmith/cache` beside the recipe's output directory."""
