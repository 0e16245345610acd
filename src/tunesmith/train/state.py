"""Everything that decides the next step, on disk and back: safetensors for tensors, JSON for the rest, no pickle."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.errors import DivergedError, ModelError

STATE = "state.json"
_WEIGHTS = "model.safetensors"
_ADAPTER = "adapter_model.safetensors"


# --- any state dict -> JSON and tensors -------------------------------------------------------------------------------


def split(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """The JSON part of a nested value; its tensors go to `tensors` under names that begin with `name`.

    Takes what state dicts hold: mappings with texts or numbers as keys, lists, tuples, tensors, texts, numbers, None.

    Raises:
        ModelError: it holds something else.
    """
    if isinstance(value, Tensor):
        # Cloned: safetensors refuses tensors that share memory, and the loop goes on while this is written.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return split(value.item(), tensors, name)
    if isinstance(value, Mapping):
        if not all(isinstance(key, int | str) for key in value):
            raise _unkeepable(name, next(key for key in value if not isinstance(key, int | str)))
        return {"items": [[key, split(item, tensors, f"{name}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        parts = [split(item, tensors, f"{name}.{at}") for at, item in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    raise _unkeepable(name, value)


def join(said: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `split` was given."""
    if isinstance(said, list):
        return [join(item, tensors) for item in said]
    if not isinstance(said, dict):
        return said
    (kind, content), *_ = said.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(join(item, tensors) for item in content)
    return {key: join(item, tensors) for key, item in content}


def _unkeepable(name: str, value: Any) -> ModelError:
    return ModelError(
        f"the state of {name} holds a {type(value).__name__}, which a checkpoint cannot keep",
        place="train.optim",
        remedy="use an optimizer whose state is numbers and tensors, such as adamw_torch",
    )


def write_parts(folder: Path, **parts: Any) -> None:
    """Nested values into `<name>.safetensors` each, where there are tensors, and all together into `state.json`."""
    said = {}
    for name, value in parts.items():
        tensors: dict[str, Tensor] = {}
        said[name] = split(value, tensors, name)
        if tensors:
            write_tensors(tensors, folder / f"{name}.safetensors")
    (folder / STATE).write_text(json.dumps(said, allow_nan=False), encoding="utf-8")


def read_parts(folder: Path) -> dict[str, Any]:
    """What `write_parts` wrote."""
    from safetensors.torch import load_file

    said = json.loads((folder / STATE).read_text(encoding="utf-8"))
    parts = {}
    for name, value in said.items():
        path = folder / f"{name}.safetensors"
        parts[name] = join(value, load_file(path) if path.exists() else {})
    return parts


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """One safetensors file. A refusal of the disk is an `OSError`, as it is of any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_apart(tensors), path)
    except SafetensorError as error:
        raise _os_error(path, str(error)) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each with memory of its own: a first and last layer that are one matrix have two names, and stand there twice."""
    kept: dict[str, Tensor] = {}
    seen = set[int]()
    for name, tensor in tensors.items():
        kept[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return kept


def _os_error(path: Path, text: str) -> OSError:
    number = text.rpartition("os error ")[2].partition(")")[0]
    return OSError(int(number), text, str(path)) if number.isdecimal() else OSError(0, text, str(path))


# --- random numbers ---------------------------------------------------------------------------------------------------


def random_state() -> dict[str, Any]:
    """Of every generator a step may draw from: Python's, NumPy's, torch's on the CPU and on this process's GPU."""
    version, numbers, gauss = random.getstate()
    kind, keys, at, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": (version, torch.tensor(numbers, dtype=torch.int64), gauss),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys, np.int64)), int(at), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Continue every generator where `random_state` saw it."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, at, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), at, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# --- weights ----------------------------------------------------------------------------------------------------------


def write_trained(model: Any, folder: Path) -> None:
    """The trained weights: an adapter that PEFT and others can load as it lies there, or every trained parameter.

    Raises:
        DivergedError: a weight is not a number; nothing is written then.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise DivergedError(
                f"the trained weights of {name} are not numbers, and are not saved",
                place="train.learning_rate",
                remedy="lower it, and look at the loss curve",
            )
    if not hasattr(model, "peft_config"):
        write_tensors(
            {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad},
            folder / _WEIGHTS,
        )
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _adapter(model).items()}
    write_tensors(tensors, folder / _ADAPTER)
    config = {**model.peft_config[model.active_adapter].to_dict(), "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8")


def read_trained(model: Any, folder: Path) -> None:
    """Put the weights that `write_trained` wrote into the model, each and every one.

    Raises:
        ModelError: names, shapes or kinds are not those of the model.
    """
    from safetensors.torch import load_file

    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        tensors = load_file(folder / _ADAPTER)
        ours = _adapter(model)
        _require_alike(tensors, ours, folder)
        set_peft_model_state_dict(model, dict(tensors), adapter_name=model.active_adapter)
        loaded = _adapter(model)
        if any(not torch.equal(loaded[name].cpu(), tensor) for name, tensor in tensors.items()):
            raise ModelError("the adapter did not take the checkpoint's weights", place=str(folder))
        return
    tensors = load_file(folder / _WEIGHTS)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    _require_alike(tensors, parameters, folder)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _adapter(model: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    # "auto" would ask the Hub whether the vocabulary grew; layers trained in full are in `modules_to_save`.
    tensors: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=model.active_adapter, save_embedding_layers=False
    )
    return tensors


def _require_alike(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], folder: Path) -> None:
    def kinds(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}

    then, now = kinds(theirs), kinds(ours)
    differing = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if differing:
        name = differing[0]
        raise ModelError(
            f"{len(differing)} weights are not as the checkpoint has them; {name}: {then.get(name)} then, "
            f"{now.get(name)} now",
            place=str(folder),
            remedy="use the base, the adapter settings and the precision that it was trained with",
        )
