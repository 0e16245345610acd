"""One training step on tensors without data: what it would hold at its peak, and what it would compute.

The model is built on the meta device from its config alone, gets its adapters from the code that a run uses, and is
called with a row in the form a run uses, forward and backward. Every tensor that would be made is counted while it
lives, so what a model family does differently (attention, normalisation, experts) needs no formula of ours.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunesmith.check.heap import Event, heap_holes
from tunesmith.config.schema import Quantization, RunConfig
from tunesmith.errors import ModelError
from tunesmith.model.attention import row_inputs, rows_in
from tunesmith.model.cascade import plan_cascade
from tunesmith.model.decoder import PlainDecoder
from tunesmith.model.load import recompute_activations
from tunesmith.model.lora import add_lora

log = logging.getLogger(__name__)

_SHORT = (2, 4)
"""Numbers of layers simulated of a deeper, uniform model; what lies between them grows by the layer."""
_BLOCK = 64
"""Weights that share a quantisation constant, in bitsandbytes."""


class RowShape(NamedTuple):
    """A row without its words."""

    subtree_end: NDArray[np.int32]
    position: NDArray[np.int32]
    labels: int
    """Tokens that predict something trained."""

    @property
    def tokens(self) -> int:
        return len(self.subtree_end)


class Operation(NamedTuple):
    """One kernel."""

    flops: float
    bytes: float
    """Read and written."""


STATE = {"8bit": 2.1, "4bit": 1.1, "adafactor": 0.1, "sgd": 4.0, "lion": 4.0, "adamw": 8.0, "adam": 8.0}
"""Optimizer state in bytes per trained parameter, by a word in the optimizer's name; the first that matches."""


def state_bytes(optim: str) -> float:
    """Optimizer state in bytes per trained parameter."""
    return next((size for word, size in STATE.items() if word in optim), 8.0)


@dataclass(frozen=True)
class Footprint:
    """Bytes that one row's forward and backward hold, and its operations."""

    parameters: int
    trainable: int
    weights: int
    """Of the base, packed where it is quantised."""
    trained: int
    """Of what is trained: adapters, or the whole model (then `weights` is what is not trained)."""
    activations: int
    """Kept for the backward pass, at the peak."""
    logits: int
    """With their float32 copy, softmax and gradient, at the peak."""
    workspace: int
    """Temporary tensors at the peak."""
    holes: int
    """What the heap of a CPU process keeps beside them and beside gradients and optimizer (`heap.py`); 0 on a GPU."""
    operations: dict[Operation, float]
    """Kernel to how often it is called."""

    @property
    def moving(self) -> int:
        """What comes and goes, or comes while it does: tensors of a row, gradients and twice as much state."""
        return self.activations + self.logits + self.workspace + 3 * self.trained

    @property
    def flops(self) -> float:
        """Of matrix products and attention."""
        return float(sum(operation.flops * count for operation, count in self.operations.items()))


def full_row(tokens: int, example: int, labels: int) -> RowShape:
    """A row of examples side by side that share nothing, each of `example` tokens."""
    starts = np.arange(tokens) // max(1, example) * max(1, example)
    ends = np.minimum(starts + example, tokens) - 1
    return RowShape(ends.astype(np.int32), (np.arange(tokens) - starts).astype(np.int32), min(labels, tokens))


def step_footprint(
    config: RunConfig, architecture: Any, row: RowShape, *, gpu: bool, compute: torch.dtype
) -> Footprint:
    """What a training step holds and computes for one row.

    Args:
        config: the run.
        architecture: config of transformers, of the text model.
        row: the row.
        gpu: whether it is for a GPU, where the base keeps its own 16-bit type.
        compute: type of matrix products.

    Raises:
        ModelError: the model cannot be built from its config, or cannot be computed without data.
    """
    depth = int(getattr(architecture, "num_hidden_layers", 0))
    if depth <= _SHORT[1] or not _uniform(architecture):
        return _simulate(config, architecture, row, gpu=gpu, compute=compute)
    few, more = (
        _simulate(config, _with_layers(architecture, count), row, gpu=gpu, compute=compute) for count in _SHORT
    )
    return _extended(few, more, (depth - _SHORT[1]) / (_SHORT[1] - _SHORT[0]))


