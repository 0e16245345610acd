"""What is asked is read back from what trains; what nothing reads stops the run; every key of the schema is covered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

import tunesmith
from tunesmith.check import examine, live
from tunesmith.check.live import READERS
from tunesmith.check.readers import find_readers
from tunesmith.check.receipt import Line, Receipt, dry_receipt, read_receipt
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.config.shape import ROOT, Shape, dotted, known_keys, leaves, shape_of_field
from tunesmith.train import build_trainer

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
    (folder / "receipt_losses.py").write_text(
        "def double(logits, labels):\n    return 2 * logits.sum()\ndef metric(example, text):\n    return None\n"
    )
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
                known[overrides] = dry_receipt(subject, build_trainer)
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
    assert line_of(receipt, "data.max_dropped").where.startswith("data/identity.py:")


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
    "tracking.project": "tracking.project=mine", "tracking.profile_steps": "tracking.profile_steps=4",
    "generate.max_new_tokens": "generate.max_new_tokens=33", "generate.temperature": "generate.temperature=0.7",
    "generate.batch_size": "generate.batch_size=5",
}  # fmt: skip
"""For every setting that is read back from an object, another value."""
FOUR = ["model.quantization={bits: 4}"]
TESTED = ["data.test={mine: other.jsonl}"]
CHOSEN = ["evaluate.select={examples: 25}"]
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
    "evaluate.max_samples": (TESTED, "evaluate.max_samples=11"),
    "evaluate.confidence": (TESTED, "evaluate.confidence=0.9"),
    "evaluate.select.examples": (CHOSEN, "evaluate.select.examples=20"),
    "evaluate.select.metric": (CHOSEN, "evaluate.select.metric=format"),
    "evaluate.select.stop": (CHOSEN, "evaluate.select.stop=false"),
    "evaluate.select.min_gain": (CHOSEN, "evaluate.select.min_gain=0.02"),
    "evaluate.select.improbable": (CHOSEN, "evaluate.select.improbable=0.1"),
    "evaluate.select.least": (CHOSEN, "evaluate.select.least=4"),
}  # fmt: skip
"""The same for settings that need others beside them."""
ELSEWHERE = {
    "generate.constrain", "evaluate.select", "evaluate.metrics", "evaluate.slices",
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


def test_a_metric_of_the_users_is_the_function_that_grading_imported(
    receipt_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(receipt_of.folder)
    monkeypatch.chdir(receipt_of.folder)
    receipt = receipt_of(*TESTED, "evaluate.metrics={mine: 'receipt_losses:metric'}")
    line = line_of(receipt, "evaluate.metrics.mine")
    assert (line.in_force, line.status) == ("receipt_losses:metric", "in force")


def test_grading_that_ignores_a_setting_is_told(receipt_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a `generate` that was handed other settings than the recipe's."""
    from tunesmith.check import answering

    usual = answering.generate
    monkeypatch.setattr(
        answering, "generate", lambda m, t, p, config, *rest, **more: usual(
            m, t, p, config.model_copy(update={"batch_size": 3, "temperature": 0.0}), *rest, **more
        ),
    )  # fmt: skip
    receipt = receipt_of("generate.temperature=0.9", "name=ignored")
    assert {f.place for f in receipt.findings} == {"generate.batch_size", "generate.temperature"}


def test_a_run_that_answers_with_beams_has_a_receipt_too(receipt_of: Any) -> None:
    """Grading is read back with a model that keeps no keys and values, of which beams are made."""
    receipt = receipt_of("generate.beams=4", "generate.max_new_tokens=5")
    assert receipt.findings == (), receipt.text()
    assert line_of(receipt, "generate.max_new_tokens").in_force == "5"


def test_a_further_argument_of_the_trainer_is_read_back(receipt_of: Any) -> None:
    receipt = receipt_of("train.extra={adam_beta1: 0.8}")
    line = line_of(receipt, "train.extra.adam_beta1")
    assert (line.in_force, line.status) == ("0.8", "in force")


def test_every_setting_that_is_read_back_is_tried() -> None:
    assert set(READERS) == {*MUTATIONS, *TOGETHER, *ELSEWHERE}


def test_every_key_of_the_schema_is_read_back_or_read_by_code() -> None:
    """A new setting needs a line of code that reads it (or, better, a reader in `check/live.py`)."""

    keys = {tuple(key.split(".")) for key in set(_leaf_keys()) - ALSO - set(READERS)}
    assert {".".join(key) for key in keys - set(find_readers(keys))} == set()


