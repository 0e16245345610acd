"""Muon for the matrices, AdamW for the rest, on fp32 master weights of a bf16 network."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from demo_base.network import Network, Shape


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack (k, m, n) with m <= n, roughly (Jordan et al., 2024, Muon)."""
    x = matrix.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x


def slices(name: str, weight: Tensor, shape: Shape) -> list[Tensor]:
    """A joined matrix as the matrices it holds: Muon treats each by itself."""
    if name.endswith("qkv.weight"):
        keys = shape.num_key_value_heads * shape.head_dim
        return list(weight.split([shape.num_attention_heads * shape.head_dim, keys, keys]))
    return list(weight.chunk(2)) if name.endswith("gate_up.weight") else [weight]


class Optimizer:
    """State is fp32 and flat by name, so that a checkpoint is one safetensors file."""

    def __init__(self, network: Network, muon: float, adam: float, decay: float = 0.01) -> None:
        self.shape, self.muon, self.adam, self.decay = network.shape, muon, adam, decay
        self.parameters = dict(network.named_parameters())
        self.master = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self.matrices = [name for name, p in self.parameters.items() if p.ndim == 2 and name != "embed.weight"]
        self.others = [name for name in self.parameters if name not in self.matrices]
        self.first = {name: torch.zeros_like(p) for name, p in self.master.items()}
        self.second = {name: torch.zeros_like(self.master[name]) for name in self.others}
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update with both learning rates times `scale`; clears the gradients."""
        self.steps += 1
        groups: defaultdict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name in self.matrices:
            grad = self.parameters[name].grad.float()  # type: ignore[union-attr]
            momentum = self.first[name].lerp_(grad, 0.05)
            update = grad.lerp(momentum, 0.95)
            pairs = zip(slices(name, update, self.shape), slices(name, self.master[name], self.shape), strict=True)
            for part, weight in pairs:
                groups[tuple(part.shape)].append((part, weight))
        for (rows, columns), members in groups.items():
            stack = torch.stack([part for part, _ in members])
            whole = orthogonal(stack.mT).mT if rows > columns else orthogonal(stack)
            rate = self.muon * scale * max(1.0, rows / columns) ** 0.5
            for update, (_, weight) in zip(whole.float(), members, strict=True):
                weight.mul_(1 - self.muon * scale * self.decay).add_(update, alpha=-rate)
        for name in self.others:
            grad = self.parameters[name].grad.float()  # type: ignore[union-attr]
            mean = self.first[name].lerp_(grad, 0.1)
            square = self.second[name].lerp_(grad.square(), 0.05)
            fair = (square / (1 - 0.95**self.steps)).sqrt_().add_(1e-10)
            self.master[name].addcdiv_(mean / (1 - 0.9**self.steps), fair, value=-self.adam * scale)
        for name, parameter in self.parameters.items():
            parameter.copy_(self.master[name])
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything as one flat mapping."""
        named = {"master": self.master, "first": self.first, "second": self.second}
        return {f"{kind}/{name}": tensor for kind, group in named.items() for name, tensor in group.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """The reverse of `state`."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])
        for name, parameter in self.parameters.items():
            parameter.copy_(self.master[name])
        self.steps = steps
