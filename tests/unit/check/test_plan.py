"""The forecast of a run: from its config alone, on its data, for every card; kept and scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.check.cards import Card, card_here, read_cards
from tunesmith.check.footprint import full_row, step_footprint
from tunesmith.check.memory import GIGA, Memory, Span, forecast_memory, state_bytes
from tunesmith.check.plan import keep_plan, make_plan, plan_text, read_scored, score_plan
from tunesmith.check.speed import card_rates, forecast_time
from tunesmith.check.workload import assumed_workload, steps_of, workload_of
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError, ModelError
from tunesmith.train.steps import total_steps


def config_of(**sections: Any) -> RunConfig:
    base: dict[str, Any] = {"task": "chat", "data": {"train": "x.jsonl"}, "model": {"name": "tiny"}}
    return RunConfig.model_validate({**base, **sections})


def mistral(**changes: Any) -> Any:
    from transformers import MistralConfig

    return MistralConfig(sliding_window=4096, dtype="bfloat16", **changes)


def test_mistral_7b_in_nf4_on_an_a100_is_what_was_measured_there() -> None:
    """13.05 GB allocated, 18.03 GB reserved, 1,128 steps, 16.2 s each: a run of another tool, norms in float32."""
    config = config_of(
        data={"train": "x.jsonl", "max_length": 2048, "validation_share": 0},
        model={"name": "mistral", "dtype": "float32", "quantization": {"bits": 4}},
        train={
            "num_train_epochs": 3, "batch_size": 16, "max_tokens": 8192, "gradient_checkpointing": True,
            "optim": "paged_adamw_32bit",
        },
    )  # fmt: skip
    architecture = mistral()
    work = assumed_workload(config, examples=6016, label_share=1.0)
    step = step_footprint(config, architecture, work.worst, gpu=True, compute=torch.bfloat16)
    memory = forecast_memory(config, architecture, work, step, gpu=True)
    card = read_cards(environ={})["A100 40GB"]
    time = forecast_time(config, work, step, card_rates(card, "bf16"), gpu=True)
    assert work.steps == 1128
    assert step.parameters - step.trainable == 7_241_732_096 and step.trainable == 41_943_040
    assert memory.peak.holds(13.05e9) and abs(memory.peak.expected / 13.05e9 - 1) < 0.1
    assert memory.needed.holds(18.03e9)
    assert time.per_step.holds(16.2) and abs(time.per_step.expected / 16.2 - 1) < 0.2
    assert memory.fits(card) == "yes"


def test_layers_that_were_not_simulated_are_those_that_were(tiny_tokenizer: Any) -> None:
    from tunesmith.check import footprint

    config = config_of(train={"gradient_checkpointing": True})
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    architecture = mistral(num_hidden_layers=9, vocab_size=300, **shape)
    row = full_row(96, 32, 40)
    short = step_footprint(config, architecture, row, gpu=False, compute=torch.float32)
    whole = footprint._simulate(config, architecture, row, gpu=False, compute=torch.float32)
    for name in ("parameters", "trainable", "weights", "trained", "activations", "logits"):
        assert getattr(short, name) == pytest.approx(getattr(whole, name), rel=0.02), name
    assert short.flops == pytest.approx(whole.flops, rel=0.001)


@pytest.fixture(scope="module")
def small() -> Callable[..., Any]:
    """The footprint of a two-layer model under settings."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    architecture = mistral(num_hidden_layers=2, vocab_size=300, **shape)

    def measured(
        tokens: int = 256, labels: int = 64, gpu: bool = False, compute: torch.dtype = torch.float32, **sections: Any
    ) -> Any:
        config = config_of(**sections)
        return step_footprint(config, architecture, full_row(tokens, 64, labels), gpu=gpu, compute=compute)

    return measured