def base_dtype(config: RunConfig, architecture: Any, *, gpu: bool) -> torch.dtype:
    """The type that the unquantised weights are loaded in."""
    if config.model.dtype != "auto":
        named: torch.dtype = getattr(torch, config.model.dtype)
        return named
    said = getattr(architecture, "dtype", None)
    return said if gpu and isinstance(said, torch.dtype) else torch.float32


def _uniform(architecture: Any) -> bool:
    """Whether all layers are alike, so that a few stand for all."""
    kinds = getattr(architecture, "layer_types", None)
    return (
        (kinds is None or len(set(kinds)) == 1)
        and not getattr(architecture, "num_kv_shared_layers", 0)
        and getattr(architecture, "activation_sparsity_pattern", None) is None
        and not getattr(architecture, "mlp_only_layers", None)
        and not getattr(architecture, "first_k_dense_replace", 0)
    )


def _with_layers(architecture: Any, count: int) -> Any:
    changes: dict[str, Any] = {"num_hidden_layers": count}
    if getattr(architecture, "layer_types", None):
        changes["layer_types"] = list(architecture.layer_types)[:count]
    return type(architecture).from_dict({**architecture.to_dict(), **changes})


def _extended(few: Footprint, more: Footprint, steps: float) -> Footprint:
    def along(name: str) -> int:
        a, b = getattr(few, name), getattr(more, name)
        return int(round(b + steps * (b - a)))

    operations = {
        operation: more.operations.get(operation, 0.0)
        + steps * (more.operations.get(operation, 0.0) - few.operations.get(operation, 0.0))
        for operation in {**few.operations, **more.operations}
    }
    names = ("parameters", "trainable", "weights", "trained", "activations", "logits", "workspace")
    found = Footprint(**{name: along(name) for name in names}, holes=0, operations=operations)
    # The holes of a few layers are a share of what those hold: their difference would be mostly chance.
    share = more.holes / max(1, more.moving)
    return replace(found, holes=round(share * found.moving))


# --- the simulation ---------------------------------------------------------------------------------------------------


