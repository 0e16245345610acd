"""The layers of a plain decoder as one autograd function each: fewer passes over memory, fewer multiplications.

They compute what transformers and PEFT compute, in the same type, and are held to them by tests. What is frozen gets no
gradient, temporaries are reused in place, and none of them can be differentiated twice.

The gradients' products with weights, half of the multiplications, may be computed in bfloat16 (mixed precision:
Micikevicius et al., 2018, arXiv 1710.03740; Kalamkar et al., 2019, arXiv 1905.12322); all else, and with it the loss,
keeps its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from tunesmith.model.lora import MERGE_FROM

_LOGITS = 1 << 24
"""Logits held at once."""
_LINES = 256
"""Products with tokens are made as long as a multiple of this where a kernel is compiled for every length."""


class Weights(NamedTuple):
    """A linear layer, with a LoRA adapter or without: W + scale B A."""

    base: Tensor
    """(out, in)."""
    bias: Tensor | None
    down: Tensor | None
    """A, (r, in)."""
    up: Tensor | None
    """B, (out, r)."""
    scale: float


def _members(flat: Sequence[Any], scales: Sequence[float]) -> list[Weights]:
    return [Weights(*flat[4 * at : 4 * at + 4], scale) for at, scale in enumerate(scales)]  # type: ignore[call-arg]


@cache
def multiplies(products: torch.dtype) -> bool:
    """Whether this processor has instructions for products of the type."""
    return products is not torch.bfloat16 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _factor(x: Tensor, products: torch.dtype) -> Tensor:
    """A factor of a product: in the type of products, or, where the processor has none of it and would take many times
    as long, rounded to it."""
    if x.dtype is products:
        return x
    rounded = x.to(products)
    return rounded if multiplies(products) else rounded.to(x.dtype)


def _tokens(x: Tensor, products: torch.dtype) -> Tensor:
    """`_factor` of one line a token; in another type than x's with lines of zeros up to a round number of lines:
    kernels are compiled for every new shape, and all are kept."""
    if x.dtype is products or not multiplies(products):
        return _factor(x, products)
    factor = x.new_zeros(-(-len(x) // _LINES) * _LINES, x.shape[1], dtype=products)
    factor[: len(x)] = x
    return factor


def adapted(x: Tensor, members: Sequence[Weights], products: torch.dtype) -> Tensor:
    """Linear layers of one input, side by side: x of shape (L, in) -> (L, sum of outs).

    Args:
        products: type that the gradients' products with whole weights are computed in; thin ones keep x's.
    """
    flat = [tensor for one in members for tensor in one[:4]]
    scales = tuple(one.scale for one in members)
    found: Tensor = _Adapted.apply(x, scales, products, *flat)  # type: ignore[no-untyped-call]  # torch
    return found


class _Adapted(torch.autograd.Function):
    """Counted in multiplications for each token, per member of size (out, in) with rank r:

    - forward and the input's gradient: 2 out in with W + scale B A formed once, and 2 r (out + in) more without;
    - gradients of A and B: out in through the gradient of the whole weight, or 2 r (out + in) through thin products.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: tuple[float, ...], products: torch.dtype, *flat: Tensor | None) -> Tensor:
        members = _members(flat, scales)
        sizes = [one.base.shape[0] for one in members]
        whole = sum(one.base.numel() for one in members)
        thin = sum(one.down.numel() + one.up.numel() for one in members if one.down is not None and one.up is not None)
        ctx.through_whole = thin * 2 > whole or any(one.base.requires_grad for one in members)
        merge = thin > whole * MERGE_FROM
        weight = None
        if merge:
            weight = x.new_empty(sum(sizes), x.shape[1])
            for one, place in zip(members, torch.split(weight, sizes), strict=True):
                if one.down is None or one.up is None:
                    place.copy_(one.base)
                else:
                    torch.addmm(one.base, one.up, one.down, alpha=one.scale, out=place)
            out = x @ weight.t()
        else:
            out = x.new_empty(len(x), sum(sizes))
        for one, part in zip(members, torch.split(out, sizes, dim=1), strict=True):
            if not merge:
                torch.mm(x, one.base.t(), out=part)
                if one.down is not None and one.up is not None:
                    part.addmm_(x @ one.down.t(), one.up.t(), alpha=one.scale)
            if one.bias is not None:
                part += one.bias
        ctx.scales, ctx.products, ctx.merged = scales, products, merge
        ctx.save_for_backward(x, *([weight] if weight is not None else []), *flat)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        weight = _factor(rest.pop(0), ctx.products) if ctx.merged else None
        members = _members(rest, ctx.scales)
        needs, found = ctx.needs_input_grad[3:], []
        factor, type_ = _tokens(grad, ctx.products), grad.dtype
        whole = (factor.t() @ _tokens(x, ctx.products)).to(type_) if ctx.through_whole and any(needs) else None
        d_x = (factor @ weight)[: len(grad)].to(type_) if weight is not None and ctx.needs_input_grad[0] else None
        start = 0
        for at, one in enumerate(members):
            size = one.base.shape[0]
            part = grad[:, start : start + size]
            d_base = d_bias = d_down = d_up = shrunk = None
            wants_x = weight is None and ctx.needs_input_grad[0]
            if wants_x:
                pulled, base = factor[:, start : start + size], _factor(one.base, ctx.products)
                if d_x is None:
                    d_x = (pulled @ base)[: len(grad)].to(type_)
                else:
                    d_x = d_x.addmm_(pulled, base) if base.dtype is type_ else d_x.add_((pulled @ base)[: len(grad)])
            if one.down is not None and one.up is not None:
                if whole is None or wants_x:
                    shrunk = (part @ one.up).mul_(one.scale)
                if wants_x and d_x is not None and shrunk is not None:
                    d_x.addmm_(shrunk, one.down)
                if whole is not None:
                    mine = whole[start : start + size]
                    d_up, d_down = (mine @ one.down.t()).mul_(one.scale), (one.up.t() @ mine).mul_(one.scale)
                elif needs[4 * at + 2] and shrunk is not None:
                    d_up, d_down = (part.t() @ (x @ one.down.t())).mul_(one.scale), shrunk.t() @ x
            if needs[4 * at] and whole is not None:
                d_base = whole[start : start + size]
            if needs[4 * at + 1]:
                d_bias = part.sum(0)
            found += [d_base, d_bias, d_down, d_up]
            start += size
        return d_x, None, None, *found


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / root mean square of its last dimension, times a weight that is not trained."""
    found: Tensor = _RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]  # torch
    return found


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        scaled: Tensor = (x * inverse).mul_(weight)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, inverse, weight = ctx.saved_tensors
        scaled = grad * weight
        along = (scaled * x).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(-x.shape[-1])
        return scaled.mul_(inverse).addcmul_(x, along), None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x of shape (L, heads, width), cos and sin (L, 1, width)."""
    found: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]  # torch
    return found


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        out = x * cos
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = grad.shape[-1] // 2
        out = grad * cos
        out[..., :half].addcmul_(grad[..., half:], sin[..., half:])
        out[..., half:].addcmul_(grad[..., :half], sin[..., :half], value=-1)
        return out, None, None


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, of both side by side: (L, 2 F) -> (L, F)."""
    found: Tensor = _SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]  # torch
    return found


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=1)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_up: Tensor = ctx.saved_tensors[0]
        gate, up = gate_up.chunk(2, dim=1)
        out = torch.empty_like(gate_up)
        d_gate, d_up = out.chunk(2, dim=1)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=d_gate)
        torch.mul(silu(gate), grad, out=d_up)
        return out


def label_loss(hidden: Tensor, head: Tensor, labels: Tensor, products: torch.dtype) -> Tensor:
    """Sum of the cross entropy, a few rows of logits at a time: (n, h), a head of (vocabulary, h) that is not trained.

    The gradient of the logits is known once they are, so it is taken through the head at once and no logits are kept.

    Args:
        products: type that the gradient's product with the head is computed in.
    """
    found: Tensor = _LabelLoss.apply(hidden, head, labels, products)  # type: ignore[no-untyped-call]  # torch
    return found


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, products: torch.dtype) -> Tensor:
        total = hidden.new_zeros(())
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        factor = _factor(head, products) if d_hidden is not None else head
        step = max(1, _LOGITS // head.shape[0])
        for start in range(0, len(hidden), step):
            part, wanted = hidden[start : start + step], labels[start : start + step, None]
            logits = part @ head.t()
            logits -= logits.amax(-1, keepdim=True)
            right = logits.gather(1, wanted)
            odds = logits.exp_()
            sums = odds.sum(-1, keepdim=True)
            total += (sums.log() - right).sum()
            if d_hidden is not None:
                odds.div_(sums)
                odds.scatter_add_(1, wanted, odds.new_full(wanted.shape, -1.0))
                d_hidden[start : start + step] = (_tokens(odds, products) @ factor)[: len(part)]
        ctx.d_hidden = d_hidden
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        d_hidden: Tensor = ctx.d_hidden * grad
        return d_hidden, None, None, None