def test_what_is_said_to_save_memory_does(small: Callable[..., Any]) -> None:
    plain = small()
    assert small(train={"gradient_checkpointing": True}).activations < 0.7 * plain.activations
    assert small(tokens=1024).activations > 2 * plain.activations
    assert small(model={"name": "tiny", "quantization": {"bits": 4}}).weights < 0.5 * plain.weights
    assert small(model={"name": "tiny", "dtype": "bfloat16"}).weights == plain.weights // 2
    full = small(lora=None)
    assert full.weights == 0 and full.trained == 4 * full.parameters == 4 * full.trainable
    assert small(train={"gradient_checkpointing": True}).flops > 1.2 * plain.flops


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_a_simulated_step_holds_what_a_real_one_does(small: Callable[..., Any], compute: torch.dtype) -> None:
    """The same model, the same row, with data: every tensor it makes, counted while it lives."""
    from transformers import AutoModelForCausalLM

    from tunesmith.check.footprint import _call, _Ledger, _storages
    from tunesmith.config.schema import Lora
    from tunesmith.model.attention import rows_in
    from tunesmith.model.lora import add_lora

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(mistral(num_hidden_layers=2, vocab_size=300, **shape)).float()
    model = add_lora(model.requires_grad_(False), Lora()).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    call = _call(model, full_row(256, 64, 64), products=compute)
    with rows_in(model), _Ledger(300, _storages(model)) as ledger:
        loss = call.loss(compute)
        ledger.forward = False
        (loss / 64).backward()
    real, told = sum(ledger.at_peak[name] for name in ("activations", "logits", "workspace")), small(compute=compute)
    assert told.activations + told.logits + told.workspace == pytest.approx(real, rel=0.05)


def test_a_model_that_cannot_be_built_is_an_error_with_a_way_out() -> None:
    from tunesmith.check.plan import read_architecture

    with pytest.raises(ModelError, match="config cannot be read"):
        read_architecture(config_of(model={"name": "/nowhere/at/all"}))


def test_optimizers_keep_what_they_are_known_to_keep() -> None:
    assert (state_bytes("adamw_torch"), state_bytes("paged_adamw_8bit"), state_bytes("sgd")) == (8.0, 2.1, 4.0)


# --- the workload -----------------------------------------------------------------------------------------------------


def test_settings_alone_need_to_say_how_long_a_run_is() -> None:
    with pytest.raises(ConfigError, match="--examples"):
        assumed_workload(config_of())
    told = assumed_workload(config_of(train={"max_steps": 7, "batch_size": 4}))
    assert told.steps == 7 and told.assumed


@pytest.mark.parametrize("train", [{"max_steps": 7}, {"num_train_epochs": 2.5, "batch_size": 7}, {"batch_size": 64}])
def test_steps_are_counted_as_the_trainer_counts_them(train: dict[str, Any]) -> None:
    config = config_of(train=train)
    expected = total_steps(100, config.train.batch_size, config.train.num_train_epochs, config.train.max_steps)
    assert steps_of(config, 100) == expected


def test_rows_are_those_of_the_data_with_prefixes_shared(tmp_path: Path) -> None:
    from tunesmith.types import IGNORE, Tokens

    def example(at: int) -> Tokens:
        ids = np.array([1, *range(20, 60), 100 + at, 7, 5], np.int32)
        return Tokens(str(at), ids, np.array([IGNORE] * (len(ids) - 2) + [7, 5], np.int32))

    prepared: Any = SimpleNamespace(train=[example(at) for at in range(32)], validation=[], tests={})
    shared = workload_of(config_of(train={"batch_size": 8, "max_tokens": 512}), prepared)
    alone = workload_of(config_of(train={"batch_size": 8, "max_tokens": 512, "share_prefixes": False}), prepared)
    assert alone.step_tokens == 8 * 44 and shared.step_tokens < 0.3 * alone.step_tokens
    assert shared.worst.labels == 16 and shared.validations == 0


# --- cards ------------------------------------------------------------------------------------------------------------


