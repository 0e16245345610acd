"""What a model or an adapter from elsewhere may hold, looked at before anything loads it.

Loading such a folder must run no code, read no file outside it, and take no more memory than its weights. Headers are
read here and not believed; settings that name code or files elsewhere are refused by name.
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import ConfigError, ModelError

log = logging.getLogger(__name__)

MAX_HEADER = 100 * 1024 * 1024
"""Bytes of a safetensors header, as the format's own readers allow."""
MAX_SETTINGS = 64 * 1024 * 1024
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_ATTENTION = ("_attn_implementation_internal", "_attn_implementation", "attn_implementation")
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*\.(?:json|txt|model|bpe|spm|vocab|tiktoken)")
_EXACTLY = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")

_allowed: dict[str, str] = {}


def allow_remote_code(repository: str) -> None:
    """Let one repository, at one commit, run its code: `owner/name@<40 hex digits>`. Only the command line says so.

    Raises:
        ConfigError: it does not name a commit, so what would run tomorrow is not what was looked at today.
    """
    match = _EXACTLY.fullmatch(repository)
    if match is None:
        raise ConfigError(
            f"{repository!r} does not name a repository at a commit",
            place="--trust-remote-code",
            remedy="write owner/name@ and the 40 hexadecimal digits of the commit whose code you have read",
        )
    _allowed[match[1]] = match[2]


def code_options(name: str, revision: str | None) -> dict[str, Any]:
    """For `from_pretrained`: the commit whose code may run, where the command line named one for this model.

    Raises:
        ModelError: the recipe wants another revision than the one whose code may run.
    """
    commit = _allowed.get(name)
    if commit is None:
        return {"trust_remote_code": False, "revision": revision}
    if revision not in (None, commit):
        raise ModelError(
            f"the recipe takes {name} at {revision}, and the code that may run is that of {commit}",
            place="--trust-remote-code",
            remedy=f"set model.revision: {commit}",
        )
    log.warning("code of %s at %s is run", name, commit)
    return {"trust_remote_code": True, "revision": commit, "code_revision": commit}


