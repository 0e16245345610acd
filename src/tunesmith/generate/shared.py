"""Attention over what several sequences share, computed once.

A line of a batch is `[prefix] [its own prompt] [its answer]`. The prefix (a schema, a system prompt) is that of all
lines, a prompt that of all beams of its answer; neither is copied to a line. A step is one matrix product over the
whole batch for the prefix, one over its beams for each prompt, a small one per line for what it has written, and one
softmax over all (shared-prefix decoding, as in Hydragen, Juravsky et al., 2024, arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_PLAIN_ATTENTION = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types known to compute softmax(q k / scale) v and no more; each is held to `model.generate` by a test."""
_ATTENTION = "tunesmith_shared_prefix"
_SCORES = 1 << 26
"""Attention scores held at once; what has more is done a few lines at a time."""


class Part(Protocol):
    """Keys and values of one layer that lines share."""

    @property
    def length(self) -> int:
        """How many tokens a line sees."""

    def scores(self, query: Tensor, first: int) -> Tensor:
        """Of lines from number `first` on: (lines, kv heads, queries, size) to (lines, kv heads, queries, length)."""

    def weighed(self, weights: Tensor, first: int) -> Tensor:
        """Sums of values, likewise: (lines, kv heads, queries, length) to (lines, kv heads, queries, size)."""


class Prefix(NamedTuple):
    """What all lines begin with."""

    keys: Tensor
    """(kv heads, tokens, size)."""
    values: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[1]

    def scores(self, query: Tensor, first: int) -> Tensor:
        return _by_head(query, self.keys.transpose(1, 2))

    def weighed(self, weights: Tensor, first: int) -> Tensor:
        return _by_head(weights, self.values)


class Prompts(NamedTuple):
    """What the beams of each answer go on from: padded on the left."""

    keys: Tensor
    """(answers, kv heads, tokens, size)."""
    values: Tensor
    seen: Tensor
    """(answers, tokens), False at padding."""
    places: Tensor
    """(lines,): answer * most beams of an answer + number of the beam among its own."""
    most: int

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    def scores(self, query: Tensor, first: int) -> Tensor:
        found = self._by_answer(query, self.keys.transpose(2, 3), first)
        seen = self.seen[self.places[first : first + len(query)] // self.most]
        return found.masked_fill_(~seen[:, None, None], torch.finfo(found.dtype).min)

    def weighed(self, weights: Tensor, first: int) -> Tensor:
        return self._by_answer(weights, self.values, first)

    def _by_answer(self, lines: Tensor, shared: Tensor, first: int) -> Tensor:
        """(lines, heads, queries, a) by (answers, heads, a, b), the beams of an answer at once; those that it lacks are
        zeros."""
        _, heads, queries, width = lines.shape
        places = self.places[first : first + len(lines)]
        table = lines.new_zeros(len(shared) * self.most, heads, queries, width).index_copy_(0, places, lines)
        table = table.view(len(shared), self.most, heads, queries, width).transpose(1, 2)
        found = (table.flatten(2, 3) @ shared).view(len(shared), heads, self.most, queries, -1)
        return found.transpose(1, 2).flatten(0, 1)[places]


def _by_head(lines: Tensor, shared: Tensor) -> Tensor:
    """(lines, heads, queries, a) by (heads, a, b), all lines at once."""
    count, heads, queries, _ = lines.shape
    together = lines.transpose(0, 1).reshape(heads, count * queries, -1)
    return (together @ shared).view(heads, count, queries, -1).transpose(0, 1)


def shares_prefixes(model: Any) -> bool:
    """Whether attention and cache are of the plain kind that `attend_shared` computes."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = _transformer(model).config
    if config.model_type not in _PLAIN_ATTENTION:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def encode(model: Any, ids: list[int]) -> list[Prefix]:
    """A prefix, for each layer."""
    from transformers import DynamicCache

    cache = DynamicCache()
    model(input_ids=torch.tensor([ids], device=model.device), cache=cache, use_cache=True, logits_to_keep=1)
    return [Prefix(layer.keys[0], layer.values[0]) for layer in cache.layers]


@contextmanager
def attending(model: Any) -> Iterator[None]:
    """Within, the model attends through `attend_shared`."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, attend_shared)
    transformer = _transformer(model)
    before = transformer.config._attn_implementation
    transformer.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        transformer.set_attn_implementation(before)


def attend_shared(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    shared: Sequence[Sequence[Part]] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention over what lines share, and each line's own tokens.

    Args:
        query: (lines, heads, new, head size).
        key: own keys, (lines, key/value heads, own, head size); `value` likewise.
        attention_mask: True where a new token may see an own one, (lines, 1, new, own). What is shared is seen by all.
        shared: for every layer, the parts that stand before a line's own tokens; or none.

    Returns:
        (lines, new, heads, head size), and None for the weights.
    """
    lines, heads, new, size = query.shape
    parts = shared[module.layer_idx] if shared else ()
    length = key.shape[2] + sum(part.length for part in parts)
    step = max(1, _SCORES // (heads * new * length))
    found = [
        _attend(
            query[i : i + step] * scaling,
            key[i : i + step],
            value[i : i + step],
            attention_mask[i : i + step],
            parts,
            i,
        )
        for i in range(0, lines, step)
    ]
    output = found[0] if len(found) == 1 else torch.cat(found)
    return output.reshape(lines, heads, new, size).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, parts: Sequence[Part], first: int) -> Tensor:
    lines, heads, new, size = query.shape
    kv_heads, own = key.shape[1], key.shape[2]
    query = query.reshape(lines, kv_heads, -1, size)
    scores = (query @ key.transpose(2, 3)).view(lines, heads, new, own)
    # Filled with a finite number: a padding row that sees nothing must not become NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).view(lines, kv_heads, -1, own)
    every = torch.cat([*(part.scores(query, first) for part in parts), scores], dim=-1)
    weights = every.softmax(-1, dtype=torch.float32).to(value.dtype)
    *shared, last = torch.split(weights, [*(part.length for part in parts), own], dim=-1)
    output: Tensor = last @ value
    for part, share in zip(parts, shared, strict=True):
        output += part.weighed(share, first)
    return output


def _transformer(model: Any) -> Any:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
