"""Keys and values of what a batch has read and written, as its beams fork and die."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import ConfigError
from tunesmith.generate.shared import Prefix, Prompts


class SharedCache:
    """For models that attend through `attend_shared`: a prompt is kept once for all beams of its answer, so that beams
    that change places take only what they have written with them.

    Args:
        prefix: for each layer, what all prompts begin with; empty where they share nothing.
    """

    def __init__(self, prefix: Sequence[Prefix]) -> None:
        from transformers import DynamicCache

        self.start = prefix[0].length if prefix else 0
        """Position of the first token after the prefix."""
        self._prefix = prefix
        self._prompts: list[Prompts] = []
        self._written = DynamicCache()
        self._seen = torch.empty(0)

    def read(self, seen: Tensor) -> dict[str, Any]:
        """What the model is called with to read prompts: (answers, tokens), False at padding on the left."""
        tokens = seen.shape[1]
        before = torch.ones(tokens, tokens, dtype=torch.bool, device=seen.device).tril()
        self._seen = seen
        mask = (seen[:, None, :] & before)[:, None]
        return {"cache": self._written, "attention_mask": mask, "shared": [(one,) for one in self._prefix]}

    def go_on(self, rows: Tensor, beams: Sequence[int]) -> dict[str, Any]:
        """What it is called with to read one token more.

        Args:
            rows: for each line from now on, the one that it goes on from.
            beams: lines of each answer from now on; answers that have none leave the batch.
        """
        if not self._prompts:
            self._keep_prompts()
        elif not _is_unchanged(rows, self._prompts[0].places):
            self._written.batch_select_indices(rows)
        self._place(torch.tensor(beams, device=rows.device))
        written = self._written.get_seq_length() + 1
        mask = torch.ones(len(rows), 1, 1, written, dtype=torch.bool, device=rows.device)
        before: Sequence[tuple[Prefix, ...]] = [(one,) for one in self._prefix] or [()] * len(self._prompts)
        shared = [(*parts, prompts) for parts, prompts in zip(before, self._prompts, strict=True)]
        return {"cache": self._written, "attention_mask": mask, "shared": shared}

    def _keep_prompts(self) -> None:
        """What was read becomes the prompts; what is written begins."""
        from transformers import DynamicCache

        lines = torch.arange(len(self._seen), device=self._seen.device)
        self._prompts = [Prompts(layer.keys, layer.values, self._seen, lines, 1) for layer in self._written.layers]
        self._written = DynamicCache()

    def _place(self, beams: Tensor) -> None:
        going = beams > 0
        if not bool(going.all()):
            self._prompts = [
                one._replace(keys=one.keys[going], values=one.values[going], seen=one.seen[going])
                for one in self._prompts
            ]
        beams = beams[going]
        most = int(beams.max())
        taken = torch.arange(most, device=beams.device) < beams[:, None]
        places = taken.flatten().nonzero()[:, 0]
        self._prompts = [one._replace(places=places, most=most) for one in self._prompts]


class PaddedCache:
    """For any other model whose cache can be reordered: every line has all of its keys and values.

    Raises:
        ConfigError: the model's cannot.
    """

    start = 0

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        self._cache = DynamicCache(config=model.config)
        self._seen = torch.empty(0)
        if not self._cache.layers or not all(isinstance(layer, DynamicLayer) for layer in self._cache.layers):
            raise ConfigError(
                f"several beams need a cache of keys and values, and {model.config.model_type!r} keeps another kind",
                place="generate.beams",
                remedy="set generate.beams: 1",
            )

    def read(self, seen: Tensor) -> dict[str, Any]:
        """As `SharedCache.read`."""
        self._seen = seen
        return {"cache": self._cache, "attention_mask": seen.long()}

    def go_on(self, rows: Tensor, beams: Sequence[int]) -> dict[str, Any]:
        """As `SharedCache.go_on`."""
        if not _is_unchanged(rows, self._seen):
            self._cache.batch_select_indices(rows)
            self._seen = self._seen[rows]
        return self.read(torch.cat([self._seen, self._seen.new_ones(len(rows), 1)], dim=1))


def _is_unchanged(rows: Tensor, before: Tensor) -> bool:
    return torch.equal(rows, torch.arange(len(before), device=rows.device))