def require_harmless(folder: Path, *, code: bool = False) -> None:
    """Look at everything in a folder that a loader would read.

    Args:
        folder: of a model or an adapter.
        code: whether it may run code of its own.

    Raises:
        ModelError: the first thing that is not as it should be, with the file's name.
    """
    weights = sorted(folder.glob("*.safetensors"))
    found = {path.name for pattern in _PICKLES for path in folder.glob(pattern)}
    pickles = sorted(found - {"training_args.bin"})
    if pickles and not weights:
        raise ModelError(
            f"the weights are a pickle ({pickles[0]}): loading one can run any code",
            place=str(folder),
            remedy="use its safetensors version, or convert it on a machine that holds nothing of value",
        )
    for path in weights:
        check_safetensors(path)
    for name in ("config.json", "adapter_config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).exists():
            check_settings(_settings(folder / name), folder / name, code=code)
    config = folder / "adapter_config.json"
    if config.exists() and (folder / "adapter_model.safetensors").exists():
        _check_ranks(_settings(config), read_header(folder / "adapter_model.safetensors"), folder)


# --- weights ----------------------------------------------------------------------------------------------------------


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, checked: tensor name to `dtype`, `shape`, `data_offsets`.

    Raises:
        ModelError: it is cut off, lies about its size or offsets, or names a tensor twice.
    """

    def refuse(what: str) -> ModelError:
        return ModelError(
            f"{path.name} is no sound safetensors file: {what}",
            place=str(path),
            remedy="download it again, from whoever made it",
        )

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise refuse(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
        return dict(pairs)

    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise refuse("it is cut off")
        size = struct.unpack("<Q", head)[0]
        if size > MAX_HEADER:
            raise refuse(f"its header claims {size:,} bytes, and {MAX_HEADER:,} are the most there may be")
        if size > total - 8:
            raise refuse(f"its header claims {size:,} bytes, and the file has {total:,}")
        body = file.read(size)
    try:
        header = json.loads(body, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise refuse(f"its header cannot be read ({str(error)[:100]})") from error
    if not isinstance(header, dict):
        raise refuse("its header is no list of tensors")
    header.pop("__metadata__", None)
    spans = []
    for name, said in header.items():
        try:
            (start, stop), shape, bits = said["data_offsets"], said["shape"], _BITS.get(said["dtype"])
            numbers = [start, stop, *shape]
        except (KeyError, TypeError, ValueError) as error:
            raise refuse(f"it says nothing of where {name!r} lies") from error
        if bits is None:
            raise refuse(f"{name!r} is of the unknown type {str(said['dtype'])[:40]!r}")
        if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
            raise refuse(f"{name!r} has a shape or place that is none")
        if start > stop or stop > total - 8 - size:
            raise refuse(f"{name!r} lies outside the file")
        if len(shape) > 64 or math.prod(shape) * bits != 8 * (stop - start):
            raise refuse(f"{name!r} has shape {shape[:8]} and {stop - start:,} bytes, which do not agree")
        spans.append((start, stop, name))
    at = 0
    for start, stop, name in sorted(spans):
        if start != at:
            raise refuse(f"{name!r} {'overlaps another tensor' if start < at else 'leaves a gap before it'}")
        at = stop
    if at != total - 8 - size:
        raise refuse("there are bytes in it that belong to no tensor")
    return header


def check_safetensors(path: Path) -> None:
    """Raise `ModelError` unless the header of a safetensors file describes the file."""
    if path.is_symlink() and not _in_hub_cache(path):
        raise ModelError(f"{path.name} is a link", place=str(path), remedy="put the file itself there")
    read_header(path)


def _in_hub_cache(path: Path) -> bool:
    """The Hub's cache links every file of a snapshot to a blob beside it."""
    return "snapshots" in path.parts and "blobs" in path.resolve().parts


def _check_ranks(config: Mapping[str, Any], header: Mapping[str, Any], folder: Path) -> None:
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    for name, said in header.items():
        if ".lora_A." in name and len(said["shape"]) == 2 and said["shape"][0] not in ranks:
            raise ModelError(
                f"{name} has rank {said['shape'][0]}, and adapter_config.json says {config.get('r')}",
                place=str(folder),
                remedy="the two files belong to different adapters: download it again",
            )


def require_finite(model: Any, place: Path) -> None:
    """Raise `ModelError` for loaded adapter weights that are not numbers."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_" in name and not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"the weights of {name} are not numbers", place=str(place), remedy="train it again, or use another copy"
            )


def require_base(folder: Path, base: str) -> None:
    """Raise `ModelError` for an adapter of another base than the one it is to be put on."""
    recorded = _settings(folder / "adapter_config.json").get("base_model_name_or_path")
    if isinstance(recorded, str) and recorded and Path(recorded).name != Path(base).name:
        raise ModelError(
            f"the adapter was trained on {recorded}, not on {base}",
            place=str(folder),
            remedy="load it on the base it was trained on",
        )


# --- settings ---------------------------------------------------------------------------------------------------------


def check_settings(settings: Mapping[str, Any], place: Path | str, *, code: bool = False) -> None:
    """Refuse settings that run code, reach for files, or import what they name.

    Args:
        settings: a config of a model, tokenizer or adapter.
        place: where they stand.
        code: whether code of the model's own may run.

    Raises:
        ModelError: naming the key.
    """

    def refuse(key: str, what: str, remedy: str) -> ModelError:
        return ModelError(f"`{key}` {what}", place=str(place), remedy=remedy)

    for key, value in _walk(settings):
        last = key.rpartition(".")[2]
        if last == "trust_remote_code" and value:
            raise refuse(key, "asks to run code that came with the model", "remove it; nothing a file says runs code")
        if last in _ATTENTION and "/" in str(value):
            raise refuse(key, f"names code to be downloaded ({str(value)[:80]})", "remove it from the file")
        if last == "parent_library" and value and str(value).partition(".")[0] not in ("transformers", "torch"):
            raise refuse(key, f"names a module to be imported ({str(value)[:80]})", "remove auto_mapping from the file")
        if last.endswith("_file") and isinstance(value, str) and value and not _FILE_NAME.fullmatch(value):
            raise refuse(key, f"names a file that is none of a model's ({value[:80]!r})", "remove it from the file")
    if "auto_map" in settings and not code and not _is_known(settings):
        raise refuse(
            "auto_map",
            "names code that came with the model, and transformers does not know this kind of model without it",
            "read that code; then --trust-remote-code owner/name@commit lets it run",
        )


def _is_known(settings: Mapping[str, Any]) -> bool:
    """Whether transformers has this kind of model itself; `auto_map` is then not looked at."""
    if "model_type" not in settings:  # a tokenizer's settings: without permission its own class is not looked for
        return True
    from transformers import CONFIG_MAPPING

    return settings["model_type"] in CONFIG_MAPPING


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    pending = [(key, value)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
        elif isinstance(value, list):
            pending += [(f"{key}.{index}", item) for index, item in enumerate(value)]
        else:
            yield key, value


def _settings(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_SETTINGS:
        raise ModelError(f"{path.name} has {path.stat().st_size:,} bytes", place=str(path), remedy="download it again")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path.name} cannot be read ({str(error)[:100]})", place=str(path), remedy="download it again"
        ) from error
    return said if isinstance(said, dict) else {}
