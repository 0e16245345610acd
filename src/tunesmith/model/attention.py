"""Attention over a row that is a prefix tree: token i sees token j exactly when `j <= i <= subtree_end[j]`.

Nothing of the model is patched. There are three ways to compute the rule, and tests hold them to the same numbers:

- `dense`: a mask of (L, L) booleans made once per row, for every model that takes one: the reference;
- `cascade`: for models whose attention is plain softmax attention, on a CPU, `attend_to_row`: calls of the flash kernel
  (`model/cascade.py`), no more of them than the tree needs;
- `flex`: on a GPU, the rule itself as a block mask for transformers' FlexAttention, whose kernel passes over blocks of
  128 by 128 that nobody sees. Windows and soft caps are part of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.model.cascade import Cascade

log = logging.getLogger(__name__)

_DENSE = ("sdpa", "eager")
_ROW = "tunesmith_row"
_FLEX = "flex_attention"
PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose attention is softmax(q k / scale) v and no more; each is held to the dense mask by a test."""


def attend_to_row(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    forest: Cascade | Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention of transformers over one row.

    Args:
        query: (1, heads, L, width); key and value may have fewer heads.
        attention_mask: not used; `forest` says what sees what.
        forest: of this row, in parts or as a dense mask.
        scaling: of the scores.

    Returns:
        (1, L, heads, width), and no weights.
    """
    from tunesmith.model.cascade import Cascade, cascade_attention

    if isinstance(forest, Cascade):
        # Under autocast rotary positions leave queries and keys in float32, and only torch's own attention casts them.
        query, key, value = (one[0].transpose(0, 1).to(value.dtype) for one in (query, key, value))
        return cascade_attention(query, key, value, forest, scaling)[None], None
    from torch.nn.functional import scaled_dot_product_attention as attend

    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return attend(query, key, value, attn_mask=forest, scale=scaling).transpose(1, 2).contiguous(), None


_FLEX_FAILS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Models with which FlexAttention was tried here and failed, and how."""


class Way(NamedTuple):
    """How the rows of a model are attended to."""

    name: Literal["cascade", "flex", "dense"]
    reason: str = ""
    """Why it is not a cheaper one; empty where there is none."""


def way_of(model: Any) -> Way:
    """The cheapest way that is known to be right for a model where it is."""
    import torch

    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return Way("dense", f"model.attn_implementation is {config._attn_implementation}")
    if getattr(config, "attention_dropout", 0.0):
        return Way("dense", "attention_dropout: the parts of a row would each draw its own")
    if model in _FLEX_FAILS:
        return Way("dense", _FLEX_FAILS[model])
    if model.device.type == "cuda":
        if not getattr(model, "_supports_flex_attn", False):
            return Way("dense", f"transformers has no FlexAttention for {config.model_type}")
        if torch.cuda.get_device_capability(model.device) < (8, 0):
            return Way("dense", "FlexAttention needs a GPU of compute capability 8.0 or newer")
        if find_spec("triton") is None:
            return Way("dense", "FlexAttention needs the package triton")
        if model.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return Way("dense", f"FlexAttention does not take {model.dtype}")
        return Way("flex")
    if model.device.type != "cpu":
        return Way("dense", f"there is no cheaper way on {model.device.type}")
    if config.model_type not in PLAIN:
        return Way("dense", f"the attention of {config.model_type} is not known to be plain softmax attention")
    if len(set(getattr(config, "layer_types", None) or [])) > 1:
        return Way("dense", "some layers have a window and some have none")
    return Way("cascade")


@contextmanager
def rows_in(model: Any, way: Way | None = None) -> Iterator[None]:
    """Within, forward and backward of `model` may be given rows by `row_inputs`, in the cheapest way or one given."""
    from transformers import AttentionInterface

    config = model.config.get_text_config()
    before = config._attn_implementation
    way = way or way_of(model)
    if way.name == "dense":
        _say(config.model_type, way.reason)
        yield
        return
    AttentionInterface.register(_ROW, attend_to_row)
    config._attn_implementation = _ROW if way.name == "cascade" else _FLEX
    try:
        yield
    finally:
        config._attn_implementation = before


@cache
def _say(model_type: str, reason: str) -> None:
    """Once for each."""
    log.info("rows of %s take a dense mask: %s", model_type, reason)


def row_inputs(model: Any, subtree_end: Tensor, position: Tensor) -> dict[str, Any]:
    """What `model` is called with, beside ids, so that it attends over a row of shape (1, L) as a tree.

    Raises:
        ModelError: see `model_mask`.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != _ROW:
        return {"attention_mask": model_mask(model, subtree_end, position), "position_ids": position}
    from tunesmith.model.cascade import plan_cascade

    window = getattr(config, "sliding_window", None)
    forest: Cascade | Tensor
    if window is not None and window <= int(position.max()):
        forest = forest_mask(subtree_end, position, window)
    else:
        forest = plan_cascade(subtree_end[0])
    return {"attention_mask": None, "position_ids": position, "forest": forest}


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


def block_mask(subtree_end: Tensor, position: Tensor, window: int | None = None) -> Any:
    """The same rule as `forest_mask` for FlexAttention, which asks it of pairs and passes over blocks without any."""
    from torch.nn.attention.flex_attention import create_block_mask

    size = subtree_end.shape[1]

    def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        seen = (column <= row) & (row <= subtree_end[batch, column])
        return seen if window is None else seen & (position[batch, row] - position[batch, column] < window)

    device = subtree_end.device
    return create_block_mask(
        sees, subtree_end.shape[0], None, size, size, device=str(device), _compile=device.type == "cuda"
    )


def model_mask(model: Any, subtree_end: Tensor, position: Tensor) -> Any:
    """The forest mask in the form this model's layers take: a tensor, a block mask, or one for each kind of layer.

    Raises:
        ModelError: the model's attention takes no dense mask, or is of a kind the rule does not describe.
    """
    config = model.config.get_text_config()
    implementation = config._attn_implementation
    if implementation not in (*_DENSE, _FLEX):
        raise ModelError(
            f"training rows need an attention that takes a dense mask, not {implementation!r}",
            place="model.attn_implementation",
            remedy="leave it out, or set it to sdpa",
        )
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        raise ModelError(
            f"layers of kind {', '.join(sorted(unknown))} carry a state from token to token, or look at blocks of "
            "tokens, so examples cannot share a row",
            place="model.name",
            remedy="use a model whose layers are plain or sliding attention",
        )
    if implementation == "sdpa" and getattr(config, "attn_logit_softcapping", None) is not None:
        raise ModelError(
            "the model soft-caps its attention scores, which sdpa leaves out",
            place="model.attn_implementation",
            remedy="set it to eager",
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and window >= subtree_end.shape[1]:
        window = None  # no position of this row is that far back
    if len(kinds) > 1:
        full = _mask(subtree_end, position, None, model, implementation)
        sliding = full if window is None else _mask(subtree_end, position, window, model, implementation)
        return {"full_attention": full, "sliding_attention": sliding}
    windowed = window is not None and (kinds == {"sliding_attention"} or not getattr(config, "layer_types", None))
    return _mask(subtree_end, position, window if windowed else None, model, implementation)


def require_isolation(model: Any) -> None:
    """Compute two short examples in one row and alone, and compare: examples of a row must not feel each other.

    A model may take the mask and the positions and still look elsewhere (at the place in the row, at a state), and
    would then train on something that is never asked of it. Where FlexAttention alone fails in that, the rows of the
    model take a dense mask from then on.

    Raises:
        ModelError: the model does not compute rows as it computes their examples.
    """
    import torch

    config = model.config.get_text_config()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, min(config.vocab_size, 1000), (24,), generator=draw).tolist()
    prefix, first, second = ids[:12], ids[12:18], ids[18:]
    last = len(ids) - 1

    def logits(tokens: list[int], **row: Any) -> Tensor:
        given = torch.tensor([tokens], device=model.device)
        found: Tensor = model(input_ids=given, use_cache=False, **row).logits[0].float()
        return found

    training, way = model.training, way_of(model)
    model.eval()
    try:
        with torch.no_grad():
            ends = [last] * len(prefix) + [17] * len(first) + [last] * len(second)
            positions = torch.tensor([[*range(18), *range(12, 18)]], device=model.device)
            with rows_in(model):
                row = logits(ids, **row_inputs(model, torch.tensor([ends], device=model.device), positions))
            alone = torch.cat([logits(prefix + first), logits(prefix + second)[12:]])
    except (TypeError, ValueError, RuntimeError) as error:
        if way.name == "flex":
            _FLEX_FAILS[model] = f"FlexAttention failed: {str(error).strip().partition(chr(10))[0][:200]}"
            return require_isolation(model)
        raise ModelError(
            f"the model does not take rows of several examples: {error}",
            place="model.name",
            remedy="use a model whose layers are plain attention",
        ) from error
    finally:
        model.train(training)
    error_share = float((row - alone).abs().mean() / alone.std())
    if way.name == "flex" and not error_share < 0.1:
        _FLEX_FAILS[model] = f"FlexAttention gave other logits, by {error_share:.0%} of their spread"
        return require_isolation(model)
    if not error_share < 0.1:  # rounding in 16 bits stays below 0.02; a NaN fails as well
        raise ModelError(
            f"examples in one row change each other's logits (by {error_share:.0%} of their spread), so this model's "
            "attention is not told by the mask and the positions alone",
            place="model.name",
            remedy="use a model whose layers are plain attention",
        )


def _mask(subtree_end: Tensor, position: Tensor, window: int | None, model: Any, implementation: str) -> Any:
    """SDPA takes booleans; the eager attention adds its mask to the scores; FlexAttention asks the rule itself."""
    if implementation == _FLEX:
        return block_mask(subtree_end, position, window)
    seen = forest_mask(subtree_end, position, window)
    if implementation == "sdpa":
        return seen
    import torch

    blocked = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return blocked.masked_fill(~seen, torch.finfo(model.dtype).min)
