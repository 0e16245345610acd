"""Tokenizer and base model, from the Hub, a folder, or the small base that ships with the package."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.schema import Model
from tunesmith.errors import ModelError
from tunesmith.model.outside import check_settings, code_options, require_harmless

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DEMO = Path(__file__).resolve().parents[1] / "demo_base"
"""The folder of the small base model, `model.name: demo`."""


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Weights of a model, those packed in 4 bits counted one by one."""

    total: int
    trainable: int

    @property
    def share(self) -> float:
        """Trainable over total, 0 to 1."""
        return self.trainable / self.total if self.total else 0.0


def model_path(config: Model) -> str:
    """What `from_pretrained` is given: a folder or a Hub name."""
    return str(DEMO) if config.name == "demo" else config.name


def load_tokenizer(config: Model) -> Any:
    """The tokenizer, with a chat template and with a padding token that is not its end token.

    Raises:
        ModelError: there is none, it has no chat template, or it has no token that could pad.
    """
    from transformers import AutoTokenizer

    path = model_path(config)
    options = _look_at("tokenizer", config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:
        raise _not_loaded("tokenizer", config, error) from error
    if config.chat_template is not None:
        tokenizer.chat_template = _read_template(config.chat_template)
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, so there is no telling how a conversation is written",
            place=config.name,
            remedy="give one with model.chat_template: template.jinja, or use the model's instruct version",
        )
    _set_padding(tokenizer, config)
    return tokenizer


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ModelError(
            f"the chat template cannot be read: {reason}",
            place=f"model.chat_template={path}",
            remedy="give a Jinja file; a relative path is one of the recipe's folder",
        ) from error


def _set_padding(tokenizer: Any, config: Model) -> None:
    """Padding with the end token would hide it from the loss in other tools: a model that never learns to stop."""
    ends = {tokenizer.eos_token_id}
    if config.end_token:
        ends.add(tokenizer.convert_tokens_to_ids(config.end_token))
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return
    vocabulary = tokenizer.get_vocab()
    known = (
        "<pad>",
        "<|pad|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_0|>",
        "[PAD]",
        tokenizer.unk_token,
    )
    for candidate in known:
        if candidate and candidate in vocabulary and vocabulary[candidate] not in ends:
            tokenizer.pad_token = candidate
            log.info("padding with %s, because the tokenizer has no padding token apart from its end token", candidate)
            return
    raise ModelError(
        "the tokenizer has no token to pad with other than its end token",
        place=config.name,
        remedy="add a padding token to the tokenizer's special tokens",
    )


def load_model(config: Model, precision: str = "auto", device: str | None = None) -> Any:
    """The base model, in evaluation mode, on the first GPU or the CPU.

    Args:
        config: name, revision, dtype, quantisation.
        precision: `train.precision`, which decides the compute type of 4-bit weights where that says `auto`.
        device: where to put it; None takes `device_map`, else the first GPU, else the CPU.

    Raises:
        ModelError: it cannot be found, read or understood.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one for every load, which says nothing that a run's own lines do not
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {"dtype": _dtype(config, where), "use_safetensors": True}
    options |= _look_at("model", config)
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    path = model_path(config)
    try:
        if config.quantization is not None:
            options["quantization_config"] = _quantization(config, precision, path)
            options["device_map"] = config.device_map or {"": where}
        elif config.device_map:
            options["device_map"] = config.device_map
        model, loaded = AutoModelForCausalLM.from_pretrained(
            path, **options, **_text_part(path, code_options(path, config.revision)), output_loading_info=True
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the model does not fit: {error}",
            place=config.name,
            remedy="quantise it (model.quantization: {bits: 4}), or use a smaller model or a larger GPU",
        ) from error
    except Exception as error:
        raise _not_loaded("model", config, error) from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{len(missing)} of the model's weights are in no file, among them {missing[0]}; they would be random",
            place=f"model.name={config.name}",
            remedy="the files belong to another model or some are missing: download it again",
        )
    if "device_map" not in options:
        model.to(where)
    _keep_differentiable(model)
    model.eval()
    return model


def _look_at(what: str, config: Model) -> dict[str, Any]:
    """Look at what a stranger wrote before anything loads it; returns what `from_pretrained` is told about code.

    Raises:
        ModelError: there is no such model, or it holds something that no model needs.
    """
    path = model_path(config)
    options = code_options(path, config.revision)
    code = bool(options["trust_remote_code"])
    if Path(path).is_dir():
        require_harmless(Path(path), code=code)
        return options
    from transformers import PreTrainedConfig

    try:
        settings, _ = PreTrainedConfig.get_config_dict(path, revision=options["revision"])
    except Exception as error:
        raise _not_loaded(what, config, error) from error
    check_settings(settings, f"model.name={config.name}", code=code)
    return options


def _text_part(path: str, code: dict[str, Any]) -> dict[str, Any]:
    """What to load of a model that also sees and hears: its language model, which is a model of its own.

    The towers for pictures and sound need packages, memory and adapters that text never uses.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, **code)
    text = config.get_text_config(decoder=True)
    return {} if text is config else {"config": text, "key_mapping": {r"^(model\.)?language_model\.": "model."}}


