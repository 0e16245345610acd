"""Rows -> tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.types import IGNORE, Row

if TYPE_CHECKING:
    import torch


def collate_rows(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Stack rows, padded on the right to the longest.

    A padded cell sees itself and nothing else, and nothing sees it: a cell that saw nothing would make the softmax of
    its attention NaN. It has no label.

    Args:
        rows: B rows, at least one.
        pad_id: token id of the padding; any id will do, it may be the end token's.

    Returns:
        `input_ids`, `labels` (already shifted), `position_ids` and `subtree_end`, each int64 of shape (B, L).
    """
    import torch

    shape = (len(rows), max(len(row.input_ids) for row in rows))
    input_ids = np.full(shape, pad_id, np.int64)
    labels = np.full(shape, IGNORE, np.int64)
    position_ids = np.zeros(shape, np.int64)
    subtree_end = np.tile(np.arange(shape[1], dtype=np.int64), (shape[0], 1))
    for at, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[at, :size] = row.input_ids
        labels[at, :size] = row.labels
        position_ids[at, :size] = row.position
        subtree_end[at, :size] = row.subtree_end
    return {
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(position_ids),
        "subtree_end": torch.from_numpy(subtree_end),
    }
