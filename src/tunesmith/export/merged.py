"""Export of base and adapter as one model in 16 bits."""

from __future__ import annotations

import warnings
from typing import Any

from tunesmith.config.schema import MergedExport, RunConfig
from tunesmith.errors import ModelError
from tunesmith.export.artifact import (
    Artifact,
    describe,
    generation_settings,
    require_trained,
    save_tokenizer,
    staging,
)
from tunesmith.export.card import card_facts, write_card
from tunesmith.rundir import RunDir


def export_merged(config: RunConfig, run: RunDir, export_config: MergedExport) -> Artifact:
    """Write `exports/merged` (`merged-float16`, ... for types other than bfloat16): a model that needs no PEFT.

    The base is loaded anew without quantisation: merging into 4-bit weights rounds most of the adapter away. The sum
    of base and adapter is rounded once, to the export's type. Runs on the CPU, in memory for one copy of the model.

    Raises:
        ModelError: no trained weights, or they do not fit the base, or the sum is not a number.
    """
    target = run.exports / (
        export_config.format if export_config.dtype == "bfloat16" else f"{export_config.format}-{export_config.dtype}"
    )
    model = _merge(config, run, export_config)
    with staging(target) as folder:
        tokenizer = save_tokenizer(config, folder)
        model.generation_config = generation_settings(config, tokenizer)
        model.save_pretrained(str(folder), max_shard_size=export_config.max_shard_size)
        write_card(folder, card_facts(config, run, "merged", export_config.dtype))
    return describe("merged", target)


def unquantised(config: RunConfig, run: RunDir, dtype: str, device: str) -> Any:
    """The trained model on its base in full 16 or 32 bits, whatever the base was trained in.

    Args:
        config: the run's settings.
        run: where the trained weights lie.
        dtype: `bfloat16`, `float16` or `float32`.
        device: where to put it.
    """
    from tunesmith.model.load import load_model

    plain = {"dtype": dtype, "quantization": None, "device_map": None}
    if config.lora is None:
        trained = require_trained(run, "model*.safetensors")
        whole = config.model.model_copy(update={**plain, "name": str(trained), "revision": None})
        return load_model(whole, device=device)
    from peft import PeftModel

    from tunesmith.model.lora import with_peft

    trained = require_trained(run, "adapter_model*.safetensors")
    base = load_model(config.model.model_copy(update=plain), device=device)
    try:
        return with_peft(lambda: PeftModel.from_pretrained(base, str(trained))).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"the adapter does not fit its base model: {str(error).strip().splitlines()[0]}",
            place=str(trained),
            remedy="export with the very base model, name and revision, that it was trained on",
        ) from error


def _merge(config: RunConfig, run: RunDir, export_config: MergedExport) -> Any:
    model = unquantised(config, run, export_config.dtype, "cpu")
    if config.lora is None:
        return model
    with warnings.catch_warnings():
        # PEFT warns that merging into tied weights changes both ends; the comparison after the export decides that.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        try:
            return model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise ModelError(
                f"base and adapter cannot be merged: {error}",
                place=str(run.adapter),
                remedy="look for weights that are not numbers: lower train.learning_rate and train again",
            ) from error
