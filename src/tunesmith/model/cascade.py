"""Attention over a row by calls of the flash kernel, one for each part, merged by their log-sum-exps.

A row is a prefix tree, so what its tokens see falls into parts that need no (L, L) mask:

    trunk            every token of a long shared segment sees those before it          a causal call
    trunk | answers  everything that hangs off a long segment sees the whole of it      a call without a mask
    answers          short subtrees see themselves, many at once, padded                a call with a small mask

Every part's softmax has its own sum; the parts of one query are weighed by them (Hydragen, Juravsky et al., 2024, arXiv
2402.05099). Backward, the flash kernel is given the merged output and log-sum-exp, with which its formula for a part
gives that part's share of the whole gradient. Nothing of size L squared is held.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LONG = 32
"""A shared segment of at least this many tokens is computed as a part of its own; the keys of a shorter one are
repeated for each subtree under it."""
_TREE = 128
"""Subtrees of up to this many tokens are computed whole, under a mask."""
_CHAIN = 256
"""Unbranched stretches from this length on are a causal call each, which skips half of the work."""
_WIDTH = 32
"""Lengths of padded subtrees are rounded up to multiples of this, and equal ones computed together."""
_HOLD = 48
"""Neighbouring subtrees share a place in a padded batch while they fit in this many tokens."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Span(NamedTuple):
    """Queries [start, stop) see all keys [first, last), or those up to themselves."""

    start: int
    stop: int
    first: int
    last: int
    causal: bool


class Batch(NamedTuple):
    """Short subtrees side by side, padded to one size."""

    queries: Tensor
    """(n, C) which query stands at each place; padded places repeat one of their subtree."""
    keys: Tensor
    """(n, K) likewise for keys."""
    mask: Tensor
    """(n, 1, C, K), 0 where a place sees a key and -inf elsewhere; every place sees at least one."""
    padded: Tensor
    """(n, C, 1, 1), True at places that stand for nothing."""
    places: Tensor
    """Where, in the n * C places, the queries of `targets` stand."""
    targets: Tensor
    """The queries of this batch, each once."""


class Cascade(NamedTuple):
    """How the attention of one row is computed. Every query is in one batch or causal span, and in any number ahead."""

    size: int
    """Queries."""
    alone: list[Span]
    """Causal spans, where a query's own segment is."""
    batches: list[Batch]
    ahead: list[Span]
    """Spans of what stands before a segment: merged into what the others gave."""


def plan_cascade(subtree_end: Tensor, queries: Tensor | None = None) -> Cascade:
    """Cut one row into parts.

    Args:
        subtree_end: (L,), last index of each token's subtree.
        queries: ascending tokens whose attention is wanted; None for all.
    """
    ends: list[int] = subtree_end.tolist()
    asked = list(range(len(ends))) if queries is None else queries.tolist()
    before = [0] * (len(ends) + 1)  # how many queries stand before a token
    for token in asked:
        before[token + 1] = 1
    for token in range(len(ends)):
        before[token + 1] += before[token]
    alone: list[Span] = []
    ahead: list[Span] = []
    short: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []

    def see(start: int, stop: int, first: int, last: int, causal: bool = False) -> None:
        if before[stop] > before[start]:
            (alone if causal else ahead).append(Span(before[start], before[stop], first, last, causal))

    def own(start: int, stop: int, carried: tuple[tuple[int, int], ...], chain: bool) -> None:
        if before[stop] == before[start]:
            return
        if chain and stop - start >= _CHAIN and before[stop] - before[start] == stop - start:
            see(start, stop, start, stop, causal=True)
            for first, last in carried:
                see(start, stop, first, last)
        else:
            short.append((start, stop, carried))

    pending: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(0, len(ends), ())]
    while pending:
        start, stop, carried = pending.pop()
        while start < stop:
            end = ends[start] + 1
            fork = next((at for at in range(start, end) if ends[at] != end - 1), end)
            if fork == end or end - start <= _TREE:
                own(start, end, carried, chain=fork == end)
            else:
                own(start, fork, carried, chain=True)
                if fork - start >= _LONG:
                    see(fork, end, start, fork)
                    pending.append((fork, end, carried))
                else:
                    pending.append((fork, end, (*carried, (start, fork))))
            start = end
    batches = _batches(sorted(short), ends, asked, before, subtree_end.device)
    return Cascade(len(asked), alone, batches, ahead)


def _batches(
    short: list[tuple[int, int, tuple[tuple[int, int], ...]]],
    ends: list[int],
    asked: list[int],
    before: list[int],
    device: torch.device,
) -> list[Batch]:
    """Neighbours under the same carried segments together while they fit, then those of one size in a batch."""
    held: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []
    for start, stop, carried in short:
        if held and held[-1][1:] == (start, carried) and stop - held[-1][0] <= _HOLD:
            held[-1] = (held[-1][0], stop, carried)
        else:
            held.append((start, stop, carried))
    sizes: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
    for start, stop, carried in held:
        visible = [at for first, last in carried for at in range(first, last)] + list(range(start, stop))
        wanted = list(range(before[start], before[stop]))
        size = (-(-len(wanted) // _WIDTH) * _WIDTH, -(-len(visible) // _WIDTH) * _WIDTH)
        sizes.setdefault(size, []).append((wanted, visible))
    last = torch.tensor(ends)
    place = torch.tensor(asked)
    found = []
    for (width, length), members in sizes.items():
        queries = torch.tensor([one + one[:1] * (width - len(one)) for one, _ in members])
        keys = torch.tensor([one + one[:1] * (length - len(one)) for _, one in members])
        real = torch.tensor([[True] * len(one) + [False] * (width - len(one)) for one, _ in members])
        known = torch.tensor([[True] * len(one) + [False] * (length - len(one)) for _, one in members])
        at = place[queries][:, :, None]
        sees = (keys[:, None] <= at) & (at <= last[keys][:, None]) & known[:, None]
        mask = torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))[:, None]
        places = real.flatten().nonzero()[:, 0]
        batch = Batch(queries, keys, mask, ~real[:, :, None, None], places, queries.flatten()[places])
        found.append(Batch(*(one.to(device) for one in batch)))
    return found