def test_a_key_that_no_code_reads_is_not_found() -> None:
    read, unread = ("evaluate", "confidence"), ("train", "no_such_setting_anywhere")
    assert set(find_readers([read, unread])) == {read}


def test_names_that_the_user_chose_are_no_settings(receipt_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(receipt_of.folder)
    receipt = receipt_of("data.test={mine.own: {path: other.jsonl, where: {set: other}}}", "data.max_dropped=1")
    assert receipt.findings == ()


def test_what_differs_from_what_was_asked_stops_the_run(receipt_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with examine(load_config(receipt_of.folder / "recipe.yaml", environ={})) as subject:
        seen: list[live.Live] = []
        monkeypatch.setattr("tunesmith.check.receipt.read_receipt", lambda objects: seen.append(objects))
        dry_receipt(subject, build_trainer)
    for group in seen[0].optimizer.param_groups:
        group["weight_decay"] = 0.3
    wrong = read_receipt(seen[0]).findings
    assert [finding.place for finding in wrong] == ["train.weight_decay"]
    assert "asked as 0 and is 0.3" in wrong[0].message


# --- every key of the schema: another value of it is another line of the receipt -------------------------------------

PACKAGE = Path(tunesmith.__file__).parent
SOURCE = {"path": "train.jsonl", "format": "custom", "formatter": "m:f"}
JUDGE = {"endpoint": "http://127.0.0.1:9/v1#m"}
COMMON: dict[str, Any] = {
    "data": {
        "train": SOURCE, "validation": SOURCE, "test": {"mine": SOURCE},
        "leaks": {"unseen_skeletons": ["mine"], "unseen_databases": ["mine"], "against": [SOURCE]},
    },
    "model": {"name": "demo", "quantization": {}}, "train": {"eval_steps": 2}, "evaluate": {"select": {}},
    "exports": [{"format": "merged"}], "limits": {"max_hours": 1, "max_cost": 1, "price_per_hour": 1},
    "tracking": {"report_to": ["wandb"]},
}  # fmt: skip
TASKS: list[dict[str, Any]] = [
    {"name": "sql", "databases": {"shop": None}, "build": {}}, {"name": "maths", "build": {}},
    {"name": "chat", "build": {}, "judge": JUDGE}, {"name": "custom", "target": "m:C"},
]  # fmt: skip
HUB = {"path": "hf://some/set"}
BESIDE: dict[str, dict[str, Any]] = {
    "task.constrain_values": {"generate": {"constrain": "schema"}},
    "task.try_queries": {"generate": {"constrain": "schema", "beams": 4}},
    "generate.coverage": {"generate": {"constrain": "schema", "beams": 4}},
    "generate.lexicon": {"generate": {"beams": 4}},
    "data.train.format": {"data": {"train": HUB}}, "data.train.split": {"data": {"train": HUB}},
    "data.validation.format": {"data": {"train": HUB, "validation": HUB}},
    "data.validation.split": {"data": {"train": HUB, "validation": HUB}},
    "data.validation_share": {"data": {"train": HUB}}, "data.test": {"data": {"train": HUB}},
}  # fmt: skip
"""What must stand beside a key instead of `COMMON`, so that it counts."""
OTHERS = [
    False, True, 0.02, 0.3, 0.55, 0.8, 2, 3, 5, 30, 70, 3000, 5000, "word", "word.jsonl", "other:one", "env:OTHER",
    "http://127.0.0.1:8/v1#m", "2024-03-01", "gs://bucket/runs", ["mine"], [], ["q_proj"], {"a": "b:c"},
    "float16", {"adam_beta1": 0.8}, {"other": "other.jsonl"}, {"pets": ["animal"]}, [{"format": "adapter"}], None,
]  # fmt: skip
"""Values of which one fits every setting and is not what stands there."""
ONLY = {"schema_version", "train.method"}
"""Settings whose type allows one value."""
ALSO = {"exports.0.dtype", "exports.0.max_shard_size", "data.test.mine.path", "data.test.mine.max_samples"}
"""Keys inside lists and mappings of free names."""


def _leaf_keys() -> list[str]:
    keys = {key for key, _, _ in known_keys()}
    return sorted({key for key in keys if not any(other.startswith(f"{key}.") for other in keys)} | ALSO)


def _options(key: str) -> tuple[Any, ...]:
    """The words of a setting that is a choice."""
    found: set[str] = set()

    def walk(shape: Shape, parts: list[str]) -> None:
        if not parts:
            found.update(one for kind in shape.kinds for one in (get_args(kind) or (kind,)) if isinstance(one, str))
        for section in shape.sections if parts else ():
            if parts[0] in section.model_fields:
                walk(shape_of_field(section.model_fields[parts[0]]), parts[1:])

    walk(ROOT, key.split("."))
    return tuple(sorted(found))


def _changed(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any] | None:
    """Settings with another value at a key; None where the key is not there."""
    made = json.loads(json.dumps(settings, default=str))
    at: Any = made
    *parts, last = key.split(".")
    for part in parts:
        at = at[int(part)] if isinstance(at, list) else at.get(part) if isinstance(at, dict) else None
        if at is None:
            return None
    if isinstance(at, dict) and last not in at:
        return None
    at[last] = value
    return made


def _pairs(key: str) -> Iterator[tuple[RunConfig, RunConfig]]:
    """Settings that differ in one key."""
    if key == "task.name":
        first, second = (RunConfig.model_validate({**COMMON, "task": {"name": name}}) for name in ("chat", "maths"))
        yield first, second
    for task in TASKS:
        before = RunConfig.model_validate({**COMMON, **BESIDE.get(key, {}), "task": task})
        for value in (*_options(key), *OTHERS):
            changed = _changed(before.model_dump(mode="json"), key, value)
            if changed is None:
                break
            try:
                after = RunConfig.model_validate(changed)
            except (ValidationError, ValueError):
                continue
            if before != after:
                yield before, after


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Callable[..., Path]) -> live.Live:
    """What a small run would train."""
    folder = tmp_path_factory.mktemp("keys")
    turns = [{"role": "user", "content": "Say."}, {"role": "assistant", "content": "One!"}]
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": turns, "n": n}) + "\n" for n in range(9)))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: a\ntask: chat\noutput_dir: {folder / 'runs'}\nmodel: {{name: {tiny_model_dir('llama')}}}\n"
        "data: {train: train.jsonl, validation_share: 0}\ntracking: {report_to: []}\n"
    )
    seen: list[live.Live] = []
    with pytest.MonkeyPatch.context() as patch, examine(load_config(recipe, environ={})) as subject:
        patch.setattr("tunesmith.check.receipt.read_receipt", lambda made: seen.append(made))
        dry_receipt(subject, build_trainer)
    return seen[0]


