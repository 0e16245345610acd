"""Attention over a row that is a prefix tree: token i sees token j exactly when `j <= i <= subtree_end[j]`.

The rule is handed to the model as the mask it already takes, so nothing of the model is patched. This is the reference
backend, a dense mask: (L, L) booleans for a row of L tokens, once per row and not once per layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_DENSE = ("sdpa", "eager")


def forest_mask(subtree_end: Tensor, position: Tensor, window: int | None = None) -> Tensor:
    """Which token sees which, of shape (B, 1, L, L), True where row i may look at column j.

        system
        +-- question 1 -- answer 1        answer 1 sees question 1 and system,
        +-- question 2 -- answer 2        not question 2, which stands between them in the row

    Args:
        subtree_end: (B, L), last index of each token's subtree.
        position: (B, L), depth of each token.
        window: for sliding-window attention, how many positions back a token sees, itself included.
    """
    import torch

    at = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    seen = (at[None, :, None] >= at[None, None, :]) & (at[None, :, None] <= subtree_end[:, None, :])
    if window is not None:
        seen &= position[:, :, None] - position[:, None, :] < window
    return seen[:, None]


def model_mask(model: Any, subtree_end: Tensor, position: Tensor) -> Tensor | dict[str, Tensor]:
    """The forest mask in the form this model's layers take.

    Raises:
        ModelError: the model's attention takes no dense mask, or is of a kind the rule does not describe.
    """
    config = model.config.get_text_config()
    implementation = config._attn_implementation
    if implementation not in _DENSE:
        raise ModelError(
            f"training rows need an attention that takes a dense mask, not {implementation!r}",
            place="model.attn_implementation",
            remedy="leave it out, or set it to sdpa",
        )
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        raise ModelError(
            f"layers of kind {', '.join(sorted(unknown))} carry a state from token to token, so examples cannot share a row",
            place="model.name",
            remedy="use a model whose layers are plain attention",
        )
    window = getattr(config, "sliding_window", None)
    if len(kinds) > 1:
        return {
            "full_attention": _as_taken(forest_mask(subtree_end, position), model, implementation),
            "sliding_attention": _as_taken(forest_mask(subtree_end, position, window), model, implementation),
        }
    windowed = window is not None and (kinds == {"sliding_attention"} or not getattr(config, "layer_types", None))
    return _as_taken(forest_mask(subtree_end, position, window if windowed else None), model, implementation)


def _as_taken(seen: Tensor, model: Any, implementation: str) -> Tensor:
    """SDPA takes booleans; the eager attention adds its mask to the scores."""
    if implementation == "sdpa":
        return seen
    import torch

    blocked = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return blocked.masked_fill(~seen, torch.finfo(model.dtype).min)
