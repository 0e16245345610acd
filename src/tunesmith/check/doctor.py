"""This machine, whatever is to be run on it: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith.check.environment import package_findings
from tunesmith.check.gpus import Gpus, read_gpus
from tunesmith.check.result import finding_lines
from tunesmith.check.tracker import credentials_missing
from tunesmith.config.secrets import redact
from tunesmith.types import Finding

_LEAST_DISK = 20e9
_LEAST_MEMORY = 8e9
_EXTRAS = {"sql": "psycopg", "wandb": "wandb", "comet": "comet_ml", "qdrant": "qdrant_client"}


_GET = {
    "Hub": "for private models: hf auth login",
    "gs://": "for a mirror there: gcloud auth application-default login",
    "s3://": "for a mirror there: aws configure, or export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "Weights & Biases": "to report there: wandb login",
    "Comet": "to report there: comet login",
}
"""What a credential is for, and the command that gets one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found: facts, and findings on what should be different."""

    facts: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether a run can work here at all."""
        return not any(one.level == "error" for one in self.findings)

    def figures(self) -> dict[str, Any]:
        """JSON-serialisable, without secrets."""
        found = [{key: redact(str(value)) for key, value in asdict(one).items()} for one in self.findings]
        return {"passed": self.passed, "facts": dict(self.facts), "findings": found}

    def text(self) -> str:
        """For a terminal."""
        width = max(map(len, self.facts))
        lines = [f"{name:>{width}}  {value}" for name, value in self.facts.items()]
        for finding in self.findings:
            lines += ["", *finding_lines(finding)]
        verdict = "this machine is ready" if self.passed else "this machine cannot run tunesmith yet"
        return redact("\n".join([*lines, "", f"doctor: {verdict}"]))


def examine_machine(environ: Mapping[str, str] | None = None) -> Machine:
    """Python, packages against the tested set, GPU and driver, disk, memory, credentials, hosted notebooks.

    Credentials are looked for where their libraries look, and never read out or printed.
    """
    environ = os.environ if environ is None else environ
    gpus, packages = read_gpus(), tuple(package_findings())
    memory, free = _memory(), shutil.disk_usage(Path.cwd()).free
    credentials = {name: where for name, where in _credentials(environ)}
    facts = {
        "machine": _hosted(environ) or f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "packages": _packages(packages),
        "GPU": ", ".join(f"{one.name} ({one.free / 1e9:.0f} of {one.total / 1e9:.0f} GB free)" for one in gpus.gpus)
        or "none visible",
        "driver": f"{gpus.driver}, runs CUDA up to {gpus.cuda}" if gpus.driver else "none",
        "memory": f"{memory / 1e9:.1f} GB" if memory else "unknown",
        "disk": f"{free / 1e9:.0f} GB free in {Path.cwd()}",
        **{name: where or f"no credential; {_GET[name]}" for name, where in credentials.items()},
    }
    findings = [
        *_python(), *packages, *_gpu(gpus, environ), *_room(memory, free), *_broken(credentials, environ),
        *_notebook(environ),
    ]  # fmt: skip
    return Machine(facts, tuple(findings))


def _packages(findings: tuple[Finding, ...]) -> str:
    extras = [extra for extra, module in _EXTRAS.items() if find_spec(module) is not None]
    told = f"{len(findings)} not as tested" if findings else "all within the tested ranges"
    return f"{told}; extras installed: {', '.join(extras) or 'none'}"


def _python() -> Iterator[Finding]:
    if tuple(sys.version_info) < (3, 11):
        yield Finding("doctor.python", "error", f"Python {platform.python_version()} is too old", sys.executable,
                      "install Python 3.11 or newer, and make the environment anew", "nothing can be imported")  # fmt: skip


