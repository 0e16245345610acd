"""The learning rates of LoRA+: the second matrices learn faster, and nothing is trained twice or left out."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, MistralConfig

from tunesmith.config.schema import Lora
from tunesmith.model.lora import add_lora, set_lora_rates


def adapted() -> torch.nn.Module:
    config = MistralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return add_lora(AutoModelForCausalLM.from_config(config), Lora(r=2, bias="none"))


def test_second_matrices_get_their_own_rate_and_keep_what_else_their_group_says() -> None:
    model = adapted()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    set_lora_rates(optimizer, model, 4)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(trained)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[parameter] == (4e-3 if ".lora_B." in name else 1e-3), name
    assert {(group["betas"], group["weight_decay"]) for group in optimizer.param_groups} == {((0.9, 0.98), 0.1)}


def test_a_ratio_of_one_changes_nothing() -> None:
    model = adapted()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    set_lora_rates(optimizer, model, 1)
    assert len(optimizer.param_groups) == 1
