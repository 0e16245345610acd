"""Writing the folder that ships: the weights under Hugging Face's names, config and card."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from demo_base.network import Network, Shape


def hugging_face_state(network: Network, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights as `MistralForCausalLM` calls them, in bf16."""
    shape = network.shape
    source = weights or dict(network.named_parameters())
    source = {name: weight.detach().to(torch.bfloat16) for name, weight in source.items()}
    keys = shape.num_key_value_heads * shape.head_dim
    out = {"model.embed_tokens.weight": source["embed.weight"], "model.norm.weight": source["norm.weight"]}
    for i in range(shape.num_hidden_layers):
        mine, theirs = f"layers.{i}.", f"model.layers.{i}."
        query, key, value = source[mine + "qkv.weight"].split([shape.num_attention_heads * shape.head_dim, keys, keys])
        gate, up = source[mine + "gate_up.weight"].chunk(2)
        out |= {
            theirs + "input_layernorm.weight": source[mine + "before.weight"],
            theirs + "post_attention_layernorm.weight": source[mine + "after.weight"],
            theirs + "self_attn.q_proj.weight": query,
            theirs + "self_attn.k_proj.weight": key,
            theirs + "self_attn.v_proj.weight": value,
            theirs + "self_attn.o_proj.weight": source[mine + "out.weight"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": source[mine + "down.weight"],
        }
    return {name: weight.contiguous().clone() for name, weight in out.items()}


@torch.no_grad()
def read(folder: Path, network: Network) -> None:
    """The reverse of `hugging_face_state`: put the weights of a shipped folder into the network."""
    from safetensors.torch import load_file

    found = load_file(folder / "model.safetensors")
    own = dict(network.named_parameters())
    own["embed.weight"].copy_(found["model.embed_tokens.weight"])
    own["norm.weight"].copy_(found["model.norm.weight"])
    for i in range(network.shape.num_hidden_layers):
        mine, theirs = f"layers.{i}.", f"model.layers.{i}."
        joined = {
            "before": ("input_layernorm",),
            "after": ("post_attention_layernorm",),
            "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "out": ("self_attn.o_proj",),
            "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
            "down": ("mlp.down_proj",),
        }
        for name, parts in joined.items():
            weights = [found[f"{theirs}{part}.weight"] for part in parts]
            own[f"{mine}{name}.weight"].copy_(torch.cat(weights))


def mistral_config(shape: Shape) -> dict[str, object]:
    """config.json."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "sliding_window": None,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "use_cache": True,
        "dtype": "bfloat16",
    }


def write(folder: Path, network: Network, weights: dict[str, Tensor], card: str) -> None:
    """Everything but the tokenizer files, which lie in the folder already."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(hugging_face_state(network, weights), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps(mistral_config(network.shape), indent=2)
    (folder / "config.json").write_text(config + "\n", "utf-8")
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "do_sample": False, "max_new_tokens": 256}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    (folder / "README.md").write_text(card, "utf-8")
