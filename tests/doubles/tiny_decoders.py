"""Random two-layer models of several architectures, a tokenizer of letters for them, and a constraint."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 257,
    "eos_token_id": 256,
    "pad_token_id": 258,
    "initializer_range": 0.3,
}
MODELS: dict[str, Callable[[], Any]] = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "mistral with a sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=24)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, sliding_window=24)),
}


def tiny(kind: str) -> Any:
    torch.manual_seed(1)
    return MODELS[kind]().eval()


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """A letter of its own for every id, so that equal text is equal ids; ids 48 to 57 are the digits."""
    letters = {chr(i) if 48 <= i < 58 else chr(0x4E00 + i): i for i in range(300) if i not in (256, 257, 258)}
    core = Tokenizer(models.WordLevel({**letters, "</s>": 256, "<s>": 257, "<pad>": 258}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", bos_token="<s>", pad_token="<pad>")


def some_prompts(schemas: int, questions: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    prompts = []
    for _ in range(schemas):
        schema = [257, *(rng.randrange(256) for _ in range(40))]
        prompts += [schema + [rng.randrange(256) for _ in range(rng.randint(2, 12))] for _ in range(questions)]
    rng.shuffle(prompts)
    return prompts


class OnlyDigits:
    """An answer of three digits or more."""

    def allows(self, text: str) -> bool:
        return all(letter in "0123456789" for letter in text)

    def complete(self, text: str) -> bool:
        return len(text) >= 3
