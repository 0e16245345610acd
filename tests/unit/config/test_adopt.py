"""Other tools' configs become recipes that load, and nothing of them is dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.adopt import Adopted, adopt
from tunesmith.config.dialects import REASONS, WORDS
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError

FILLED = {"TUNESMITH_TRAIN_FILE": "train.jsonl", "TUNESMITH_MODEL": "demo", "TUNESMITH_BUCKET": "bucket"}

SQL = """\
model: {name: org/big-base, max_seq_length: 512, torch_dtype: float16}
lora: {r: 8, lora_alpha: 16, lora_dropout: 0.05, target_modules: [q_proj, v_proj], bias: none, task_type: CAUSAL_LM}
quantization: {load_in_4bit: true, bnb_4bit_compute_dtype: float16, bnb_4bit_use_double_quant: true}
training:
  output_dir: gs://YOUR-BUCKET-NAME/models
  num_train_epochs: 2
  per_device_train_batch_size: 3
  gradient_accumulation_steps: 5
  per_device_eval_batch_size: 2
  learning_rate: 1e-4
  evaluation_strategy: steps
  eval_steps: 7
  save_total_limit: 1
  report_to: [tensorboard, mlflow]
data: {train_file: /data/train.jsonl, val_file: /data/val.jsonl, max_samples_val: 10}
logging: {project_name: my-sql, run_name: first try, log_dir: gs://YOUR-BUCKET-NAME/logs}
"""
MATHS = """\
model: {model_id: org/small-it, max_input_tokens: 300, max_total_tokens: 400}
training: {learning_rate: 2e-4, batch_size: 2, gradient_accumulation_steps: 4, max_steps: 50, num_train_epochs: 3}
data: {train_file: a.json, validation_file: b.json, test_file: c.json}
experiment: {name: maths-1, project: maths, workspace: someone}
"""
CHAT = """\
model: {name: org/chat, dtype: null, load_in_4bit: true, token: hf_abcdefghijklmnop}
lora: {r: 4, lora_alpha: 4, lora_dropout: 0, use_gradient_checkpointing: unsloth}
dataset: {data_path: talks.json, format: json, split: train, text_field: text, message_field: messages}
training: {per_device_train_batch_size: 2, gradient_accumulation_steps: 4, max_steps: 3, report_to: none}
save: {method: METHOD, save_path: out, push_to_hub: false}
"""
AXOLOTL = """\
base_model: org/base
load_in_8bit: true
datasets:
  - {path: org/alpaca_set, type: alpaca}
  - {path: more.jsonl, type: alpaca}
val_set_size: 0.05
adapter: lora
lora_model_dir:
lora_r: 32
lora_alpha: 16
lora_target_linear: true
sequence_len: 1024
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
evals_per_epoch: 4
special_tokens: {pad_token: "<pad>"}
wandb_project: things
"""
LLAMA_FACTORY = """\
model_name_or_path: org/instruct
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
quantization_bit: 4
output_dir: saves/lora
save_steps: 500
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
val_size: 0.1
eval_strategy: steps
eval_steps: 500
"""
TRL = """\
model_name_or_path: org/base
dataset_name: org/talks
use_peft: false
lora_r: 16
attn_implementation: sdpa
torch_dtype: bfloat16
bf16: true
max_length: 4096
packing: true
assistant_only_loss: true
lr_scheduler_type: cosine_with_min_lr
eos_token: <|im_end|>
output_dir: data/sft
"""


def adopted(folder: Path, text: str) -> tuple[Adopted, RunConfig]:
    (folder / "old.yaml").write_text(text)
    result = adopt(folder / "old.yaml")
    (folder / "recipe.yaml").write_text(result.recipe)
    return result, load_config(folder / "recipe.yaml", environ=FILLED).config


def left(result: Adopted) -> dict[str, str]:
    return {item.key: item.reason for item in result.left}


def leaves(value: Any, key: str = "") -> set[str]:
    if isinstance(value, dict) and value:
        return {leaf for k, v in value.items() for leaf in leaves(v, f"{key}.{k}" if key else str(k))}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {leaf for i, v in enumerate(value) for leaf in leaves(v, f"{key}.{i}")}
    return {key}


@pytest.mark.parametrize("text", [SQL, MATHS, CHAT, AXOLOTL, LLAMA_FACTORY, TRL])
def test_every_old_setting_is_carried_or_left_with_a_reason(text: str, tmp_path: Path) -> None:
    result, _ = adopted(tmp_path, text)
    assert {item.key for item in [*result.carried, *result.left]} == leaves(yaml.safe_load(text))
    assert all(item.reason for item in result.left)
    for item in result.left:
        assert f"#   {item.key}: " in result.recipe


def test_a_config_with_sections_for_sql(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, SQL)
    assert config.name == "first-try"
    assert (config.train.batch_size, config.train.max_tokens) == (15, 1536)
    assert config.train.precision == "fp16"
    assert config.model.quantization is not None
    assert config.model.quantization.bnb_4bit_compute_dtype == "float16"
    assert config.lora is not None
    assert (config.lora.lora_dropout, config.train.share_prefixes) == (0.05, False)
    assert config.train.lr_scheduler_type == "linear", "what the old tool does when nothing is written"
    assert config.output_dir == Path.cwd() / "runs"
    assert config.checkpoints.keep_last == 2
    assert config.tracking.report_to == ["tensorboard"]
    assert config.data.validation is not None and config.data.validation.max_samples == 10
    reasons = left(result)
    assert "local folder" in reasons["training.output_dir"]
    assert "tensorboard, wandb" in reasons["training.report_to"]
    assert "task: sql" in result.recipe
    assert "batch_size: 15  # training.per_device_train_batch_size, training.gradient_accumulation" in result.recipe


def test_a_config_with_sections_for_maths(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, MATHS)
    assert config.task.name == "maths"
    assert (config.train.batch_size, config.train.max_steps) == (8, 50)
    assert (config.data.max_length, config.generate.max_new_tokens) == (400, 100)
    assert config.data.test["test"].path == str(tmp_path / "c.json")
    assert left(result)["training.num_train_epochs"] == "max_steps: 50 wins over it"
    assert "COMET_WORKSPACE" in left(result)["experiment.workspace"]


@pytest.mark.parametrize(("method", "format"), [("lora", "adapter"), ("merged_16bit", "merged"), ("gguf", "adapter")])
def test_a_config_with_sections_for_chat(method: str, format: str, tmp_path: Path) -> None:
    result, config = adopted(tmp_path, CHAT.replace("METHOD", method))
    assert [export.format for export in config.exports] == [format]
    assert ("not supported yet" in left(result).get("save.method", "")) == (method == "gguf")
    assert config.data.train is not None and config.data.train.format == "messages"
    assert config.train.gradient_checkpointing
    assert config.tracking.report_to == []
    assert "HF_TOKEN" in left(result)["model.token"]
    assert "hf_abc" not in result.recipe + repr(result.left)


def test_axolotl(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, AXOLOTL)
    assert result.dialect == "Axolotl"
    assert config.data.train is not None
    assert (config.data.train.path, config.data.train.format) == ("hf://org/alpaca_set", "alpaca")
    assert config.model.quantization is not None and config.model.quantization.bits == 8
    assert config.lora is not None
    assert (config.lora.r, config.lora.target_modules) == (32, "all-linear")
    assert (config.train.batch_size, config.train.precision) == (8, "auto")
    assert config.train.extra == {"tf32": False}
    assert config.data.validation_share == 0.05
    assert config.tracking.project == "things" and "wandb" in config.tracking.report_to
    assert "join the files" in left(result)["datasets.1.path"]


def test_axolotl_without_an_adapter_trains_all_weights(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, AXOLOTL.replace("adapter: lora\n", "adapter:\n"))
    assert config.lora is None and config.model.quantization is None
    assert "all weights" in left(result)["lora_r"]


def test_llama_factory(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, LLAMA_FACTORY)
    assert config.train.method == "sft"
    assert config.lora is not None
    assert (config.lora.r, config.lora.lora_alpha, config.lora.target_modules) == (8, 16, "all-linear")
    assert config.data.train is not None
    assert (config.data.train.path, config.data.train.max_samples) == (str(tmp_path / "train.jsonl"), 1000)
    assert "registry" in left(result)["dataset"]
    assert config.model.quantization is not None and config.model.quantization.bits == 4


def test_trl(tmp_path: Path) -> None:
    result, config = adopted(tmp_path, TRL)
    assert config.lora is None
    assert config.model.end_token == "<|im_end|>"
    assert config.data.train is not None and config.data.train.path == "hf://org/talks"
    assert (config.train.precision, config.model.dtype) == ("bf16", "bfloat16")
    assert "`train.lr_scheduler_type` must be one of" in left(result)["lr_scheduler_type"]


def test_what_is_not_another_tools_config_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    for text, says in [
        ("task: chat\nmodel: {name: demo}\n", "a Tunesmith recipe already"),
        ("colour: blue\n", "none of its keys"),
        ("- 1\n", "mapping"),
    ]:
        old.write_text(text)
        with pytest.raises(ConfigError, match=says):
            adopt(old)


KEYS = sorted(
    {*WORDS, *WORDS.values(), *REASONS, "adapter", "dataset", "learning_rate", "bf16", "save_steps", "colour"}
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3000),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["auto", "float16", "no", "epoch", "true", "2e-4", "gs://b/x", "a/b", "x.jsonl", "lora", "full", "."]
    ),
    st.sampled_from(["hf_abcdefghijklmnop", "postgresql://u:p@h/d", "${HOME}", "sft", "all", "none", "fa2", "unsloth"]),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
    st.lists(st.sampled_from(["q_proj", "wandb", "none", 1]), max_size=2),
    st.just({}),
)
FLAT = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12)


@given(
    old=st.one_of(
        st.builds(lambda a, b: {"base_model": "org/base", **a, "datasets": b}, FLAT, st.lists(FLAT, max_size=2)),
        st.builds(lambda a: {"finetuning_type": "lora", **a}, FLAT),
        st.builds(lambda a: {"model_name_or_path": "org/base", **a}, FLAT),
        st.fixed_dictionaries({"model": FLAT, "training": FLAT, "lora": FLAT, "data": FLAT, "save": FLAT}),
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_an_old_config_says_nothing_is_lost_and_the_recipe_loads(
    old: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("old")
    text = yaml.safe_dump(old, allow_unicode=True)
    try:
        result, _ = adopted(folder, text)
    except ConfigError as error:
        assert "none of its keys" in str(error), error
        return
    assert {item.key for item in [*result.carried, *result.left]} == leaves(old)
    assert "hf_abc" not in result.recipe
    assert "u:p@" not in result.recipe