def _gpu(gpus: Gpus, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Why no GPU is visible, or why torch does not see the one that is."""
    slow = "training on the CPU: minutes for the demo, months for 7 billion weights"
    if not gpus.gpus:
        if environ.get("CUDA_VISIBLE_DEVICES") == "":
            yield Finding("doctor.gpu_hidden", "warning", "CUDA_VISIBLE_DEVICES is empty, which hides every GPU",
                          "CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES", slow)  # fmt: skip
        elif Path("/proc/driver/nvidia/version").exists() or gpus.driver:
            yield Finding("doctor.no_gpu", "warning", "the driver is loaded and shows no GPU", "nvidia-smi",
                          "run `nvidia-smi`; in a container start it with --gpus all", slow)  # fmt: skip
        else:
            yield Finding("doctor.no_gpu", "info", "no NVIDIA driver is loaded: models are trained on the CPU", "",
                          "nothing for the demo; for models of a billion weights and more use a machine with a GPU")  # fmt: skip
        return
    built = _torch_cuda()
    if built == "":
        yield Finding("doctor.torch_without_cuda", "error", "a GPU is here, and the installed torch was built without CUDA",
                      "torch", "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
                      slow)  # fmt: skip
    elif built and gpus.cuda and _version(gpus.cuda) < _version(built):
        yield Finding("doctor.old_driver", "error",
                      f"torch was built for CUDA {built}, and driver {gpus.driver} runs CUDA up to {gpus.cuda}", "driver",
                      f"update the driver, or install a torch built for CUDA {gpus.cuda}", slow)  # fmt: skip


def _torch_cuda() -> str | None:
    """The CUDA version that torch was built for, empty for a CPU build, None where torch is not there; not imported."""
    try:
        files = metadata.files("torch") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "version.py" and file.parts[:-1] == ("torch",):
            text = Path(str(file.locate())).read_text(encoding="utf-8")
            line = next((one for one in text.splitlines() if one.startswith("cuda")), "")
            value = line.partition("=")[2].strip().strip("'\"")
            return "" if value == "None" else value
    return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _room(memory: int, free: int) -> Iterator[Finding]:
    if free < _LEAST_DISK:
        yield Finding("doctor.disk", "warning", f"{free / 1e9:.1f} GB are free here", str(Path.cwd()),
                      "free some space, or set output_dir and HF_HOME to a larger disk",
                      "a 7-billion-weight base alone takes 15 GB")  # fmt: skip
    if memory and memory < _LEAST_MEMORY:
        yield Finding("doctor.memory", "warning", f"this machine has {memory / 1e9:.1f} GB of memory", "",
                      "close other programs; merge large models elsewhere",
                      "merging a model needs memory for one copy of it")  # fmt: skip


def _memory() -> int:
    """Bytes of this machine, or of the container where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total


def _credentials(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name of a service to where its credential lies; empty where there is none."""
    home = Path(environ.get("HOME", "~")).expanduser()
    hub = Path(environ.get("HF_HOME") or home / ".cache" / "huggingface")
    token = Path(environ.get("HF_TOKEN_PATH") or hub / "token")
    yield "Hub", _first({"HF_TOKEN": environ.get("HF_TOKEN"), str(token): token.is_file()})
    key = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    default = home / ".config" / "gcloud" / "application_default_credentials.json"
    yield (
        "gs://",
        _usable_json(Path(key), "GOOGLE_APPLICATION_CREDENTIALS") if key else _usable_json(default, str(default)),
    )
    aws = home / ".aws" / "credentials"
    keys = environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY")
    yield (
        "s3://",
        _first({"AWS_ACCESS_KEY_ID": keys, "AWS_PROFILE": environ.get("AWS_PROFILE"), str(aws): aws.is_file()}),
    )
    for name, service in (("Weights & Biases", "wandb"), ("Comet", "comet_ml")):
        yield name, "" if credentials_missing(service, environ) else "present"


def _broken(credentials: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Credentials that are named and cannot be used. Whether a bucket lets them in, `tunesmith check RECIPE` tries."""
    cost = "mirrors there are refused, after the run was started"
    if credentials["gs://"] and not credentials["gs://"].startswith("present"):
        yield Finding("doctor.credentials", "warning", credentials["gs://"], "GOOGLE_APPLICATION_CREDENTIALS",
                      "correct the path, or unset it and run: gcloud auth application-default login", cost)  # fmt: skip
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        there, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if key else -1]
        yield Finding("doctor.credentials", "warning", f"{there} is set and {missing} is not", missing,
                      f"export {missing}=..., or unset {there} and run: aws configure", cost)  # fmt: skip
    token = environ.get("HF_TOKEN")
    if token is not None and (not token.strip() or token != token.strip() or " " in token):
        yield Finding("doctor.credentials", "warning", "HF_TOKEN is empty or holds blanks, so the Hub will refuse it",
                      "HF_TOKEN", "export HF_TOKEN=... without blanks, or unset it and run: hf auth login",
                      "private models and data sets cannot be read")  # fmt: skip


def _first(places: Mapping[str, object]) -> str:
    return next((f"present ({place})" for place, there in places.items() if there), "")


def _usable_json(file: Path, name: str) -> str:
    """Whether a credential file can be read and is what it should be; its content goes nowhere."""
    if not file.is_file():
        return f"{name} names a file that is not there" if name.isupper() else ""
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("type", "")
    except (OSError, ValueError, AttributeError):
        return f"{name}: the file cannot be read as JSON"
    return f"present ({name}, {kind or 'of unknown type'})"


def _hosted(environ: Mapping[str, str]) -> str:
    if "COLAB_RELEASE_TAG" in environ or "COLAB_GPU" in environ:
        return "Google Colab"
    return "Kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in environ else ""


def _notebook(environ: Mapping[str, str]) -> Iterator[Finding]:
    hosted = _hosted(environ)
    if hosted == "Google Colab" and not Path("/content/drive/MyDrive").exists():
        yield Finding("doctor.colab", "warning", "Google Drive is not mounted, and this machine's disk goes with it",
                      "/content", "from google.colab import drive; drive.mount('/content/drive'), and set output_dir to a "
                      "folder there", "a session ends after hours at most, and with it every checkpoint")  # fmt: skip
    if hosted == "Kaggle":
        yield Finding("doctor.kaggle", "warning", "only /kaggle/working is kept, 20 GB of it, when the session is saved",
                      "/kaggle/working", "set output_dir=/kaggle/working/runs and checkpoints.keep_last=2",
                      "checkpoints elsewhere are gone with the session")  # fmt: skip
