"""An artifact counts when, loaded from disk as its user will load it, it does what the trained model does."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.config.schema import Generate, RunConfig
from tunesmith.errors import CheckFailed, ModelError, TunesmithError
from tunesmith.export.artifact import Artifact
from tunesmith.export.merged import unquantised
from tunesmith.rundir import RunDir
from tunesmith.types import Completion


class Bound(NamedTuple):
    """How far an artifact of one type may be from the trained model."""

    relative_error: float
    """Root mean square of the logits' differences over that of the logits about their mean."""
    mean_kl: float
    """Kullback-Leibler divergence of the artifact's next-token distribution from the model's, in nats per token."""


BOUNDS = {
    "float32": Bound(1e-3, 1e-4),
    "float16": Bound(2e-2, 5e-3),
    "bfloat16": Bound(8e-2, 2e-2),
}
"""16-bit types keep 11 and 8 bits of each weight and activation, and errors add up over the layers: the bounds leave
room for that and are far below what one missing layer's adapter does."""
_ANSWER_TOKENS = 48
"""Length of the answers compared; the longest is what a difference would show in, and time is bounded."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What agreed between an artifact and the trained model, and how closely."""

    format: str
    dtype: str
    """Type of the artifact's weights as loaded."""
    reference: str
    """What it was compared with: the trained model, or the same adapter on the unquantised base."""
    prompts: int
    same_tokens: int
    """Prompts that the artifact's tokenizer encodes to the same ids."""
    same_text: int
    """Prompts that both answer with the same text, greedily."""
    positions: int
    """Answer tokens whose logits were compared."""
    same_choice: float
    """Share of the positions with the same likeliest token."""
    max_logit_difference: float
    relative_error: float
    mean_kl: float
    tied: bool
    """Whether input and output embeddings are one tensor after loading."""
    bound: Bound
    quantised_same_text: int | None = None
    """Prompts answered alike by the quantised model that was trained, where it is not the reference."""

    def figures(self) -> dict[str, Any]:
        """For `run.json` and `verified.json`."""
        return {**asdict(self), "bound": self.bound._asdict()}

    def sentence(self) -> str:
        """For a person."""
        text = (
            f"loaded back in {self.dtype}: same text on {self.same_text} of {self.prompts} prompts, "
            f"same likeliest token at {100 * self.same_choice:.1f} % of {self.positions:,} positions, "
            f"largest logit difference {self.max_logit_difference:.3g}, mean KL {self.mean_kl:.1e}"
        )
        if self.quantised_same_text is not None:
            text += f"; against the quantised model, same text on {self.quantised_same_text} of {self.prompts}"
        return text


def verify(artifact: Artifact, model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: RunConfig) -> Verified:
    """Load an artifact from disk and hold it against the trained model; writes `verified.json` into it.

    Compared are the ids its tokenizer gives the prompts, its greedy answers (with its own end tokens), and its logits
    over the trained model's answers. A merged model of a run on a quantised base is held to the same adapter on the
    unquantised base, because it is that model; its agreement with the quantised one is stated beside it.

    Args:
        artifact: what `export` wrote.
        model: the trained model, in memory; only read.
        tokenizer: of the trained model.
        prompts: token ids, as the renderer gave them; at least one.
        config: the run.

    Raises:
        CheckFailed: it differs beyond the stated bound; it lies beside its place under `<name>.rejected`.
        ModelError: it cannot be loaded at all; likewise.
    """
    if not prompts:
        raise ValueError("there is no prompt to compare on")
    try:
        verified, faults = _compare(artifact, model, tokenizer, prompts, config)
    except TunesmithError:
        _reject(artifact)
        raise
    text = json.dumps({**verified.figures(), "faults": faults}, indent=1, allow_nan=True) + "\n"
    (artifact.path / "verified.json").write_text(text, "utf-8")
    if faults:
        rejected = _reject(artifact)
        raise CheckFailed(
            f"the {artifact.format} export is not the model that was trained: {'; '.join(faults)}",
            place=f"{rejected.parent.name}/{rejected.name}",
            remedy="see its verified.json and export again; a second time, report it: this is what the check is for",
        )
    return verified


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: RunConfig, ends: frozenset[int] | None = None
) -> list[Completion]:
    """The answers that are compared: greedy, free, short; `ends` are the run's where none are given."""
    from tunesmith.generate import end_ids_of, generate

    greedy = Generate(max_new_tokens=min(_ANSWER_TOKENS, config.generate.max_new_tokens), temperature=0)
    return generate(model, tokenizer, prompts, greedy, ends or end_ids_of(model, tokenizer, config.model.end_token))


