"""A tiny tokenizer and tiny random models of the recipes' architectures, made in memory and saved to a folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A worker for each core: threads of one would spin for a core that another holds (eight times as long, measured).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes says how busy the machine is.
settings.register_profile("tunesmith", deadline=None)
settings.load_profile("tunesmith")

TEXT = [
    "You are a PostgreSQL expert. Answer with one query. How many clinics are there? user assistant system model",
    "SELECT count(*) FROM clinic WHERE city = 'Huế'; Tính chu vi hình chữ nhật. #### 15 giờ. Hello, how are you?",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
CHATML = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else 'user' %}\
{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


def pytest_sessionstart() -> None:
    """A shell that starts the suite in the background has it ignore Ctrl-C, which some tests send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for what other packages do to each other and we cannot change, each by its name."""
    for message in (
        # PEFT 0.21 reads the old name of a property that transformers 5.23 renamed.
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
        # bitsandbytes pages an optimizer's state on a GPU only; on a CPU it computes the same without.
        "ignore:Paged optimizers are not supported on CPU:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", message)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """400 byte-level tokens and a ChatML template; the end token is `<|im_end|>`, padding is `<pad>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(word, special=True) for word in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def tiny_config(arch: str, vocabulary: int, **changes: Any) -> Any:
    """Two layers of hidden size 64: 4-bit weights come in blocks of 64."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 5,
        "pad_token_id": 3,
    }
    if arch == "mistral":
        return transformers.MistralConfig(**{**common, "sliding_window": 4096, **changes})
    if arch == "llama":
        return transformers.LlamaConfig(**{**common, "tie_word_embeddings": True, **changes})
    if arch == "gemma3n":
        special: dict[str, Any] = {
            "vocab_size_per_layer_input": vocabulary,
            "hidden_size_per_layer_input": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 16,
            "num_kv_shared_layers": 0,
            "laurel_rank": 64,
            "activation_sparsity_pattern": [0.95, 0.0],
        }
        return transformers.Gemma3nTextConfig(**{**common, **special, **changes})
    raise ValueError(arch)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Callable[..., Any]:
    """`tiny_model(arch, seed=0, **changes)`: a random two-layer model in memory; mistral, llama or gemma3n."""

    def make(arch: str = "mistral", seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(tiny_config(arch, len(tiny_tokenizer), **changes)).eval()

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_model: Callable[..., Any]
) -> Callable[[str], Path]:
    """`tiny_model_dir(arch)`: the folder of such a model with its tokenizer, as a recipe's `model.name`."""
    made: dict[str, Path] = {}

    def folder(arch: str = "mistral") -> Path:
        if arch not in made:
            made[arch] = tmp_path_factory.mktemp(arch)
            tiny_model(arch).save_pretrained(made[arch])
            tiny_tokenizer.save_pretrained(made[arch])
            if arch == "gemma3n":
                settings = made[arch] / "tokenizer_config.json"
                settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token": "</s>"}))
                (made[arch] / "chat_template.jinja").write_text(GEMMA)
        return made[arch]

    return folder
