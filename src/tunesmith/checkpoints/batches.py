"""What every optimizer step was trained on, as a digest a line: a resumed run must be shown the same rows again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tunesmith.errors import DataError


class BatchLedger:
    """The digests of a run's steps. Each line holds the step's own and that of all steps up to it.

    Args:
        path: the file; made when the first step is noted.
        step: steps done before, as the checkpoint says.
        chain: the digest of all of them, as the checkpoint says; "" before the first.

    Raises:
        DataError: the file tells of other steps than the checkpoint.
    """

    def __init__(self, path: Path, step: int = 0, chain: str = "") -> None:
        self.path = path
        self.step = step
        self.chain = chain
        """Digest of all steps up to `step`."""
        self._expected: dict[int, str] = {}
        for line in self._whole_lines():
            said = json.loads(line)
            if said["step"] == step and said["chain"] != chain:
                raise DataError(
                    f"the first {step} steps were trained on other rows than the checkpoint says",
                    place=str(path),
                    remedy="restore the file that belongs to the run, or start anew with --fresh",
                )
            self._expected[said["step"]] = said["rows"]

    def note(self, step: int, rows: str) -> None:
        """Write a step down, or where it was taken before, make sure that it is the same again.

        Args:
            step: number of the step, from 1.
            rows: digest of its examples.

        Raises:
            DataError: it is not.
        """
        chain = hashlib.sha256(f"{self.chain}{rows}".encode()).hexdigest()[:32] if step > self.step else self.chain
        expected = self._expected.get(step)
        if expected is not None and expected != rows:
            raise DataError(
                f"step {step} would be trained on other rows than before the run was interrupted",
                place=str(self.path),
                remedy="something changed the prepared data or its order; restore it, or start anew with --fresh",
            )
        if expected is None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "rows": rows, "chain": chain}) + "\n")
            self._expected[step] = rows
        self.step, self.chain = step, chain

    def _whole_lines(self) -> list[str]:
        """Those that end; what a dying process wrote half of is cut off."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        try:
            lines = whole.decode().splitlines()
            for line in lines:
                said = json.loads(line)
                if not (isinstance(said["step"], int) and isinstance(said["rows"], str) and "chain" in said):
                    raise ValueError(line)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"a line of the steps' digests cannot be read ({error})",
                place=str(self.path),
                remedy="restore the file from a copy, or start anew with --fresh",
            ) from error
        return lines
