"""Symbolic answers, compared by math-verify in a process of its own.

A model's answer is hostile input: sympy can be made to compute for hours or to fill the memory with one power tower.
The process has a memory limit and a deadline; when an answer exceeds either, it is killed and the answer is wrong.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

_MAX_LENGTH = 1500
_FIRST_SECONDS = 60.0
"""The first comparison imports sympy, which takes seconds on a busy machine."""
_MEMORY_BYTES = 3_000_000_000


class MathVerify:
    """math-verify behind a process that can be killed. Started on first use, started again after a kill."""

    def __init__(self, seconds: float = 6.0) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = False
        self.same = lru_cache(8192)(self._same)

    @staticmethod
    def installed() -> bool:
        """Whether math-verify can be imported."""
        return find_spec("math_verify") is not None

    def close(self) -> None:
        """Stop the process. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
            self._warm = False

    def _same(self, gold: str, answer: str) -> bool | None:
        """Whether math-verify takes two answers for the same; None when it cannot read the right one."""
        if len(gold) > _MAX_LENGTH:
            return None
        if len(answer) > _MAX_LENGTH or re.search(
            r"(?:\^|\*\*)[{(]?\s*[\d.,\s]{5,}|\d{40,}|(?:\^[^\^]*){6,}|!\s*!", answer
        ):
            return False  # no answer is as long, or as large, as that
        said = self._ask({"gold": gold, "answer": answer})
        if said is None:  # took too long, or died: whose fault is it?
            alone = self._ask({"gold": gold, "answer": gold})
            return None if alone is None else False
        return said.get("same")

    def _ask(self, request: dict[str, str]) -> dict[str, Any] | None:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return None
        ready, _, _ = select.select([process.stdout], [], [], self.seconds if self._warm else _FIRST_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            self.close()
            return None
        self._warm = True
        return dict(json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        return self._process


def _serve() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    from math_verify import parse, verify

    for line in sys.stdin:
        request = json.loads(line)
        try:
            gold = _read(parse, request["gold"])
            if not gold:
                answer: bool | None = None
            else:
                said = _read(parse, request["answer"])
                answer = bool(verify(gold, said, timeout_seconds=3))
                places = [len(digits) for digits in re.findall(r"\d\.(\d{2,})", request["answer"])]
                if not answer and places:  # a decimal stands for an exact value that rounds to it
                    answer = bool(verify(gold, said, float_rounding=min(places), timeout_seconds=3))
        except (Exception, RecursionError, MemoryError):
            answer = False
        print(json.dumps({"same": answer}), flush=True)


def _read(parse: Any, text: str) -> Any:
    """As LaTeX; a text without marks is put between them first."""
    marked = "$" in text or "\\boxed" in text or "\\[" in text or "\\(" in text
    found = parse(text if marked else f"${text}$", parsing_timeout=3)
    return found or parse(text, parsing_timeout=3)


if __name__ == "__main__":
    _serve()
