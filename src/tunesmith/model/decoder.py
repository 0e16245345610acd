"""A row through a plain decoder (Llama, Mistral, Qwen 2 and 3), computing only what its loss needs, on a CPU.

The model of transformers is the reference and holds the weights; nothing of it is changed. This walks over its layers
with functions that take fewer multiplications and fewer passes over memory (`model/fused.py`, `model/cascade.py`), and
in the last layer computes only keys and values for tokens that predict no label. A module that is not exactly of the
kind known here (another adapter, dropout, a weight in few bits) is called as it is. `plain_decoder` compares the two on
a small row before it lets a model through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith.model.attention import PLAIN, row_inputs, rows_in
from tunesmith.model.cascade import Cascade, cascade_attention, plan_cascade
from tunesmith.model.fused import Weights, adapted, label_loss, rms_norm, rotated, swiglu

log = logging.getLogger(__name__)

_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-5}
"""Most that logits of both ways may differ, as a share of their spread. In float64 the norms of transformers still
round to float32, ours do not."""


def plain_decoder(model: Any, products: torch.dtype | None = None) -> PlainDecoder | None:
    """The way for this model, or None where it is not known to give what the model gives.

    Args:
        model: a causal language model, or a PEFT model around one.
        products: type that the gradients' products with weights are computed in; None for the type of the weights.
    """
    found = PlainDecoder.of(model)
    if found is None:
        return None
    difference = found.difference()
    if not difference <= _CLOSE[found.dtype]:
        log.warning("the faster forward pass differs from the model's own by %.1e, so it is not used", difference)
        return None
    found.products = products or found.products
    return found


class PlainDecoder:
    """Logits and losses at chosen positions of a row."""

    def __init__(self, model: Any, causal: Any) -> None:
        self._model = model
        self._causal = causal
        self._inner = causal.model
        self._config = causal.config
        self.dtype: torch.dtype = self._inner.embed_tokens.weight.dtype
        self.products = self.dtype
        """Type that the gradients' products with weights are computed in (`model/fused.py`)."""
        self.plan: Callable[..., Cascade] = plan_cascade
        """How a row's attention is cut into parts; a simulation, whose tensors hold no numbers, knows it beforehand."""

    @classmethod
    def of(cls, model: Any) -> PlainDecoder | None:
        """Where every part is of a known kind, on a CPU."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = causal.config
        inner: Any = getattr(causal, "model", None)
        plain = (
            config.model_type in PLAIN
            and type(causal).__name__.endswith("ForCausalLM")
            and getattr(config, "hidden_act", None) == "silu"
            and not getattr(config, "attention_dropout", 0.0)
            and len(set(getattr(config, "layer_types", None) or ["full_attention"])) == 1
            and _looks_up(getattr(inner, "embed_tokens", None))
            and inner.embed_tokens.weight.dtype in _CLOSE
            and all(p.device.type == "cpu" for p in model.parameters())
            and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        )
        return cls(model, causal) if plain else None

    def loss(self, input_ids: Tensor, subtree_end: Tensor, position: Tensor, at: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross entropy at positions `at`; see `hidden`.

        Args:
            labels: (n,), what each of them predicts.
        """
        hidden = self.hidden(input_ids, subtree_end, position, at)
        head = self._causal.lm_head
        known = _weights(head)
        if known is not None and known.bias is None and known.down is None and not known.base.requires_grad:
            return label_loss(hidden, known.base, labels, self.products)
        return torch.nn.functional.cross_entropy(head(hidden), labels, reduction="sum")

    def logits(self, input_ids: Tensor, subtree_end: Tensor, position: Tensor, at: Tensor) -> Tensor:
        """(n, vocabulary) at positions `at`; see `hidden`."""
        found: Tensor = self._causal.lm_head(self.hidden(input_ids, subtree_end, position, at))
        return found

    def takes(self, position: Tensor) -> bool:
        """Whether the model's window, if it has one, reaches over every path of the row."""
        window = getattr(self._config, "sliding_window", None)
        return window is None or window > int(position.max())

    def hidden(self, input_ids: Tensor, subtree_end: Tensor, position: Tensor, at: Tensor) -> Tensor:
        """Last hidden states, normed, of shape (n, h).

        Args:
            input_ids: (1, L), as `subtree_end` and `position`.
            at: (n,), ascending positions in the row.
        """
        embedded = self._inner.embed_tokens(input_ids)
        cos, sin = self._inner.rotary_emb(embedded, position)
        cos, sin = cos[0][:, None], sin[0][:, None]
        every = self.plan(subtree_end[0])
        last = self.plan(subtree_end[0], at)
        x = embedded[0]
        layers = self._inner.layers[: self._config.num_hidden_layers]
        recompute = self._model.training and torch.is_grad_enabled() and layers[0].gradient_checkpointing
        for number, layer in enumerate(layers):
            here = (last, at) if number == len(layers) - 1 else (every, None)
            if recompute:
                x = checkpoint(self._layer, layer, x, cos, sin, *here, use_reentrant=False)
            else:
                x = self._layer(layer, x, cos, sin, *here)
        return _norm(self._inner.norm, x)

    def _layer(self, layer: Any, x: Tensor, cos: Tensor, sin: Tensor, cascade: Cascade, at: Tensor | None) -> Tensor:
        """One layer: x of shape (L, h) to (L, h), or to (n, h) where only positions `at` are wanted."""
        attention, mlp = layer.self_attn, layer.mlp
        width = attention.head_dim
        normed = _norm(layer.input_layernorm, x)
        if at is None:
            sizes = [attention.q_proj.out_features, attention.k_proj.out_features, attention.v_proj.out_features]
            three = self._linear(normed, attention.q_proj, attention.k_proj, attention.v_proj)
            query, key, value = torch.split(three, sizes, dim=1)
            q_cos, q_sin = cos, sin
        else:
            sizes = [attention.k_proj.out_features, attention.v_proj.out_features]
            key, value = torch.split(self._linear(normed, attention.k_proj, attention.v_proj), sizes, dim=1)
            query = self._linear(normed.index_select(0, at), attention.q_proj)
            q_cos, q_sin = cos[at], sin[at]
            x = x.index_select(0, at)
        query, key, value = (one.view(len(one), -1, width) for one in (query, key, value))
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        query, key = rotated(query, q_cos, q_sin), rotated(key, cos, sin)
        seen = cascade_attention(query, key, value, cascade, attention.scaling)
        x = x + self._linear(seen.flatten(1), attention.o_proj)
        normed = _norm(layer.post_attention_layernorm, x)
        return x + self._linear(swiglu(self._linear(normed, mlp.gate_proj, mlp.up_proj)), mlp.down_proj)

    def _linear(self, x: Tensor, *modules: Any) -> Tensor:
        """Linear layers of one input, side by side."""
        known = [_weights(module) for module in modules]
        members = [one for one in known if one is not None]
        if len(members) == len(modules):
            return adapted(x, members, self.products)
        return torch.cat([module(x) for module in modules], dim=1)

    def difference(self) -> float:
        """How far logits of a small row are from the model's own, as a share of their spread."""
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(3, min(self._config.vocab_size, 1000), (1, 24), generator=draw)
        ends = torch.tensor([[23] * 12 + [17] * 6 + [23] * 6])
        position = torch.tensor([[*range(18), *range(12, 18)]])
        at = torch.tensor([11, 14, 17, 20, 23])
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad(), rows_in(self._model):
                inputs = row_inputs(self._model, ends, position)
                own = self._model(input_ids=ids, use_cache=False, **inputs).logits[0, at]
                ours = self.logits(ids, ends, position, at)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            log.warning("the faster forward pass does not fit the model: %s", error)
            return float("inf")
        finally:
            self._model.train(training)
        return float((ours - own).abs().max() / own.std())