def test_a_table_of_the_users_replaces_and_adds(tmp_path: Path) -> None:
    own = tmp_path / "cards.yaml"
    own.write_text(
        "A100 40GB: {price_per_hour: {usd: 0.8, date: 2026-11-20, source: us}}\n"
        "B200: {memory_gb: 192, tflops: {bf16: 2250}, bandwidth_gb_s: 8000, matches: [B200]}\n"
    )
    cards = read_cards(environ={"TUNESMITH_CARDS": str(own)})
    price = cards["A100 40GB"].price_per_hour
    assert price is not None and price.usd == 0.8 and str(price.date) == "2026-11-20"
    assert cards["A100 40GB"].memory_gb == 42.4
    found = card_here(cards, "NVIDIA B200")
    assert found is not None and found.name == "B200" and card_here(cards, "NVIDIA Whatever") is None


@pytest.mark.parametrize("text", ["[1]", "A: {memory_gb: -1}", "A: 3", "A100 40GB: {wrong: 1}", "{", "\x00"])
def test_a_wrong_table_is_refused_with_the_form_of_a_right_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "cards.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_cards(tmp_path / "cards.yaml")
    assert caught.value.remedy and "cards.yaml" in caught.value.place


def test_every_card_of_the_table_says_where_its_price_is_from() -> None:
    for card in read_cards(environ={}).values():
        assert card.price_per_hour is None or (card.price_per_hour.source and card.price_per_hour.date)
        assert card_here(read_cards(environ={}), f"NVIDIA {card.matches[0]}") == card


def test_a_run_fits_perhaps_where_its_interval_ends_above_the_card() -> None:
    card = Card(name="c", memory_gb=16, tflops={"fp16": 65}, bandwidth_gb_s=300)
    spans = {"yes": Span(10, 12, 15), "perhaps": Span(12, 15, 18), "no": Span(17, 18, 20)}
    for expected, span in spans.items():
        assert Memory("gpu", {}, span, span.scaled(GIGA)).fits(card) == expected
    assert card.compute("auto") == "fp32" and card.compute("fp16") == "fp16"


# --- the plan as a whole ----------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    (tmp_path / "model").mkdir()
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    mistral(num_hidden_layers=2, vocab_size=300, **shape).save_pretrained(tmp_path / "model")
    config = config_of(
        name="planned", output_dir=tmp_path, model={"name": str(tmp_path / "model")}, train={"max_steps": 50}
    )
    made = make_plan(config, assumed_workload(config), read_cards(environ={}), baseline=400_000_000)
    return SimpleNamespace(config=config, made=made)


def test_a_plan_says_memory_time_and_money_with_intervals_from_a_config_alone(plan: Any) -> None:
    text = plan_text(plan.made)
    assert "50 steps" in text and "activations" in text and "1.99 on 2026-11-16, Lambda" in text
    assert "none known" in text and "note: every example is taken to be 2,048 tokens long" in text
    for outlook in (plan.made.here, *plan.made.cards):
        assert outlook.memory.peak.low < outlook.memory.peak.expected < outlook.memory.peak.high
        assert outlook.time.seconds.low < outlook.time.seconds.expected < outlook.time.seconds.high
    json.dumps(plan.made.figures(), allow_nan=False)


def test_a_run_is_held_against_its_plan_and_the_score_is_kept(plan: Any) -> None:
    keep_plan(plan.made, plan.config.output_dir)
    expected = plan.made.here.memory.peak.expected
    summary = {"peak_rss_mb": expected / 2**20 / 1.25, "seconds": 10.0, "training": {}}
    scored = score_plan(plan.config, summary)
    assert scored is not None and scored["memory"]["error"] == pytest.approx(0.25, abs=0.001)
    assert [one["run"] for one in read_scored(plan.config.output_dir)] == ["planned"]
    other = plan.config.model_copy(update={"seed": 9})
    assert score_plan(other, summary) is None, "a run with other settings is not held against it"
    assert "of 1 forecasts scored here: median error of memory 25 %" in plan_text(
        plan.made, read_scored(plan.config.output_dir)
    )
