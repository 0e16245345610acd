"""`limits`: when a run stops by itself, with a checkpoint."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tunesmith.config.schema.section import Section


class Limits(Section):
    """When to stop unasked. All calls of a run count together; what is saved is continued with a higher limit."""

    max_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Hours the run may take."""
    max_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What the run may cost, in the currency of `price_per_hour`."""
    price_per_hour: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What an hour of this machine costs."""
    preemption_url: str | None = Field("auto", pattern=r"^(auto|https?://.+)$")
    """Where to ask whether the machine is about to be taken. `auto` asks the metadata server of Google, Amazon (spot
    notice) or Azure (scheduled events) on a machine of theirs; a URL of your own answers TRUE, or as one of theirs does
    where its path is theirs; null asks nobody."""

    @model_validator(mode="after")
    def _cost_needs_a_price(self) -> Self:
        if self.max_cost is not None and self.price_per_hour is None:
            raise ValueError(
                "max_cost needs price_per_hour; set limits.price_per_hour, what an hour of this machine costs"
            )
        return self

    @property
    def hours(self) -> float | None:
        """The hours that both limits leave together."""
        by_cost = self.max_cost / self.price_per_hour if self.max_cost and self.price_per_hour else None
        return min((hours for hours in (self.max_hours, by_cost) if hours is not None), default=None)
