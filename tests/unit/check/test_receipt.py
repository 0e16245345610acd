"""What is asked is read back from what trains; what nothing reads stops the run; every key of the schema is covered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.check import examine
from tunesmith.check.live import READERS
from tunesmith.check.readers import find_readers
from tunesmith.check.receipt import Receipt, dry_receipt
from tunesmith.config.load import load_config
from tunesmith.config.shape import known_keys
from tunesmith.train import BUILDERS

GONE = "{{ '<s>' }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
FORM = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


@pytest.fixture(scope="module")
def receipt_of(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Callable[..., Path]) -> Callable[..., Receipt]:
    """`receipt_of("train.optim=sgd")`: everything that would train under these settings, read back."""
    folder = tmp_path_factory.mktemp("receipt")
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(30)
    ]
    for name in ("train", "other", "validation"):
        text = "".join(json.dumps({**row, "set": name}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text.replace("Say", name.title()))
    (folder / "template.jinja").write_text(GONE + FORM)
    (folder / "receipt_losses.py").write_text("def double(logits, labels):\n    return 2 * logits.sum()\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: a\ntask: chat\noutput_dir: {folder / 'runs'}\nmodel: {{name: {tiny_model_dir('llama')}}}\n"
        "data: {train: train.jsonl, validation: validation.jsonl}\ntracking: {report_to: []}\n"
        "train: {batch_size: 8, num_train_epochs: 2, eval_steps: 2}\n"
    )
    known: dict[tuple[str, ...], Receipt] = {}

    def make(*overrides: str) -> Receipt:
        if overrides not in known:
            with examine(load_config(recipe, overrides, environ={})) as subject:
                known[overrides] = dry_receipt(subject, BUILDERS["sft"])
        return known[overrides]

    make.folder = folder  # type: ignore[attr-defined]
    return make


def line_of(receipt: Receipt, key: str) -> Any:
    return next(line for line in receipt.lines if line.key == key)


def test_a_healthy_run_has_a_receipt_without_a_fault(receipt_of: Any) -> None:
    receipt = receipt_of()
    assert receipt.findings == (), receipt.text()
    assert line_of(receipt, "train.learning_rate").in_force == "0.0002"
    assert (
        line_of(receipt, "train.max_steps").status == "resolved" and line_of(receipt, "train.max_steps").in_force == "8"
    )
    assert line_of(receipt, "evaluate.confidence").status == "idle"
    assert line_of(receipt, "data.max_dropped").where.startswith("data/prepare.py:")


MUTATIONS = {
    "name": "name=b", "output_dir": "output_dir=/tmp/elsewhere", "seed": "seed=7",
    "train.num_train_epochs": "train.num_train_epochs=3", "train.max_steps": "train.max_steps=5",
    "train.batch_size": "train.batch_size=9", "train.max_tokens": "train.max_tokens=99",
    "train.share_prefixes": "train.share_prefixes=false", "train.learning_rate": "train.learning_rate=3e-4",
    "train.lr_scheduler_type": "train.lr_scheduler_type=linear", "train.warmup_ratio": "train.warmup_ratio=0.5",
    "train.warmup_steps": "train.warmup_steps=3", "train.weight_decay": "train.weight_decay=0.1",
    "train.max_grad_norm": "train.max_grad_norm=0.5", "train.optim": "train.optim=sgd",
    "train.adam_beta2": "train.adam_beta2=0.95", "train.precision": "train.precision=bf16",
    "train.gradient_checkpointing": "train.gradient_checkpointing=true",
    "train.dataloader_num_workers": "train.dataloader_num_workers=1", "train.logging_steps": "train.logging_steps=3",
    "train.eval_steps": "train.eval_steps=3", "train.early_stopping_patience": "train.early_stopping_patience=2",
    "train.loss": "train.loss=receipt_losses:double", "train.spike_sigma": "train.spike_sigma=9",
    "lora": "lora=null",
    "lora.r": "lora.r=3", "lora.lora_alpha": "lora.lora_alpha=5", "lora.target_modules": "lora.target_modules=[q_proj]",
    "lora.modules_to_save": "lora.modules_to_save=[lm_head]", "lora.bias": "lora.bias=lora_only",
    "lora.use_rslora": "lora.use_rslora=true", "lora.loraplus_lr_ratio": "lora.loraplus_lr_ratio=4",
    "model.dtype": "model.dtype=bfloat16",
    "model.quantization": "model.quantization={bits: 8}",
    "model.attn_implementation": "model.attn_implementation=eager",
    "model.chat_template": "model.chat_template={folder}/template.jinja",
    "data.train.path": "data.train=other.jsonl",
    "data.max_length": "data.max_length=8", "checkpoints.save_steps": "checkpoints.save_steps=3",
    "tracking.project": "tracking.project=mine",
}  # fmt: skip
"""For every setting that is read back from an object, another value."""
FOUR = ["model.quantization={bits: 4}"]
TOGETHER = {
    "train.dataloader_prefetch_factor": (["train.dataloader_num_workers=1"], "train.dataloader_prefetch_factor=5"),
    "lora.lora_dropout": (["train.share_prefixes=false"], "lora.lora_dropout=0.1"),
    "model.quantization.bits": (FOUR, "model.quantization.bits=8"),
    "model.quantization.bnb_4bit_quant_type": (FOUR, "model.quantization.bnb_4bit_quant_type=fp4"),
    "model.quantization.bnb_4bit_use_double_quant": (
        FOUR, "model.quantization.bnb_4bit_use_double_quant=false"
    ),
    "model.quantization.bnb_4bit_compute_dtype": (
        FOUR, "model.quantization.bnb_4bit_compute_dtype=float16"
    ),
}  # fmt: skip
"""The same for settings that need others beside them."""
ELSEWHERE = {
    "model.name", "model.end_token", "model.device_map", "train.method", "train.dataloader_pin_memory",
    "data.train.format", "data.validation.path", "data.validation.format", "tracking.report_to",
}  # fmt: skip
"""Read back too; their other values need a GPU, a package, another model or other data, or have no other value."""


def _moves(receipt_of: Any, monkeypatch: pytest.MonkeyPatch, key: str, before: list[str], change: str) -> None:
    folder = receipt_of.folder
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    change = change.replace("{folder}", str(folder))
    if key == "data.max_length":
        change = "data.max_length=40"
    old, new = receipt_of(*before), receipt_of(*before, change)
    was, now = line_of(old, key), line_of(new, key)
    if key == "data.max_length":  # a limit: what is read back is the longest row, which must stay within it
        assert int(now.in_force) <= int(now.asked) == 40
        return
    assert now.in_force != was.in_force, (was, now)
    assert now.status in ("in force", "resolved"), now
    assert new.findings == (), new.findings


@pytest.mark.parametrize("key", MUTATIONS)
def test_a_setting_that_changes_changes_what_is_in_force(
    receipt_of: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if key in ("lora", "model.quantization"):
        change = MUTATIONS[key]
        old, new = receipt_of(), receipt_of(*([change] if key != "lora" else [change, "exports=[{format: merged}]"]))
        assert {line.key: line.in_force for line in old.lines} != {line.key: line.in_force for line in new.lines}
        assert new.findings == ()
        return
    _moves(receipt_of, monkeypatch, key, [], MUTATIONS[key])


@pytest.mark.parametrize("key", TOGETHER)
def test_a_setting_that_needs_another_changes_what_is_in_force(
    receipt_of: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    before, change = TOGETHER[key]
    _moves(receipt_of, monkeypatch, key, before, change)


def test_a_further_argument_of_the_trainer_is_read_back(receipt_of: Any) -> None:
    receipt = receipt_of("train.extra={adam_beta1: 0.8}")
    line = line_of(receipt, "train.extra.adam_beta1")
    assert (line.in_force, line.status) == ("0.8", "in force")


def test_every_setting_that_is_read_back_is_tried() -> None:
    assert set(READERS) == {*MUTATIONS, *TOGETHER, *ELSEWHERE}


def _leaf_keys() -> set[str]:
    keys = {key for key, _, _ in known_keys()}
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def test_every_key_of_the_schema_is_read_back_or_read_by_code() -> None:
    """A new setting needs a line of code that reads it (or, better, a reader in `check/live.py`)."""

    keys = {tuple(key.split(".")) for key in _leaf_keys() - set(READERS)}
    assert {".".join(key) for key in keys - set(find_readers(keys))} == set()


def test_a_key_that_no_code_reads_is_not_found() -> None:
    read, unread = ("evaluate", "confidence"), ("train", "no_such_setting_anywhere")
    assert set(find_readers([read, unread])) == {read}


def test_names_that_the_user_chose_are_no_settings(receipt_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(receipt_of.folder)
    receipt = receipt_of("data.test={mine.own: {path: other.jsonl, where: {set: other}}}", "data.max_dropped=1")
    assert receipt.findings == ()


def test_what_differs_from_what_was_asked_stops_the_run(receipt_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.check import live
    from tunesmith.check.receipt import read_receipt

    with examine(load_config(receipt_of.folder / "recipe.yaml", environ={})) as subject:
        seen: list[live.Live] = []
        monkeypatch.setattr("tunesmith.check.receipt.read_receipt", lambda objects: seen.append(objects))
        dry_receipt(subject, BUILDERS["sft"])
    for group in seen[0].optimizer.param_groups:
        group["weight_decay"] = 0.3
    wrong = read_receipt(seen[0]).findings
    assert [finding.place for finding in wrong] == ["train.weight_decay"]
    assert "asked as 0 and is 0.3" in wrong[0].message
