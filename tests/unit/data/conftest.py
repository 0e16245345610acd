"""A tokenizer trained in memory, of each of the two common kinds, and chat templates of four families."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = [
    "You are a PostgreSQL expert. Answer with one query.",
    "How many clinics are there? SELECT count(*) FROM clinic WHERE city = 'Huế';",
    "Cho hình chữ nhật có chu vi 200 cm. Đáp số: 15 giờ. user assistant system model",
    "The quick brown fox jumps over the lazy dog, twice.\n\nThen it sleeps.",
]
SPECIAL = [
    "<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip

MISTRAL = """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% set ns = m.content + '\n\n' %}\
{% elif m.role == 'user' %}{{ ' [INST] ' }}{% if loop.index0 == 1 and messages[0].role == 'system' %}\
{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}\
{% endif %}{% endfor %}"""
LLAMA = """{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' +\
 m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
CHATML = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}\
{{ raise_exception('System role not supported') }}\
{% endif %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim +\
 '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
TEMPLATES = {"mistral": MISTRAL, "llama": LLAMA, "chatml": CHATML, "gemma": GEMMA}
ENDS = {"mistral": "</s>", "llama": "<|eot_id|>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}


def _trained(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind == "metaspace"))
    special = [AddedToken(word, special=True) for word in SPECIAL]
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = []
        special += [AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def backends() -> dict[str, str]:
    return {kind: _trained(kind).to_str() for kind in ("bytes", "metaspace")}


@pytest.fixture
def make_tokenizer(backends: dict[str, str]) -> Any:
    """`make_tokenizer(family, kind)`: a transformers tokenizer with that family's template and special tokens."""
    from transformers import PreTrainedTokenizerFast

    def make(family: str = "chatml", kind: str = "bytes", template: str | None = None) -> Any:
        bos = {"llama": "<|begin_of_text|>", "gemma": "<bos>"}.get(family, "<s>")
        eos = {"llama": "<|eot_id|>", "gemma": "<eos>", "chatml": "<|im_end|>"}.get(family, "</s>")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(backends[kind]), bos_token=bos, eos_token=eos, pad_token=eos
        )
        tokenizer.chat_template = template or TEMPLATES[family]
        return tokenizer

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Public data outside the repository, named by TUNESMITH_DATA; tests that need it skip without."""
    folder = os.environ.get("TUNESMITH_DATA")
    if not folder:
        pytest.skip("set TUNESMITH_DATA to a folder of public data")
    return Path(folder)