def _norm(module: Any, x: Tensor) -> Tensor:
    """An RMS norm over the last dimension."""
    if module.weight.requires_grad and torch.is_grad_enabled():
        found: Tensor = module(x)
        return found
    return rms_norm(x, module.weight, module.variance_epsilon)


def _looks_up(module: Any) -> bool:
    """Whether it is a plain embedding, or one that is trained in full beside adapters."""
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        copies = [module.modules_to_save[name] for name in module.active_adapters if name in module.modules_to_save]
        return len(copies) == 1 and type(copies[0]) is nn.Embedding and not module.disable_adapters
    return type(module) is nn.Embedding


def _weights(module: Any) -> Weights | None:
    """A linear layer with one plain LoRA adapter or none; None for anything else."""
    from peft.tuners.lora.layer import Linear

    if type(module) is nn.Linear:
        return Weights(module.weight, module.bias, None, None, 0.0)
    if type(module) is not Linear or type(module.base_layer) is not nn.Linear or module.fan_in_fan_out:
        return None
    base = module.base_layer
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.merged or module.disable_adapters or not active:
        # Adapters that were merged into the weights, and are now disabled, are taken out by the module's own call.
        return None if module.merged and module.disable_adapters else Weights(base.weight, base.bias, None, None, 0.0)
    (name,) = active if len(active) == 1 else (None,)
    if name is None or name in module.lora_variant or not isinstance(module.lora_dropout[name], nn.Identity):
        return None
    down, up = module.lora_A[name], module.lora_B[name]
    if up.bias is not None or down.weight.dtype != base.weight.dtype:
        return None
    return Weights(base.weight, base.bias, down.weight, up.weight, float(module.scaling[name]))
