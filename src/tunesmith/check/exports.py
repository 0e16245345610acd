"""What is to be written at the end of a run: whether it can be, before the run has been paid for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.config.schema import MergedExport
from tunesmith.types import Finding

_SIZE = re.compile(r"\s*\d+(\.\d+)?\s*([KMGT]I?B|B)\s*", re.IGNORECASE)
_KEY = "exports"


def check_exports(subject: Subject) -> Looked:
    """Sizes that can be read, exports that do not overwrite each other, memory for merging."""
    return Looked(list(_findings(subject)), {"exports": len(subject.loaded.config.exports)})


def _findings(subject: Subject) -> Iterator[Finding]:
    config = subject.loaded.config
    same = Counter((export.format, getattr(export, "dtype", "")) for export in config.exports)
    for (form, dtype), count in same.items():
        if count > 1:
            yield Finding(
                "exports.overwritten", "error",
                f"{form} is asked for {count} times{f' in {dtype}' if dtype else ''}: one folder, so the last wins",
                _KEY, "take one out, or give it another dtype", "an export is lost without a word",
            )  # fmt: skip
    for at, export in enumerate(config.exports):
        if not isinstance(export, MergedExport):
            continue
        if not _SIZE.fullmatch(export.max_shard_size):
            yield Finding(
                "exports.shard_size", "error", f"{export.max_shard_size!r} is not a size",
                f"{_KEY}.{at}.max_shard_size", "write it like 5GB or 500MB: max_shard_size: 5GB",
                "training finishes and the export fails",
            )  # fmt: skip
        stored = (
            subject.weights.config.get("torch_dtype", subject.weights.config.get("dtype")) if subject.weights else ""
        )
        if export.dtype == "float16" and stored == "bfloat16":
            yield Finding(
                "exports.float16_range", "warning",
                "the base is stored in bfloat16; float16 cannot hold its largest numbers", f"{_KEY}.{at}.dtype",
                "dtype: bfloat16, or float32 where the reader knows no bfloat16", "single weights become infinite, and answers turn to noise",
            )  # fmt: skip
    if config.exports == []:
        yield Finding(
            "exports.none", "info", "nothing is exported; the trained weights stay in the run's folder", _KEY,
            "exports: [{format: adapter}]",
        )  # fmt: skip
