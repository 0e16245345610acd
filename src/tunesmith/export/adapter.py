"""Export of the LoRA adapter: weights, their config, tokenizer, generation settings, card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tunesmith.config.schema import AdapterExport, RunConfig
from tunesmith.errors import ConfigError
from tunesmith.export.artifact import (
    Artifact,
    describe,
    generation_settings,
    public_name,
    require_trained,
    save_tokenizer,
    staging,
)
from tunesmith.export.card import card_facts, write_card
from tunesmith.rundir import RunDir


def export_adapter(config: RunConfig, run: RunDir, export_config: AdapterExport) -> Artifact:
    """Write `exports/adapter`: what PEFT loads on top of the base model.

    Raises:
        ConfigError: the run trained all weights, so there is no adapter.
        ModelError: the run has no trained adapter.
    """
    if config.lora is None:
        raise ConfigError(
            "all weights were trained, so there is no adapter to export",
            place="exports",
            remedy="export the whole model: exports: [{format: merged}]",
        )
    trained = require_trained(run, "adapter_model*.safetensors")
    target = run.exports / export_config.format
    with staging(target) as folder:
        for path in trained.glob("adapter_model*.safetensors*"):
            shutil.copy2(path, folder / path.name)
        _write_adapter_config(config, trained, folder)
        tokenizer = save_tokenizer(config, folder)
        generation_settings(config, tokenizer).save_pretrained(str(folder))
        write_card(folder, card_facts(config, run, "adapter"))
    return describe("adapter", target)


def _write_adapter_config(config: RunConfig, trained: Path, folder: Path) -> None:
    """The adapter's config with the base model's public name in place of a path of this machine."""
    settings = json.loads((trained / "adapter_config.json").read_text("utf-8"))
    settings["base_model_name_or_path"] = public_name(config.model)
    settings["revision"] = config.model.revision
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
