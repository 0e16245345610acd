"""The network as the pretraining computes it: the weights and the numbers of Hugging Face's `MistralForCausalLM`.

Written out because two cores must see as many tokens as possible in an hour: projections that read the same input are
one matrix, the logits are computed only where a label is, and attention takes the row's own mask. `export` undoes the
joining, and a test holds the logits to those of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; the names are those of `MistralConfig`."""

    vocab_size: int = 4096
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    intermediate_size: int = 704
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048


def rotary(shape: Shape, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (positions, head_dim), in fp32."""
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), shape.rope_theta**-steps)
    both = torch.cat((angle, angle), dim=-1)
    return both.cos(), both.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Norm(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.hidden_size))
        self.eps = shape.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        heads = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
        self.before = Norm(shape)
        self.qkv = nn.Linear(shape.hidden_size, heads, bias=False)
        self.out = nn.Linear(shape.num_attention_heads * shape.head_dim, shape.hidden_size, bias=False)
        self.after = Norm(shape)
        self.gate_up = nn.Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        rows, length, _ = x.shape
        sizes = [
            h * self.shape.head_dim for h in (self.shape.num_attention_heads, *[self.shape.num_key_value_heads] * 2)
        ]
        parts = self.qkv(self.before(x)).split(sizes, dim=-1)
        query, key, value = (part.view(rows, length, -1, self.shape.head_dim).transpose(1, 2) for part in parts)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        grouped = self.shape.num_attention_heads != self.shape.num_key_value_heads
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, -1))
        gate, up = self.gate_up(self.after(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Network(nn.Module):
    """Token ids and a mask to hidden states; `head` gives logits of the positions asked for."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape)
        cos, sin = rotary(shape, shape.max_position_embeddings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                depth = (2 * shape.num_hidden_layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 if name == "embed.weight" else depth * weight.shape[1] ** -0.5)

    def forward(self, ids: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """ids, position (rows, n); mask (rows, 1, n, n), True where a token may look. Returns (rows, n, hidden)."""
        x = self.embed(ids)
        cos = self.cos[position].unsqueeze(1).to(x.dtype)
        sin = self.sin[position].unsqueeze(1).to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits, (..., vocabulary)."""
        return F.linear(hidden, self.embed.weight)


def tree_mask(subtree_end: Tensor) -> Tensor:
    """(rows, n) last index of each token's subtree -> (rows, 1, n, n): token i sees token j if j <= i <= end[j]."""
    index = torch.arange(subtree_end.shape[1])
    return ((index[None, None, :] <= index[None, :, None]) & (index[None, :, None] <= subtree_end[:, None, :]))[:, None]
