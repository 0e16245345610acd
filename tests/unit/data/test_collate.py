from __future__ import annotations

import numpy as np
import torch

from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.types import IGNORE, Tokens


def test_a_padded_cell_sees_itself_only_and_is_seen_by_none() -> None:
    def tokens(size: int) -> Tokens:
        ids = np.arange(2, 2 + size, dtype=np.int32)
        return Tokens(str(size), ids, np.where(ids > 3, ids, IGNORE).astype(np.int32))

    rows = [plant_forest([tokens(size)], 20)[0] for size in (7, 4)]
    batch = collate_rows(rows, pad_id=2)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "labels", "position_ids", "subtree_end"), (2, 7)
    )
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    index = torch.arange(7)
    sees = (index[None, :] <= index[:, None]) & (index[:, None] <= batch["subtree_end"][1][None, :])
    assert sees.tolist() == [[j <= i if i < 4 else j == i for j in range(7)] for i in range(7)]
    assert (batch["labels"][1][4:] == IGNORE).all()
    assert batch["labels"][1].tolist()[:4] == [IGNORE, 4, 5, IGNORE]
    assert (batch["input_ids"][1][4:] == 2).all()
