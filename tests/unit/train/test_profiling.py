from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunesmith.train.fit import fit

Train = Callable[..., SimpleNamespace]


def events(made: Any, kind: str) -> list[dict[str, Any]]:
    return [one for line in made.run.events.read_text().splitlines() if (one := json.loads(line))["event"] == kind]


def test_a_profile_is_a_trace_and_the_ten_most_expensive_operations(train_run: Train) -> None:
    made = train_run(tracking={"report_to": [], "profile_steps": 2})
    fit(made.trainer, made.run, made.config)
    trace = json.loads(gzip.decompress(made.run.trace.read_bytes()))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::mm" in names or "aten::addmm" in names
    (event,) = events(made, "profile")
    assert event["step"] == 4 and event["steps"] == 2  # two to warm up, then two
    shares = [one["share"] for one in event["operations"]]
    assert len(shares) == 10 and shares == sorted(shares, reverse=True) and 0.3 < sum(shares) <= 1
    table = made.run.operations.read_text().splitlines()
    assert len(table) == 10 and event["operations"][0]["name"] in table[0]


@pytest.mark.parametrize(("steps", "last"), [(4, 6), (50, 6)])
def test_a_short_run_is_profiled_as_far_as_it_goes(train_run: Train, steps: int, last: int) -> None:
    made = train_run(tracking={"report_to": [], "profile_steps": steps})
    fit(made.trainer, made.run, made.config)
    assert events(made, "profile")[0]["step"] == last


def test_a_profile_changes_no_bit_of_the_result(train_run: Train) -> None:
    plain, profiled = train_run("a"), train_run("b", tracking={"report_to": [], "profile_steps": 3})
    weights = []
    for made in (plain, profiled):
        fit(made.trainer, made.run, made.config)
        weights.append({name: p for name, p in made.trainer.model.named_parameters() if "lora" in name})
    assert not plain.run.trace.exists()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
