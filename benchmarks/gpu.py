"""Training a 7B model on one large GPU, beside TRL: tokens and examples per second, memory, share of the card's rate.

Mistral-7B's shape with random weights, in bf16 and in NF4 (QLoRA), LoRA r=16 on every linear layer, gradient
checkpointing, 16 SQL examples per step, 8 of each schema. First of all FlexAttention is held against the dense mask:
the same loss, logits and gradients of a small model of the same heads, or nothing is timed. Each contestant has a
process of its own, one step to warm up (kernels are compiled then) and two that are timed. The card's rate is that of a
product of two 8192 by 8192 matrices in bf16; the work counted is 4 times the weights per token computed, without what
is recomputed.

Takes less than 8 minutes on one card of 80 GB.

    python benchmarks/gpu.py [--json FILE] [--weights bf16 nf4] [--device cpu --quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training import examples, peer
from tunesmith.types import IGNORE, Tokens

SHAPE = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 32768,
}  # fmt: skip
SMALL = SHAPE | {"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "intermediate_size": 1024, "vocab_size": 2048}  # fmt: skip
BATCH, GROUP, STEPS, MAX_TOKENS = 16, 8, 2, 4096
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-2
"""In float32; products there may be rounded to TF32."""


def main() -> None:
    """Correctness first, then a line for each kind of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape and 4 examples, to see that it works")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weights", nargs="+", default=["bf16", "nf4"], choices=["bf16", "nf4"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, weights, folder = options.one
        print(json.dumps(measure(who, weights, Path(folder), options.device, options.quick)))
        return
    figures = [correctness(options.device)]
    for weights in options.weights:
        figures += compare(weights, options)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def correctness(device: str) -> dict[str, Any]:
    """FlexAttention against the dense mask: relative differences of loss and gradients, float32."""
    import torch

    from tunesmith.data.collate import collate_rows
    from tunesmith.data.forest import plant_forest
    from tunesmith.model.attention import Way, row_inputs, rows_in

    if device == "cpu":
        uncompiled()
    model = built(SMALL, "bf16", device).float()
    (row, *_) = plant_forest(examples("sql", 4, 8, 1, SMALL["vocab_size"]), 8192)
    batch = {name: tensor.to(device) for name, tensor in collate_rows([row], 3).items()}
    at = (batch["labels"][0] != IGNORE).nonzero()[:, 0]
    found = {}
    for way in (Way("dense"), Way("flex")):
        # Without a GPU torch computes FlexAttention's forward pass alone.
        with torch.set_grad_enabled(device != "cpu"), rows_in(model, way):
            inputs = row_inputs(model, batch["subtree_end"], batch["position_ids"])
            logits = model(input_ids=batch["input_ids"], use_cache=False, logits_to_keep=at, **inputs).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"][0][at])
        if device != "cpu":
            loss.backward()
        found[f"{way.name} logits"] = (0.0, logits.detach())
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[way.name] = (float(loss), torch.cat(gradients) if gradients else torch.ones(1))
        model.zero_grad()
    (dense, exact), (flex, other) = found["dense"], found["flex"]
    (_, wanted), (_, made) = found["dense logits"], found["flex logits"]
    logits_off = float((made - wanted).norm() / wanted.norm())
    loss_off = abs(flex - dense) / dense
    gradient_off = float((other - exact).norm() / exact.norm())
    seen = "gradients" if device != "cpu" else "gradients not computed on a CPU:"
    print(
        f"flex to dense, row of {len(row.input_ids):,} tokens: loss {loss_off:.1e}, "
        f"logits {logits_off:.1e}, {seen} {gradient_off:.1e}"
    )
    if not (loss_off < LOSS_TOLERANCE and max(logits_off, gradient_off) < GRADIENT_TOLERANCE):
        raise SystemExit("FlexAttention does not compute what the dense mask does: nothing is timed")
    return {
        "figure": "loss of FlexAttention to the dense mask, float32", "value": loss_off, "unit": "relative",
        "goal": LOSS_TOLERANCE,
        "logits": logits_off, "gradients": gradient_off if device != "cpu" else None, "conditions": named(device),
    }  # fmt: skip


def compare(weights: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours and TRL's, each in a process of its own."""
    found = {}
    for who in ("ours", "trl"):
        with tempfile.TemporaryDirectory() as folder:
            asked = [
                sys.executable,
                "-W",
                "ignore",
                __file__,
                "--one",
                who,
                weights,
                folder,
                "--device",
                options.device,
            ]
            out = subprocess.run(
                [*asked, *(["--quick"] if options.quick else [])], capture_output=True, text=True, check=False
            )
        if out.returncode:
            raise SystemExit(f"{who}, {weights} failed:\n{out.stderr[-3000:]}")
        found[who] = json.loads(out.stdout.strip().splitlines()[-1])
    for who, one in found.items():
        print(
            f"{weights}, {who}: {one['tokens_per_second']:,.0f} tokens/s, {one['examples_per_second']:.2f} examples/s, "
            f"peak memory {one['memory_mb']:,} MB, {one['share_of_rate']:.0%} of {one['rate'] / 1e12:,.2f} TFLOP/s",
            flush=True,
        )
    ratio = found["ours"]["examples_per_second"] / found["trl"]["examples_per_second"]
    memory = found["ours"]["memory_mb"] / max(1, found["trl"]["memory_mb"])
    print(f"{weights}: {ratio:.2f}x the examples of TRL, {memory:.2f}x its memory", flush=True)
    where = f"{weights}, {BATCH} SQL examples per step, {GROUP} of each schema"
    common = {"conditions": named(options.device), **found, "goal": None, "unit": "ratio"}
    return [
        {"figure": f"examples per second over TRL: {where}", "value": ratio, **common},
        {"figure": f"peak memory to TRL's: {where}", "value": memory, **common},
    ]


def measure(who: str, weights: str, folder: Path, device: str, quick: bool) -> dict[str, Any]:
    """One contestant, in this process."""
    import torch

    if device == "cpu":
        uncompiled()
    shape, batch, group = (SMALL, 4, 2) if quick else (SHAPE, BATCH, GROUP)
    rate = matrix_rate(device)
    model = adapted(built(shape, weights, device))
    body = sum(one.numel() for one in linear_weights(shape))
    tokens = examples("sql", group, batch, STEPS + 1, shape["vocab_size"])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run = ours if who == "ours" else theirs
    seconds, computed = run(model, tokens, batch, folder, device)
    timed = tokens[batch:]
    peak = torch.cuda.max_memory_allocated() >> 20 if device == "cuda" else 0
    return {
        "tokens_per_second": sum(len(one.input_ids) for one in timed) / seconds,
        "examples_per_second": len(timed) / seconds,
        "seconds_per_step": seconds / STEPS,
        "memory_mb": peak,
        "rate": rate,
        "share_of_rate": 4 * body * computed / seconds / rate,
    }


def ours(model: Any, tokens: list[Tokens], batch: int, folder: Path, device: str) -> tuple[float, int]:
    """Seconds of the timed steps, as `tunesmith train` takes them, and the tokens that were computed."""
    import torch

    from tunesmith.model.attention import require_isolation, row_inputs, rows_in, way_of
    from tunesmith.model.load import recompute_activations
    from tunesmith.train.steps import plan_step

    require_isolation(model)
    print(f"rows are attended to by {way_of(model)}", file=sys.stderr)
    recompute_activations(model)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    began, computed = 0.0, 0
    for number in range(STEPS + 1):
        if number == 1:
            began, computed = now(), 0
        step = plan_step(tokens[number * batch : (number + 1) * batch], max_tokens=MAX_TOKENS, share=True, pad_id=3)
        with rows_in(model):
            for row in step.rows:
                row = {name: tensor.to(device, non_blocking=True) for name, tensor in row.items()}
                at = (row["labels"][0] != IGNORE).nonzero()[:, 0]
                inputs = row_inputs(model, row["subtree_end"], row["position_ids"])
                logits = model(input_ids=row["input_ids"], use_cache=False, logits_to_keep=at, **inputs).logits[0]
                loss = torch.nn.functional.cross_entropy(logits.float(), row["labels"][0][at], reduction="sum")
                (loss / step.labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        computed += step.computed
    return now() - began, computed


def theirs(model: Any, tokens: list[Tokens], batch: int, folder: Path, device: str) -> tuple[float, int]:
    """The same of TRL's trainer; a first call of its own warms up."""
    settings = {"use_cpu": device == "cpu", "bf16": device == "cuda", "gradient_checkpointing": True}
    peer("trl", model, tokens[:batch], batch, 1, folder, now, **settings)
    timed = tokens[batch:]
    return peer("trl", model, timed, batch, STEPS, folder, now, **settings), sum(len(one.input_ids) for one in timed)


def built(shape: dict[str, int], weights: str, device: str) -> Any:
    """Random weights of a shape, on the device, in bf16 (float32 on a CPU) or NF4."""
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig

    torch.manual_seed(0)
    config = MistralConfig(**shape, max_position_embeddings=8192, sliding_window=None, pad_token_id=3)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    if weights == "nf4":
        import bitsandbytes as bnb

        for name, module in list(model.named_modules()):
            if type(module) is torch.nn.Linear and name != "lm_head":
                kind = torch.bfloat16 if device == "cuda" else torch.float32
                packed = bnb.nn.Linear4bit(
                    module.in_features, module.out_features, bias=False, compute_dtype=kind, quant_type="nf4"
                )
                packed.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, packed.to(device))
    return model


def adapted(model: Any) -> Any:
    """The same under fresh adapters."""
    from tunesmith.config.schema import Lora
    from tunesmith.model.lora import add_lora

    return add_lora(model, Lora(r=16, lora_alpha=16, target_modules="all-linear"))


def linear_weights(shape: dict[str, int]) -> list[Any]:
    """The weights that every token is multiplied by, on no device."""
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(MistralConfig(**shape))
    return [m.weight for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]


def matrix_rate(device: str) -> float:
    """FLOP/s of a large product of matrices here, the best of some."""
    import torch

    size, kind = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    one = torch.randn(size, size, device=device, dtype=kind)
    best = 0.0
    for _ in range(10):
        began = now()
        one @ one
        best = max(best, 2 * size**3 / (now() - began))
    return best


def now() -> float:
    """Seconds, once the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def uncompiled() -> None:
    """FlexAttention as it is written, slow and right, because compiling it for a CPU takes a compiler."""
    import warnings

    from torch.nn.attention.flex_attention import flex_attention
    from transformers.integrations.flex_attention import WrappedFlexAttention

    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
    WrappedFlexAttention.__init__ = lambda self, training: None
    WrappedFlexAttention.__call__ = lambda self: flex_attention


def named(device: str) -> str:
    """The card and the packages."""
    import torch

    card = torch.cuda.get_device_name() if device == "cuda" else "CPU, a tiny shape: to see that it works"
    return f"{card}; " + ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "bitsandbytes")
    )


if __name__ == "__main__":
    main()
