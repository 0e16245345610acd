"""Adapters and models as an attacker or an accident leaves them: each is refused by name before it is loaded, quickly,
and no code of theirs runs."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import Lora, Model
from tunesmith.errors import ConfigError, ModelError
from tunesmith.model import outside
from tunesmith.model.load import load_model, load_tokenizer
from tunesmith.model.outside import (
    allow_remote_code,
    check_settings,
    code_options,
    read_header,
    require_base,
    require_finite,
    require_harmless,
)


class Touch:
    """What a malicious pickle does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    """A file that code of the model would make."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


TENSORS = {"a": ("F32", [2, 2]), "b": ("BF16", [3])}


def write(path: Path, header: Any = None, size: int | None = None, body: bytes = bytes(22)) -> None:
    """A safetensors file with any header, claiming any size for it."""
    if header is None:
        header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
                  "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}}  # fmt: skip
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + body)


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}


HEADERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "A2 a header of 2^63 bytes": (lambda p: write(p, size=2**63), "its header claims 9,223,372,036,854,775,808 bytes"),
    "A3 a header of 101 MB": (lambda p: write(p, size=101 << 20), "its header claims 105,906,176 bytes"),
    "A3 a header longer than the file": (lambda p: write(p, size=5000), "and the file has"),
    "A4 tensors that overlap": (
        lambda p: write(p, {**one(), "b": {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]}}, body=bytes(16)),
        "'b' overlaps another tensor",
    ),
    "A4 a tensor outside the file": (lambda p: write(p, one(data_offsets=[16, 32])), "'a' lies outside the file"),
    "A4 offsets the wrong way round": (lambda p: write(p, one(data_offsets=[16, 0])), "'a' lies outside the file"),
    "A4 offsets below zero": (lambda p: write(p, one(data_offsets=[-16, 0])), "a shape or place that is none"),
    "A4 a gap": (lambda p: write(p, one(data_offsets=[4, 20])), "leaves a gap"),
    "A4 more bytes than tensors": (lambda p: write(p, one()), "bytes in it that belong to no tensor"),
    "A4 a shape that does not fit": (lambda p: write(p, one(shape=[2, 3])), "do not agree"),
    "A4 a shape of 2^200": (lambda p: write(p, one(shape=[2**100, 2**100])), "do not agree"),
    "A5 a tensor twice": (
        lambda p: write(
            p, b'{"a":' + json.dumps(one()["a"]).encode() + b',"a":' + json.dumps(one()["a"]).encode() + b"}"
        ),
        "names 'a' twice",
    ),
    "A6 an unknown type": (lambda p: write(p, one(dtype="X13")), "the unknown type 'X13'"),
    "a header that is no JSON": (lambda p: write(p, b"{'a': 1}"), "cannot be read"),
    "a header of brackets": (lambda p: write(p, b"[" * 100_000), "cannot be read"),
    "a header that is a list": (lambda p: write(p, []), "no list of tensors"),
    "a tensor without a place": (lambda p: write(p, {"a": {"dtype": "F32"}}), "nothing of where 'a' lies"),
    "a file of three bytes": (lambda p: p.write_bytes(b"abc"), "cut off"),
    "a link": (lambda p: p.symlink_to("/etc/hostname"), "is a link"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused_before_anything_is_loaded(tmp_path: Path, case: str) -> None:
    act, said = HEADERS[case]
    act(tmp_path / "adapter_model.safetensors")
    began = time.process_time()
    with pytest.raises(ModelError) as refused:
        require_harmless(tmp_path)
    assert said in refused.value.message and "adapter_model.safetensors" in str(refused.value) and refused.value.remedy
    assert refused.value.exit_code == 5 and time.process_time() - began < 2


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors")
    assert set(read_header(tmp_path / "m.safetensors")) == {"a", "b"}


def test_weights_that_are_a_pickle_are_refused_by_name(tmp_path: Path, canary: Path) -> None:
    """A1."""
    for name in ("adapter_model.bin", "pytorch_model.bin", "model.pt", "weights.pth", "weights.ckpt"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(pickle.dumps(Touch(canary)))
        with pytest.raises(ModelError, match=f"a pickle .{name}.: loading one can run any code"):
            require_harmless(folder)


def test_a_model_whose_weights_are_a_pickle_is_not_loaded(
    tmp_path: Path, tiny_model_dir: Callable[..., Path], canary: Path
) -> None:
    for path in tiny_model_dir("mistral").iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(canary)))
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelError, match="a pickle"):
            load(Model(name=str(tmp_path)))


@pytest.fixture
def adapter(tmp_path: Path, tiny_model: Callable[..., Any]) -> Path:
    from tunesmith.model.lora import add_lora

    folder = tmp_path / "adapter"
    add_lora(tiny_model("mistral"), Lora(r=4)).save_pretrained(str(folder), save_embedding_layers=False)
    require_harmless(folder)
    return folder


def test_weights_that_are_not_numbers_are_named(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    """A7."""
    import torch

    from tunesmith.model.lora import add_lora

    model = add_lora(tiny_model("mistral"), Lora(r=4))
    require_finite(model, tmp_path)
    name, weight = next((n, p) for n, p in model.named_parameters() if "lora_B" in n)
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="are not numbers") as refused:
        require_finite(model, tmp_path)
    assert name in refused.value.message


def test_an_adapter_of_another_rank_than_its_config_says_is_refused(adapter: Path) -> None:
    """A8."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(ModelError, match="has rank 4, and adapter_config.json says 8"):
        require_harmless(adapter)


