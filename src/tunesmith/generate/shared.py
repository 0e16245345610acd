"""Attention over a prefix that many sequences share, computed once.

The keys and values of the prefix are computed at batch size 1, and every step attends to them without copying them to
each sequence: one matrix product over the whole batch for the prefix, a small one per sequence for its own tokens, one
softmax over both (shared-prefix decoding, as in Hydragen, Juravsky et al., 2024, arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_PLAIN_ATTENTION = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types known to compute softmax(q k / scale) v and no more; each is held to `model.generate` by a test."""
_ATTENTION = "tunesmith_shared_prefix"
_SCORES = 1 << 26
"""Attention scores held at once; a longer prefill is done a few sequences at a time."""

Prefix = list[tuple[Tensor, Tensor]]
"""For each layer, keys and values of shape (key/value heads, tokens, head size)."""


def shares_prefixes(model: Any) -> bool:
    """Whether attention and cache are of the plain kind that `attend_shared` computes."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = _transformer(model).config
    if config.model_type not in _PLAIN_ATTENTION:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def encode(model: Any, ids: list[int]) -> Prefix:
    """Keys and values of a prefix."""
    from transformers import DynamicCache

    cache = DynamicCache()
    model(input_ids=torch.tensor([ids], device=model.device), cache=cache, use_cache=True, logits_to_keep=1)
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]


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
    shared_prefix: Prefix | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention over a prefix that all sequences share, and each sequence's own tokens.

    Args:
        query: (batch, heads, new, head size).
        key: own keys, (batch, key/value heads, own, head size); `value` likewise.
        attention_mask: True where a new token may see an own one, (batch, 1, new, own). The prefix is seen by all.
        shared_prefix: keys and values of the prefix for every layer, or None.

    Returns:
        (batch, new, heads, head size), and None for the weights.
    """
    batch, heads, new, size = query.shape
    prefix = None if shared_prefix is None else shared_prefix[module.layer_idx]
    length = key.shape[2] + (0 if prefix is None else prefix[0].shape[1])
    step = max(1, _SCORES // (heads * new * length))
    parts = [
        _attend(
            query[i : i + step] * scaling, key[i : i + step], value[i : i + step], attention_mask[i : i + step], prefix
        )
        for i in range(0, batch, step)
    ]
    output = parts[0] if len(parts) == 1 else torch.cat(parts)
    return output.reshape(batch, heads, new, size).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, prefix: tuple[Tensor, Tensor] | None) -> Tensor:
    batch, heads, new, size = query.shape
    kv_heads, own = key.shape[1], key.shape[2]
    query = query.reshape(batch, kv_heads, -1, size)
    scores = (query @ key.transpose(2, 3)).view(batch, heads, new, own)
    # Filled with a finite number: a padding row that sees nothing must not become NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).view(batch, kv_heads, -1, own)
    if prefix is None:
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    keys, values = prefix
    together = query.transpose(0, 1).reshape(kv_heads, -1, size)
    before = (together @ keys.transpose(1, 2)).view(kv_heads, batch, -1, keys.shape[1]).transpose(0, 1)
    weights = torch.cat([before, scores], dim=-1).softmax(-1, dtype=torch.float32).to(value.dtype)
    length = keys.shape[1]
    from_prefix = weights[..., :length].transpose(0, 1).reshape(kv_heads, -1, length) @ values
    return weights[..., length:] @ value + from_prefix.view(kv_heads, batch, -1, size).transpose(0, 1)


def _transformer(model: Any) -> Any:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
