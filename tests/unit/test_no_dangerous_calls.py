"""Nothing in the package unpickles, evaluates, unpacks or asks a shell: a file that was read can run no code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith

PACKAGE = Path(tunesmith.__file__).parent
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "tarfile", "zipfile"}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
}
ATTRIBUTES = {"extractall", "unpack_archive", "weights_only", "allow_pickle"}


def dangers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, f"import {name.name}") for name in node.names if name.name.split(".")[0] in MODULES
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, f"from {node.module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.rpartition(".")[2] in ATTRIBUTES:
                yield node.lineno, called
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in (("shell", True), ("trust_remote_code", True), ("allow_pickle", True),
                                            ("weights_only", False)):  # fmt: skip
                    yield node.lineno, f"{keyword.arg}={value}"


def test_the_package_makes_no_call_that_can_run_what_it_reads() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, what in dangers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from tarfile import open", "eval(x)", "torch.load(p)", "yaml.load(t, L)", "run(c, shell=True)",
     "f(trust_remote_code=True)", "np.load(p, allow_pickle=True)", "archive.extractall()"],
)  # fmt: skip
def test_the_gate_sees(code: str) -> None:
    assert list(dangers(ast.parse(code)))
