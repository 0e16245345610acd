"""Every record through the whole preparation: what is dropped and why, what is odd, and whether it is too much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from tunesmith.check.result import Looked
from tunesmith.check.subject import Preparation, Subject
from tunesmith.data.ledger import NOT_FAULTS
from tunesmith.errors import CheckFailed
from tunesmith.types import Finding, Level

_SHOWN = 3
_COSTS = {
    "too long": "cut to size an answer would lose its end; left out it is not learned",
    "record too large": "the GPU waits for the tokeniser while it reads a dump of which a window of tokens is kept",
    "empty answer": "a model that learns to say nothing",
    "no answer": "nothing is learned from it",
    "special token in content": "text that becomes structure: an end in the middle of an answer, a turn that nobody wrote",
    "broken tool call": "a model that writes calls nobody can parse",
    "broken JSON": "rows that vanish",
    "cut off": "the file was not written completely; what follows is missing too",
    "template refuses": "rows that vanish",
}
_REMEDIES = {
    "too long": "raise data.max_length, or choose data.too_long: drop or shorten_prompt; for SQL show the schema as DDL "
    "alone, or lower task.schema_tokens",
    "record too large": "give the schema as DDL alone, without INSERTs; else raise data.max_record_bytes",
    "empty answer": "take these records out of the file, or give the turn weight: 0",
    "no answer": "end every conversation with an assistant turn",
    "special token in content": "remove or reword the control word",
    "broken tool call": 'write calls as JSON: {"name": ..., "arguments": {...}}',
    "cut off": "copy the file again",
    "unknown role": "use system, user, assistant or tool",
}
_OWN = {
    "hidden characters": (
        "data.hidden_characters",
        "what the model learns to write cannot be seen, and breaks exact matching",
    ),
    "split": ("data.split", "validation asks about groups that training has seen, so it looks better than it is"),
    "batch": ("data.fewer_than_a_step", "every step sees all the data: a few of them are enough to learn it by heart"),
    "format": ("data.format", ""),
    "bos": ("data.bos", ""),
    "leak": ("leakage.same_question", "held-out figures that measure memory"),
}
"""Findings of the preparation: our name, and what it costs."""


def check_data(subject: Subject) -> Looked:
    """Read, split and render all the data as a run will; what a run would stop at, row by row and reason by reason."""
    made = subject.preparation
    prepared = made.prepared
    findings = [*_dropped(made), *_stopped(made), *_remarks(made), *_lengths(subject, made)]
    ledger = prepared.ledger
    figures = {"rows": ledger.rows, "trained": ledger.trained, "validation": ledger.validation, "test": ledger.test,
               "dropped": ledger.dropped}  # fmt: skip
    return Looked(findings, figures)


def _dropped(made: Preparation) -> Iterator[Finding]:
    """One finding for each reason, with the first places; an error where a run would stop over it."""
    places: dict[str, list[str]] = defaultdict(list)
    details: dict[str, str] = {}
    for line in made.ledger:
        if line["outcome"] == "dropped":
            places[line["reason"]].append(line["place"])
            details.setdefault(line["reason"], line.get("detail", ""))
    for reason, found in sorted(places.items(), key=lambda item: -len(item[1])):
        if reason == "leak":
            continue  # said by the leakage family
        fault = reason not in NOT_FAULTS
        level: Level = "error" if fault and made.error is not None else "warning" if fault else "info"
        others = f"; also {', '.join(found[1:_SHOWN])}" if len(found) > 1 else ""
        others += f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        yield Finding(
            f"data.{reason.replace(' ', '_')}",
            level,
            f"{len(found):,} of {made.prepared.ledger.rows:,} rows are dropped: {reason}: {details[reason]}{others}",
            found[0],
            _REMEDIES.get(reason, f"repair the rows; {made.ledger_path} lists them all") if fault else "",
            _COSTS.get(reason, "rows that are not learned") if fault else "",
        )


def _stopped(made: Preparation) -> Iterator[Finding]:
    """What a run stops with; the rows behind it are named above where there are any."""
    if made.error is None or made.prepared.ledger.faults or isinstance(made.error, CheckFailed):
        return  # said above by its rows, or by the leakage family
    yield Finding("data", "error", made.error.message, made.error.place, made.error.remedy, "a run stops here")


def _remarks(made: Preparation) -> Iterator[Finding]:
    for finding in made.prepared.findings:
        check, cost = _OWN.get(finding.check, (f"data.{finding.check.replace(' ', '_')}", ""))
        if not check.startswith("leakage."):
            yield Finding(check, finding.level, finding.message, finding.place, finding.remedy, cost)


def _lengths(subject: Subject, made: Preparation) -> Iterator[Finding]:
    """Answers that evaluation would cut off before they end."""
    most = subject.config.generate.max_new_tokens
    counts = made.prepared.train.label_counts
    longer = int((counts > most).sum())
    if longer and subject.config.data.test:
        at = int(np.argmax(counts))
        yield Finding(
            "data.answers_longer_than_generation",
            "warning" if longer > 0.01 * len(counts) else "info",
            f"{longer:,} of {len(counts):,} training answers are longer than generate.max_new_tokens ({most}), "
            f"the longest has {int(counts.max()):,} tokens",
            made.prepared.train.example(at).place,
            f"set generate.max_new_tokens={int(counts.max())}",
            "answers like these are cut off in evaluation and counted as wrong",
        )