def _simulate(config: RunConfig, architecture: Any, row: RowShape, *, gpu: bool, compute: torch.dtype) -> Footprint:
    model = _build(config, architecture, gpu=gpu, compute=compute)
    parameters = {id(p): p for p in model.parameters()}.values()
    packed = {id(m.weight) for m in model.modules() if isinstance(m, _Packed)}
    trained = sum(_bytes(p) for p in parameters if p.requires_grad)
    weights = sum(_bytes(p) for p in parameters if not p.requires_grad and id(p) not in packed)
    if config.model.quantization is not None:
        weights += sum(_packed_bytes(p, config.model.quantization) for p in parameters if id(p) in packed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fill(model)
        with unset_fake_temporarily():
            call = _call(model, row, products=None if gpu else compute)
        with _Ledger(vocabulary=int(architecture.vocab_size), known=_storages(model)) as ledger:
            try:
                with rows_in(model):  # also while activations are computed again
                    loss = call.loss(compute)
                    ledger.forward = False
                    torch.autograd.backward(loss / max(1, row.labels))
            except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
                raise ModelError(
                    f"a {architecture.model_type} model cannot be computed without data: {str(error).splitlines()[0]}",
                    place=f"model.name={config.model.name}",
                    remedy="measure it on the machine instead: tunesmith plan RECIPE --probe",
                ) from error
    return Footprint(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        weights=weights,
        trained=trained,
        activations=ledger.at_peak["activations"],
        logits=ledger.at_peak["logits"],
        workspace=ledger.at_peak["workspace"],
        holes=0 if gpu else heap_holes(ledger.events, *_kept(model, config)),
        operations=dict(ledger.operations),
    )


def _kept(model: Any, config: RunConfig) -> tuple[list[int], list[int]]:
    """Sizes of the gradients, and of the optimizer's state, as it makes them: two for each parameter, or one."""
    trained = [p for p in {id(p): p for p in model.parameters()}.values() if p.requires_grad]
    each = state_bytes(config.train.optim)
    halves = [round(p.numel() * each / 2) for p in trained for _ in range(2)]
    return [_bytes(p) for p in trained], [size for size in halves if size]


def _build(config: RunConfig, architecture: Any, *, gpu: bool, compute: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    if config.model.attn_implementation in ("eager", "sdpa"):
        architecture._attn_implementation = config.model.attn_implementation
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(architecture, dtype=base_dtype(config, architecture, gpu=gpu))
            model.requires_grad_(config.lora is None)
            if config.model.quantization is not None:
                _pack(model, compute)
            if config.lora is not None:
                model = add_lora(model, config.lora, config.seed)
    except (ValueError, ImportError, KeyError, AttributeError) as error:
        raise ModelError(
            f"the model cannot be built from its config: {str(error).strip().splitlines()[0]}",
            place=f"model.name={config.model.name}",
            remedy="give the folder or Hub name of a model that transformers knows",
        ) from error
    for module in model.modules():  # in 4 bits under autocast PEFT hands the input on as it is
        if hasattr(module, "cast_input_dtype_enabled") and isinstance(getattr(module, "base_layer", None), _Packed):
            module.cast_input_dtype_enabled = False
    if config.train.gradient_checkpointing:
        recompute_activations(model)
    return model.train()


def _pack(model: Any, compute: torch.dtype) -> None:
    """Put a stand-in for a quantised layer in the place of every linear layer but the head."""
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(parent, name, _Packed(child, compute))


class _Packed(nn.Linear):
    """A frozen linear layer whose weights are unpacked whole each time they are needed, and not kept."""

    def __init__(self, like: nn.Linear, compute: torch.dtype) -> None:
        super().__init__(like.in_features, like.out_features, like.bias is not None, device="meta", dtype=compute)
        self.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = _Unpacking.apply(input.to(self.weight.dtype), self.weight)  # type: ignore[no-untyped-call]
        return (out if self.bias is None else out + self.bias).to(input.dtype)


class _Unpacking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return x @ torch.empty_like(weight).fill_(0).t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ torch.empty_like(ctx.weight).fill_(0), None


def _packed_bytes(parameter: Tensor, settings: Quantization) -> int:
    count = parameter.numel()
    if settings.bits == 8:
        return count + 4 * int(parameter.shape[0])
    constants = count / _BLOCK * (1 + 4 / 256 if settings.bnb_4bit_use_double_quant else 4)
    return round(count / 2 + constants)


def _fill(model: Any) -> None:
    """Put fake CPU tensors in the place of meta ones, and a gradient beside each trained one."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    tensor = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[id(parameter)] = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
                    if parameter.requires_grad:
                        made[id(parameter)].grad = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _storages(model: Any) -> set[int]:
    held = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return {tensor.untyped_storage()._cdata for tensor in held}


class _Call(NamedTuple):
    """How a row is given to a model, prepared while tensors still hold numbers."""

    model: Any
    decoder: PlainDecoder | None
    """The faster way, where a run on this device would take it."""
    ids: Tensor
    ends: Tensor
    position: Tensor
    at: Tensor
    """Positions with a label."""
    told: dict[str, Any]
    """What the model is called with beside ids where there is no faster way."""

    def loss(self, compute: torch.dtype) -> Tensor:
        """Sum over the labels, as a run computes it."""
        labels = torch.zeros(len(self.at), dtype=torch.long)
        if self.decoder is not None:
            return self.decoder.loss(self.ids, self.ends, self.position, self.at, labels)
        mixed = compute is not torch.float32
        with torch.autocast("cpu", compute if mixed else torch.bfloat16, enabled=mixed):
            logits = self.model(input_ids=self.ids, use_cache=False, logits_to_keep=self.at, **self.told).logits[0]
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")


def _call(model: Any, row: RowShape, *, products: torch.dtype | None) -> _Call:
    """Called where tensors are real; the model need not be. `products`: type of matrix products where a run takes the
    faster way if it can, as on a CPU; None where it does not."""
    ends, position = (torch.from_numpy(one.astype(np.int64))[None] for one in (row.subtree_end, row.position))
    places = np.unique(np.linspace(0, row.tokens - 1, max(1, min(row.labels, row.tokens))).round().astype(np.int64))
    at, ids = torch.from_numpy(places), torch.zeros(1, row.tokens, dtype=torch.long)
    decoder = PlainDecoder.of(model) if products is not None else None
    if decoder is not None and decoder.takes(position):
        if products is torch.bfloat16:
            decoder.products = products
        every, last = plan_cascade(ends[0]), plan_cascade(ends[0], at)
        decoder.plan = lambda _, at=None: every if at is None else last
        return _Call(model, decoder, ids, ends, position, at, {})
    with rows_in(model):
        return _Call(model, None, ids, ends, position, at, row_inputs(model, ends, position))


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of every storage from its making to its end, and the kernels that make them."""

    def __init__(self, vocabulary: int, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward = True
        self.operations: Counter[Operation] = Counter()
        self.at_peak = {"activations": 0, "logits": 0, "workspace": 0}
        self._vocabulary = vocabulary
        self._known = known
        self.events: list[Event] = []
        """Every storage's making and end, in order."""
        self._made = 0
        self._live: dict[int, tuple[str, int, int]] = {}
        self._now: Counter[str] = Counter()
        self._total = self._peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in results:
            self._hold(tensor)
        if results and not _is_view(func):
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            moved = sum(_bytes(tensor) for tensor in (*given, *results))
            self.operations[Operation(_flops(func, args, kwargs or {}, results), float(moved))] += 1
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in self._live:
            return
        if tensor.dim() >= 1 and tensor.shape[-1] == self._vocabulary:
            kind = "logits"
        else:
            kind = "activations" if self.forward else "workspace"
        size = storage.nbytes()
        self._made += 1
        self._live[key] = (kind, size, self._made)
        self.events.append((self._made, size))
        self._now[kind] += size
        self._total += size
        weakref.finalize(storage, self._release, key)
        if self._total > self._peak:
            self._peak = self._total
            self.at_peak = {name: self._now[name] for name in self.at_peak}

    def _release(self, key: int) -> None:
        kind, size, number = self._live.pop(key)
        self.events.append((number, -1))
        self._now[kind] -= size
        self._total -= size


def _is_view(func: Any) -> bool:
    name = func.name()
    return bool(getattr(func, "is_view", False)) or name.startswith("prim::") or name in _FREE


_FREE = frozenset({"aten::detach", "aten::empty_like", "aten::empty.memory_format", "aten::_unsafe_view"})


def _flops(func: Any, args: Any, kwargs: Any, results: list[Tensor]) -> float:
    name = func.name().removeprefix("aten::").partition(".")[0]
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        left: Tensor = args[0 if name in ("mm", "bmm") else 1]
        return 2.0 * results[0].numel() * left.shape[-1]
    if "scaled_dot_product" in name:
        backward = "backward" in name
        query: Tensor = args[1 if backward else 0]
        key: Tensor = args[2 if backward else 1]
        causal = any(value is True for value in args) or kwargs.get("is_causal") is True
        products = 5 if backward else 2
        return products * 2.0 * query.numel() * key.shape[-2] / (2 if causal else 1)
    return 0.0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what libraries say about models that are never going to run."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