class _CascadeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, cascade: Cascade, scale: float) -> Tensor:
        heads = query.shape[1]
        # Every query is in exactly one causal span or batch, so both are written in full before they are read.
        out = torch.empty_like(query)
        lse = query.new_empty(
            cascade.size, heads, dtype=torch.float64 if query.dtype is torch.float64 else torch.float32
        )
        for span in cascade.alone:
            some, sums = _attend(query, key, value, span, scale)
            out[span.start : span.stop], lse[span.start : span.stop] = some, sums
        for batch in cascade.batches:
            q, k, v = _folded(query, batch.queries), _folded(key, batch.keys), _folded(value, batch.keys)
            some, sums = _forward(q, k, v, 0.0, False, attn_mask=batch.mask.to(q.dtype), scale=scale)
            out[batch.targets] = some.transpose(1, 2).flatten(0, 1)[batch.places]
            lse[batch.targets] = sums.transpose(1, 2).flatten(0, 1)[batch.places]
        for span in cascade.ahead:
            some, sums = _attend(query, key, value, span, scale)
            here, total = out[span.start : span.stop], lse[span.start : span.stop]
            merged = torch.logaddexp(total, sums)
            here.mul_((total - merged).exp_()[..., None].to(here.dtype))
            here.addcmul_(some, (sums - merged).exp_()[..., None].to(here.dtype))
            total.copy_(merged)
        ctx.cascade, ctx.scale = cascade, scale
        ctx.save_for_backward(query, key, value, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        cascade, scale = ctx.cascade, ctx.scale
        grad = grad.contiguous()
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for span in cascade.alone:
            q, k, v = _share(grad, query, key, value, out, lse, span, scale)
            d_query[span.start : span.stop] = q
            d_key[span.first : span.last] += k
            d_value[span.first : span.last] += v
        for batch in cascade.batches:
            # Filled and not multiplied by zero: a place that stands for nothing must not pass on what it read.
            pulled = _folded(grad, batch.queries).transpose(1, 2).masked_fill(batch.padded, 0).transpose(1, 2)
            q, k, v = _backward(
                pulled,
                *(_folded(one, at) for one, at in ((query, batch.queries), (key, batch.keys), (value, batch.keys))),
                _folded(out, batch.queries),
                lse[batch.queries.flatten()].view(*batch.queries.shape, -1).transpose(1, 2),
                0.0,
                False,
                attn_mask=batch.mask.to(grad.dtype),
                scale=scale,
            )
            d_query[batch.targets] = q.transpose(1, 2).flatten(0, 1)[batch.places]
            d_key.index_add_(0, batch.keys.flatten(), k.transpose(1, 2).flatten(0, 1))
            d_value.index_add_(0, batch.keys.flatten(), v.transpose(1, 2).flatten(0, 1))
        for span in cascade.ahead:
            q, k, v = _share(grad, query, key, value, out, lse, span, scale)
            d_query[span.start : span.stop] += q
            d_key[span.first : span.last] += k
            d_value[span.first : span.last] += v
        return d_query, d_key, d_value, None, None


def cascade_attention(query: Tensor, key: Tensor, value: Tensor, cascade: Cascade, scale: float) -> Tensor:
    """Attention over a row.

    Args:
        query: (queries, heads, width).
        key: (L, key/value heads, width); `value` likewise.
        cascade: of this row.
        scale: of the scores.

    Returns:
        (queries, heads, width).
    """
    parts = (query.contiguous(), key.contiguous(), value.contiguous())
    found: Tensor = _CascadeAttention.apply(*parts, cascade, scale)  # type: ignore[no-untyped-call]  # torch
    return found


def _lifted(x: Tensor, start: int, stop: int) -> Tensor:
    """Tokens [start, stop) of (tokens, heads, width) as the kernel wants them, (1, heads, tokens, width)."""
    return x[start:stop].transpose(0, 1)[None]


def _folded(x: Tensor, at: Tensor) -> Tensor:
    """(tokens, heads, width) gathered at (n, C) to (n, heads, C, width)."""
    return x.index_select(0, at.flatten()).view(*at.shape, *x.shape[1:]).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, span: Span, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v = (
        _lifted(query, span.start, span.stop),
        _lifted(key, span.first, span.last),
        _lifted(value, span.first, span.last),
    )
    out, lse = _forward(q, k, v, 0.0, span.causal, scale=scale)
    return out[0].transpose(0, 1), lse[0].transpose(0, 1)


def _share(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, span: Span, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A span's part of the gradients of its queries, keys and values."""
    some: tuple[Tensor, Tensor, Tensor] = _backward(
        _lifted(grad, span.start, span.stop),
        _lifted(query, span.start, span.stop),
        _lifted(key, span.first, span.last),
        _lifted(value, span.first, span.last),
        _lifted(out, span.start, span.stop),
        lse[span.start : span.stop].transpose(0, 1)[None],
        0.0,
        span.causal,
        scale=scale,
    )
    q, k, v = (one[0].transpose(0, 1) for one in some)
    return q, k, v