def _lines(objects: live.Live, config: RunConfig, key: str) -> list[Line]:
    receipt = read_receipt(dataclasses.replace(objects, config=config))
    return [line for line in receipt.lines if line.key == key or line.key.startswith(f"{key}.")]


@pytest.mark.parametrize("key", sorted({*_leaf_keys()} - ONLY - {*MUTATIONS, *TOGETHER}))
def test_another_value_of_any_key_is_another_line_of_the_receipt(
    objects: live.Live, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_function_agrees", lambda asked, found, objects: True)  # nothing to import
    monkeypatch.setattr("tunesmith.check.answering.load_metrics", lambda wanted: dict.fromkeys(wanted, print))
    tried = []
    for before, after in _pairs(key):
        old, new = _lines(objects, before, key), _lines(objects, after, key)
        tried.append((old, new))
        if {line.asked for line in old} == {line.asked for line in new}:
            continue
        if key in live.READERS:  # read back from an object; `test_receipt.py` changes the object too
            return
        status = {line.status for line in (*old, *new)}
        if "unread" not in status and "later" in status and {x.in_force for x in old} != {x.in_force for x in new}:
            for line in new:
                _require_a_reader(line)
            return
    raise AssertionError(f"no other value of {key} changes the receipt: {tried[:3]}")


def _require_a_reader(line: Line) -> None:
    """The code that the receipt names is there and reads a setting of this name."""
    place, _, number = line.where.partition(":")
    if line.status != "later" or not number:
        return
    code = (PACKAGE / place).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert any(f".{part}" in code for part in line.key.split(".")), (line, code)


def test_the_keys_with_one_value_have_no_other() -> None:
    fields = {dotted(key) for key, _ in leaves(RunConfig.model_validate({**COMMON, "task": TASKS[2]}))}
    assert fields >= ONLY
    for key in ONLY:
        assert not list(_pairs(key)), key
