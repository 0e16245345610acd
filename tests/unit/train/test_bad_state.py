"""K15: an optimizer's state of other shapes than the weights is named, before a step is taken with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tunesmith.errors import ModelError
from tunesmith.train.durable import _require_fitting


def optimizer(*shapes: tuple[int, ...]) -> torch.optim.Optimizer:
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    made = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    made.step()
    return made


@pytest.mark.parametrize("others", [[(2, 4), (3,)], [(2, 3)], [(2, 3), (3,), (1,)], [(3, 2), (3,)]])
def test_state_of_other_shapes_is_refused(others: list[tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match="other shapes than the weights") as refused:
        _require_fitting(optimizer((2, 3), (3,)), optimizer(*others).state_dict(), "checkpoint-3")
    assert refused.value.place == "checkpoint-3" and refused.value.remedy


def test_its_own_state_fits() -> None:
    made = optimizer((2, 3), (3,))
    _require_fitting(made, copy.deepcopy(made.state_dict()), "checkpoint-3")
    fresh: Any = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    _require_fitting(fresh, fresh.state_dict(), "checkpoint-0")
    _require_fitting(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]), {"odd": 1}, "checkpoint-0")