def _keep_differentiable(model: Any) -> None:
    """Keep 4-bit layers on a CPU from repacking themselves the first time they compute without gradients.

    bitsandbytes (0.50) does so on CPUs with AVX512-BF16, and its kernel for that packing has no backward pass: after
    one validation, or the grading of the base, a run would train on gradients that stop at the last layer.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def compute_dtype(precision: str) -> torch.dtype:
    """The type that matrix products are computed in under a precision.

    `auto` is bfloat16 on a GPU that has it, and float32 on a CPU, also on one with bfloat16: there a run would depend
    on the processor that it happens to be on. `train.precision: bf16` asks for it.
    """
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def count_parameters(model: Any) -> ParameterCount:
    """All weights and those that are trained.

    Weights packed in 4 bits lie two to a byte; the count that a library prints for such a model is about half of the
    truth, and the trainable share about double.
    """
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = parameter.numel() if state is None else int(state.shape.numel())
        total += count
        trainable += count if parameter.requires_grad else 0
    return ParameterCount(total, trainable)


def recompute_activations(model: Any) -> None:
    """Compute each block's activations again in the backward pass instead of keeping them (gradient checkpointing)."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    # Without reentrance gradients need no thread through the embeddings, and its cost falls away.
    model.disable_input_require_grads()


def _dtype(config: Model, where: str) -> Any:
    import torch

    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    # On a CPU a 16-bit base would be multiplied in 16 bits, slowly on most; training in float32 is what is expected.
    return torch.float32 if where == "cpu" else "auto"


def _quantization(config: Model, precision: str, path: str) -> Any:
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig

    wanted = config.quantization
    assert wanted is not None
    text = AutoConfig.from_pretrained(path, **code_options(path, config.revision)).get_text_config(decoder=True)
    # Gemma 3n clips the weights of its AltUp layers (4 x 4 and the like) at every training step: they must be numbers.
    spared = ["lm_head", r".*\.altup"] if hasattr(text, "altup_num_inputs") else None
    if wanted.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=spared)
    named = wanted.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=spared,
        bnb_4bit_quant_type=wanted.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=wanted.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=compute_dtype(precision) if named == "auto" else getattr(torch, named),
    )


def _not_loaded(what: str, config: Model, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    folder = Path(model_path(config))
    if broken := _broken_file(folder):
        reason = f"{broken.name} is cut off or damaged ({reason})"
    elif Path(config.name).is_absolute() and not folder.exists():
        reason = "there is no such folder"
    if config.name == "demo":
        remedy = "reinstall tunesmith: the base model that ships with it is incomplete"
    elif folder.exists():
        remedy = "the folder must hold config.json, tokenizer.json and model.safetensors, whole"
    elif "/" in config.name and not config.name.startswith((".", "/")):
        remedy = "check the name on the Hub, your connection and, for a gated model, HF_TOKEN"
    else:
        remedy = "give a Hub name (owner/name) or a folder that exists"
    return ModelError(f"the {what} cannot be loaded: {reason}", place=f"model.name={config.name}", remedy=remedy)


def _broken_file(folder: Path) -> Path | None:
    """The first file of weights that cannot be opened, which the loader's own error does not name."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return path
    return None
