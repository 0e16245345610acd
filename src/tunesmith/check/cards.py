"""The table of cards: memory, speed, and price per hour with its date. The user's own file extends it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunesmith.errors import ConfigError

VARIABLE = "TUNESMITH_CARDS"
"""Environment variable that names the user's own table."""

Kind = Literal["bf16", "fp16", "fp32"]


class Price(BaseModel):
    """What an hour of a card costs, and how old that knowledge is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float = Field(gt=0)
    date: datetime.date
    source: str = ""


class Card(BaseModel):
    """One kind of GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    memory_gb: float = Field(gt=0)
    tflops: dict[Kind, Annotated[float, Field(gt=0)]]
    bandwidth_gb_s: float = Field(gt=0)
    matches: tuple[str, ...] = ()
    price_per_hour: Price | None = None

    def compute(self, precision: str) -> Kind:
        """The type a run computes in on this card under `train.precision`."""
        if precision in ("bf16", "fp16", "fp32"):
            return precision  # type: ignore[return-value]
        return "bf16" if "bf16" in self.tflops else "fp32"


def read_cards(path: Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, Card]:
    """The table that ships with the package, extended by the user's.

    Args:
        path: the user's file; None takes the one that the variable `TUNESMITH_CARDS` names, if any.
        environ: the environment; None is this process's.

    Raises:
        ConfigError: the user's file cannot be read, or says something else than cards.
    """
    named = (os.environ if environ is None else environ).get(VARIABLE)
    own = path or (Path(named) if named else None)
    table: dict[str, dict[str, Any]] = yaml.safe_load(
        resources.files(__package__).joinpath("cards.yaml").read_text("utf-8")
    )
    if own is not None:
        for name, entry in _read(own).items():
            table[name] = {**table.get(name, {}), **entry}
    try:
        return {name: Card(name=name, **entry) for name, entry in table.items()}
    except (ValidationError, TypeError) as error:
        said = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc'])) or 'entry'}: {first['msg']}"
        raise ConfigError(
            f"a card cannot be understood: {said}",
            place=str(own),
            remedy="write memory_gb, tflops: {bf16: ...}, bandwidth_gb_s and price_per_hour: {usd: 1.10, date: "
            "2026-11-25}",
        ) from error


def card_here(cards: Mapping[str, Card], device_name: str | None) -> Card | None:
    """The card of the table that is in this machine, by the name the driver gives it."""
    if device_name is None:
        return None
    return next((card for card in cards.values() if any(word in device_name for word in card.matches)), None)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        table = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"the table of cards cannot be read: {str(error).splitlines()[0]}",
            place=str(path),
            remedy="give a YAML file of cards by name",
        ) from error
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise ConfigError(
            "a table of cards maps a name to what is known of the card",
            place=str(path),
            remedy="write for example `A100 40GB: {price_per_hour: {usd: 1.10, date: 2026-11-25}}`",
        )
    return table