def _reject(artifact: Artifact) -> Path:
    rejected = artifact.path.with_name(f"{artifact.path.name}.rejected")
    shutil.rmtree(rejected, ignore_errors=True)
    os.replace(artifact.path, rejected)
    return rejected


def _compare(
    artifact: Artifact, model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: RunConfig
) -> tuple[Verified, list[str]]:
    from transformers import AutoTokenizer

    from tunesmith.generate import end_ids_of

    try:
        own_tokenizer = AutoTokenizer.from_pretrained(str(artifact.path))
    except Exception as error:
        raise _unloadable(artifact, "tokenizer", error) from error
    ends = end_ids_of(model, tokenizer, config.model.end_token)
    trained_answers = greedy_answers(model, tokenizer, prompts, config, ends)
    reference, spoken = model, "the trained model"
    quantised_texts = None
    if artifact.format == "merged" and config.model.quantization is not None:
        reference, spoken = _unquantised_reference(artifact, config, str(model.device)), "the adapter on the plain base"
        quantised_texts = [answer.text for answer in trained_answers]
        trained_answers = greedy_answers(reference, tokenizer, prompts, config, ends)

    own = _load(artifact, config, str(model.device))
    own_answers = greedy_answers(own, own_tokenizer, prompts, config, end_ids_of(own, own_tokenizer))
    same_text = [a.text == b.text and a.stopped == b.stopped for a, b in zip(trained_answers, own_answers, strict=True)]
    lines = [
        (prompt, tokenizer.encode(answer.text, add_special_tokens=False))
        for prompt, answer in zip(prompts, trained_answers, strict=True)
    ]
    logits = _compare_logits(reference, own, lines)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts]
    same_tokens = [
        tokenizer.encode(text, add_special_tokens=False) == own_tokenizer.encode(text, add_special_tokens=False)
        for text in texts
    ]
    dtype = str(next(own.parameters()).dtype).removeprefix("torch.")
    # Where either side computes in 16 bits, the difference is that of 16 bits.
    coarsest = max((dtype, str(reference.dtype).removeprefix("torch.")), key=lambda name: BOUNDS[name].relative_error)
    bound = BOUNDS[coarsest]
    verified = Verified(
        format=artifact.format,
        dtype=dtype,
        reference=spoken,
        prompts=len(prompts),
        same_tokens=sum(same_tokens),
        same_text=sum(same_text),
        positions=logits.positions,
        same_choice=logits.same_choice,
        max_logit_difference=logits.largest,
        relative_error=logits.relative,
        mean_kl=logits.kl,
        tied=_tied(own),
        bound=bound,
        quantised_same_text=None
        if quantised_texts is None
        else sum(a == b.text for a, b in zip(quantised_texts, own_answers, strict=True)),
    )
    return verified, _faults(verified, tokenizer, own_tokenizer, ends, end_ids_of(own, own_tokenizer))