def test_an_adapter_of_another_base_is_refused(adapter: Path) -> None:
    """A9."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "mistralai/one"}))
    require_base(adapter, "mistralai/one")
    with pytest.raises(ModelError, match="trained on mistralai/one, not on mistralai/other"):
        require_base(adapter, "mistralai/other")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "A10 attention from a repository": (
        {"_attn_implementation_internal": "attacker/repo"},
        "names code to be downloaded",
    ),
    "A10 the same under its public name": ({"attn_implementation": "attacker/repo"}, "names code to be downloaded"),
    "A10 the same deeper down": ({"text_config": {"_attn_implementation": "attacker/repo"}}, "names code to be"),
    "A11 code of its own": (
        {"model_type": "newest", "auto_map": {"AutoModelForCausalLM": "modeling_newest.Newest"}},
        "names code that came with the model",
    ),
    "A12 trust deeper down": ({"vision_config": {"keypoint": [{"trust_remote_code": True}]}}, "asks to run code"),
    "A12 trust on top": ({"trust_remote_code": "yes"}, "asks to run code"),
    "A13 a file of secrets": ({"vocab_file": ".env"}, "names a file that is none of a model's"),
    "A13 a file above": ({"merges_file": "../../credentials.json"}, "names a file that is none of a model's"),
    "A13 an absolute file": ({"tokenizer_file": "/root/.aws/credentials"}, "names a file that is none of a model's"),
    "A14 a module to import": (
        {"auto_mapping": {"base_model_class": "X", "parent_library": "attacker.module"}},
        "names a module to be imported",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_run_code_or_reach_for_files_are_refused(case: str, tmp_path: Path) -> None:
    settings, said = SETTINGS[case]
    name = {"A13": "tokenizer_config.json", "A14": "adapter_config.json"}.get(case[:3], "config.json")
    (tmp_path / name).write_text(json.dumps(settings))
    began = time.process_time()
    with pytest.raises(ModelError) as refused:
        require_harmless(tmp_path)
    assert said in refused.value.message and name in refused.value.place and refused.value.remedy
    assert time.process_time() - began < 10  # the first look at `model_type` imports transformers


def test_settings_of_ordinary_models_pass() -> None:
    check_settings({"model_type": "mistral", "auto_map": {"AutoConfig": "configuration_x.X"}}, "there")
    check_settings({"vocab_file": None, "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json"}, "there")
    check_settings({"vocab_file": "sentencepiece.bpe.model", "_attn_implementation": "sdpa"}, "there")
    check_settings({"auto_mapping": {"parent_library": "transformers.models.mistral.modeling_mistral"}}, "there")
    check_settings({"trust_remote_code": False}, "there")


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[1]"])
def test_settings_that_cannot_be_read_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    if content == "[1]":
        require_harmless(tmp_path)  # transformers says what is wrong with it
        return
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        require_harmless(tmp_path)


def test_code_runs_only_for_one_repository_at_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_allowed", {})
    commit = "0123456789abcdef0123456789abcdef01234567"
    for vague in ("owner/name", "owner/name@main", f"name@{commit}", f"owner/name@{commit[:7]}", "true"):
        with pytest.raises(ConfigError, match="does not name a repository at a commit"):
            allow_remote_code(vague)
    allow_remote_code(f"owner/name@{commit}")
    assert code_options("owner/name", None) == {
        "trust_remote_code": True, "revision": commit, "code_revision": commit,
    }  # fmt: skip
    assert code_options("owner/other", "main") == {"trust_remote_code": False, "revision": "main"}
    with pytest.raises(ModelError, match="the code that may run is that of"):
        code_options("owner/name", "main")
    check_settings({"model_type": "newest", "auto_map": {"AutoConfig": "x.Y"}}, "there", code=True)


def test_a_recipe_cannot_let_code_run() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="trust_remote_code"):
        Model.model_validate({"name": "owner/name", "trust_remote_code": True})
