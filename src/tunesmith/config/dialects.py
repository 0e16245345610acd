"""What other tools call their settings: tables for `adopt`, which gives them one vocabulary and then carries them over.

A key is looked up whole first (`model.name`), then by its last part (`learning_rate`). The words on the right are those
of `adopt`; most of them are the names of `transformers.TrainingArguments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.config.read import Node


@dataclass(frozen=True, slots=True)
class Dialect:
    """One tool's way to write a config."""

    name: str
    whole: Mapping[str, str] = field(default_factory=dict)
    """Word for a key that means something else here than its last part says."""
    scheduler: str | None = "linear"
    """The learning rate schedule when none is written; None where that is ours too."""
    local_data: bool = False
    """Whether data paths are always files, never names on the Hub."""


SECTIONS = Dialect(
    "sections (model, lora, training, data)",
    {
        "model.name": "model",
        "training.batch_size": "per_device_train_batch_size",
        "lora.r": "lora_r",
        "lora.alpha": "lora_alpha",
        "lora.dropout": "lora_dropout",
        "lora.use_gradient_checkpointing": "gradient_checkpointing",
        "data.format": "file_type",
        "dataset.format": "file_type",
        "experiment.name": "run_name",
        "experiment.project": "project",
        "save.method": "export",
        "training.report_to": "report_to",
    },
    local_data=True,
)
AXOLOTL = Dialect(
    "Axolotl",
    {
        "batch_size": "total_batch_size",
        "datasets.0.path": "train_file",
        "datasets.0.type": "data_type",
        "datasets.0.split": "split",
        "datasets.0.field_messages": "message_field",
        "datasets.0.ds_type": "file_type",
        "test_datasets.0.path": "validation_file",
        "test_datasets.0.split": "validation_split",
        "adapter": "tuning",
        "chat_template": "template",
    },
    scheduler=None,
)
LLAMA_FACTORY = Dialect("LLaMA-Factory", {"dataset": "registered_dataset", "eval_dataset": "registered_validation"})
TRL = Dialect("TRL", {"dataset_name": "train_file"})

WORDS = {
    # model
    "base_model": "model",
    "model_name_or_path": "model",
    "model_name": "model",
    "model_id": "model",
    "model_revision": "revision",
    "revision_of_model": "revision",
    "torch_dtype": "dtype",
    "flash_attention": "flash_attention",
    "flash_attn": "flash_attention",
    "max_seq_length": "max_length",
    "max_total_tokens": "max_length",
    "sequence_len": "max_length",
    "cutoff_len": "max_length",
    "chat_template_path": "chat_template",
    "eos_token": "end_token",
    # adapter
    "use_peft": "tuning",
    "finetuning_type": "tuning",
    "lora_rank": "lora_r",
    "lora_target": "target_modules",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
    "additional_target": "modules_to_save",
    "lora_bias": "bias",
    "peft_use_rslora": "use_rslora",
    "use_bnb_nested_quant": "bnb_4bit_use_double_quant",
    "double_quantization": "bnb_4bit_use_double_quant",
    "quantization_type": "bnb_4bit_quant_type",
    # training
    "num_epochs": "num_train_epochs",
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "micro_batch_size": "per_device_train_batch_size",
    "pure_bf16": "bf16",
    "evaluation_strategy": "eval_strategy",
    # data
    "data_path": "train_file",
    "val_file": "validation_file",
    "eval_file": "validation_file",
    "max_samples_train": "max_samples",
    "max_train_samples": "max_samples",
    "max_samples_val": "validation_max_samples",
    "max_eval_samples": "validation_max_samples",
    "val_set_size": "validation_share",
    "val_size": "validation_share",
    "dataset_train_split": "split",
    "dataset_test_split": "validation_split",
    # tracking
    "wandb_project": "wandb_project",
    "wandb_name": "run_name",
    "project_name": "project",
}
"""Word for the last part of a key; a part that is a word already stands for itself."""