def _faults(verified: Verified, tokenizer: Any, own: Any, ends: frozenset[int], own_ends: frozenset[int]) -> list[str]:
    faults = []
    if verified.same_tokens < verified.prompts:
        faults.append(f"its tokenizer encodes {verified.prompts - verified.same_tokens} prompts to other ids")
    if tokenizer.chat_template != own.chat_template:
        faults.append("its chat template is another")
    if not ends <= own_ends:
        faults.append(f"it does not end answers at {tokenizer.convert_ids_to_tokens(sorted(ends - own_ends))}")
    # Written so that a NaN is a fault.
    if not verified.relative_error <= verified.bound.relative_error:
        faults.append(
            f"its logits are off by {100 * verified.relative_error:.3g} % of their spread, "
            f"at most {100 * verified.bound.relative_error:g} % is rounding"
        )
    if not verified.mean_kl <= verified.bound.mean_kl:
        faults.append(f"its mean KL is {verified.mean_kl:.2g} nats, at most {verified.bound.mean_kl:g} is rounding")
    return faults


class _Logits(NamedTuple):
    positions: int
    same_choice: float
    largest: float
    relative: float
    kl: float


def _compare_logits(reference: Any, own: Any, lines: Sequence[tuple[list[int], list[int]]]) -> _Logits:
    """Both models on each prompt with the reference's answer, at the positions that predict the answer."""
    import torch

    positions = same = 0
    largest = squares = spread = kl = 0.0
    with torch.inference_mode():
        for prompt, answer in lines:
            ids = torch.tensor([[*prompt, *answer]])
            kept = len(answer) + 1
            a, b = (
                each(input_ids=ids.to(each.device), logits_to_keep=kept, use_cache=False).logits[0].double().cpu()
                for each in (reference, own)
            )
            if a.shape != b.shape:
                raise CheckFailed(
                    f"the export has {b.shape[-1]:,} token logits, the trained model {a.shape[-1]:,}",
                    place="vocabulary",
                    remedy="export with the very base model and tokenizer of the training run",
                )
            positions += kept
            same += int((a.argmax(-1) == b.argmax(-1)).sum())
            gap = (a - b).abs()
            # max() of Python would drop a NaN that comes second.
            largest = max(largest, float(gap.max())) if bool(torch.isfinite(gap).all()) else math.nan
            squares += float(gap.square().sum())
            spread += float((a - a.mean(-1, keepdim=True)).square().sum())
            kl += float(
                torch.nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="sum")
            )
    return _Logits(
        positions, same / positions, largest, math.sqrt(squares / spread) if spread else math.nan, kl / positions
    )


def _load(artifact: Artifact, config: RunConfig, device: str) -> Any:
    """The artifact as its card says to load it."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from tunesmith.model.load import load_model

    try:
        if artifact.format == "adapter":
            from peft import PeftModel

            from tunesmith.model.lora import with_peft

            base = load_model(config.model, precision=config.train.precision, device=device)
            own = with_peft(lambda: PeftModel.from_pretrained(base, str(artifact.path)))
            own.generation_config = GenerationConfig.from_pretrained(str(artifact.path))
        else:
            own = AutoModelForCausalLM.from_pretrained(str(artifact.path), dtype="auto", use_safetensors=True).to(
                device
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "there is no memory to load the export beside the trained model",
            place=artifact.path.name,
            remedy="verify where there is room: tunesmith export RUN, on a larger machine or on the CPU",
        ) from error
    except TunesmithError:
        raise
    except Exception as error:
        raise _unloadable(artifact, "model", error) from error
    return own.eval()


def _unquantised_reference(artifact: Artifact, config: RunConfig, device: str) -> Any:
    run = RunDir(artifact.path.parent.parent)
    settings = json.loads((artifact.path / "config.json").read_text("utf-8"))
    return unquantised(config, run, str(settings.get("dtype", "bfloat16")), device)


def _unloadable(artifact: Artifact, what: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        f"the {artifact.format} export's {what} cannot be loaded back: {reason}",
        place=f"{artifact.path.parent.name}/{artifact.path.name}",
        remedy="export again; if it happens again, the disk or the base model's files are at fault",
    )


def _tied(model: Any) -> bool:
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    return outer is not None and inner.weight.data_ptr() == outer.weight.data_ptr()