REASONS = {
    "max_input_tokens": "limits the prompt alone; data.max_length limits the whole example, and no answer is cut",
    "task_type": "every model here is a causal language model",
    "model_type": "the checkpoint's own config says which class it is",
    "tokenizer_type": "the checkpoint says which class it is",
    "trust_remote_code": "code from a model repository is never run",
    "token": "secrets are read from the environment: export HF_TOKEN",
    "hub_token": "secrets are read from the environment: export HF_TOKEN",
    "per_device_eval_batch_size": "validation rows are filled up to train.max_tokens, like training rows",
    "eval_batch_size": "validation rows are filled up to train.max_tokens, like training rows",
    "save_strategy": "checkpoints follow checkpoints.save_steps; 0 saves one at the end",
    "save_only_model": "a checkpoint that cannot be resumed is not a checkpoint",
    "saves_per_epoch": "checkpoints are counted in steps: set checkpoints.save_steps",
    "evals_per_epoch": "validations are counted in steps: set train.eval_steps",
    "eval_strategy": "validation follows train.eval_steps; 0 validates once, at the end",
    "do_train": "`tunesmith train` and `tunesmith run` train",
    "do_eval": "validation follows train.eval_steps",
    "load_best_model_at_end": "the best is kept whenever train.early_stopping_patience is set",
    "metric_for_best_model": "checkpoints are compared by validation loss",
    "greater_is_better": "checkpoints are compared by validation loss",
    "log_dir": "the log is in the run's folder: run.log",
    "logging_dir": "TensorBoard files are in the run's folder: tensorboard/",
    "tensorboard_dir": "TensorBoard files are in the run's folder: tensorboard/",
    "plot_loss": "the curves are in report.html, always",
    "workspace": "credentials and workspaces are read from the environment: export COMET_WORKSPACE",
    "wandb_entity": "credentials and teams are read from the environment: export WANDB_ENTITY",
    "text_field": "the text is rendered from the messages by the model's own chat template",
    "dataset_text_field": "the text is rendered from the messages by the model's own chat template",
    "file_type": "the type is seen from the file itself",
    "template": "the tokenizer's own chat template is used; model.chat_template names a Jinja file",
    "special_tokens": "taken from the tokenizer; padding is never the end token",
    "pad_token": "taken from the tokenizer; padding is never the end token",
    "packing": "rows are always packed, with whole examples that do not see each other",
    "sample_packing": "rows are always packed, with whole examples that do not see each other",
    "eval_sample_packing": "rows are always packed, with whole examples that do not see each other",
    "pad_to_sequence_len": "rows are padded to the longest of a batch, not to a fixed length",
    "group_by_length": "packing leaves no padding for it to save",
    "train_on_inputs": "the loss sees the assistant's turns and nothing else",
    "assistant_only_loss": "the loss sees the assistant's turns and nothing else",
    "completion_only_loss": "the loss sees the assistant's turns and nothing else",
    "save_path": "exports are in the run's folder: exports/",
    "save_dir": "exports are in the run's folder: exports/",
    "push_to_hub": "publishing is planned; exports are in the run's folder",
    "hub_model_id": "publishing is planned; exports are in the run's folder",
    "hub_strategy": "publishing is planned; exports are in the run's folder",
    "overwrite_output_dir": "a run never overwrites another",
    "overwrite_cache": "the cache is addressed by content, so it is never stale",
    "dataset_prepared_path": "the cache is addressed by content; data.cache_dir moves it",
    "preprocessing_num_workers": "preparation is fast enough without",
    "dataset_num_proc": "preparation is fast enough without",
    "dataset_dir": "name the file itself under data.train",
    "registered_dataset": "a name in another tool's registry, not a file",
    "registered_validation": "a name in another tool's registry, not a file",
    "resume_from_checkpoint": "`tunesmith resume RUN` finds the newest checkpoint that verifies",
    "auto_resume_from_checkpoints": "`tunesmith resume RUN` finds the newest checkpoint that verifies",
    "ddp_timeout": "set it with accelerate",
    "deepspeed": "not supported yet",
    "fsdp": "not supported yet",
    "torch_compile": "not supported yet",
    "local_rank": "set by the launcher",
    "xformers_attention": "rows need an attention that knows whose tokens are whose; we bring it",
    "strict": "unknown keys are always refused",
    "debug": "`--debug` on the command line",
    "merge_lora": "exports: [{format: merged}] does",
}
"""Why a word is not carried over."""


def words_of(dialect: Dialect, key: str) -> str:
    """The word for a dotted key of that dialect."""
    *sections, last = key.split(".")
    if key in dialect.whole:
        return dialect.whole[key]
    if any(section.isdigit() for section in sections):
        return key  # an item of a list says something of that item alone
    return WORDS.get(last, last)


def detect(tree: Node) -> Dialect | None:
    """The dialect that a config is written in, by its keys; None when it is none we know."""
    keys = set(tree.value) if isinstance(tree.value, dict) else set()
    if "base_model" in keys:
        return AXOLOTL
    if keys & {"finetuning_type", "cutoff_len", "dataset_dir", "stage"}:
        return LLAMA_FACTORY
    if keys & {"model_name_or_path", "dataset_name", "use_peft", "model_name"}:
        return TRL
    sections = [key for key in keys & {"model", "lora", "training", "quantization"} if _is_mapping(tree, key)]
    return SECTIONS if sections else None


def _is_mapping(tree: Node, key: str) -> bool:
    section = tree.child(key)
    return section is not None and isinstance(section.value, dict)
