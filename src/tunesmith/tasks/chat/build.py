"""A data set of support dialogues, made up: no text of anybody's, every last turn graded."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

from tunesmith.config.schema import ChatBuild, ChatTask
from tunesmith.errors import DataError
from tunesmith.tasks.built import Built, Drawn, digest, draw_sets, read_built, write_built
from tunesmith.tasks.chat.calls import breaks_schema, read_calls
from tunesmith.tasks.chat.dialogues import HELLO, KINDS, SYSTEM, TOOLS, Dialogue, Draw, Language
from tunesmith.tasks.chat.rules import check_rules

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same settings would give other dialogues."""


def build_dialogues(task: ChatTask, out: Path, seed: int) -> Built:
    """Build `train.jsonl`, `test_built.jsonl` and `test_unseen.jsonl` under `out`, or take what lies there.

    A record is `{messages, language, kind, checks}`: the last turn is a tool call, which must be the right one, or says
    what `checks.include` names. The same settings and seed give the same bytes; no first turn stands on both sides.
    A dialogue whose own last turn the rules would refuse is left out.

    Raises:
        DataError: the settings leave less than a tenth of the wanted examples.
    """
    wanted = task.build or ChatBuild()
    key = digest(VERSION, wanted.model_dump_json(), seed)[:16]
    if (earlier := read_built(out, key)) is not None:
        return earlier

    def draw(kind: str, rng: random.Random) -> Drawn:
        language: Language = "vi" if rng.random() < wanted.vietnamese else "en"
        dialogue = KINDS[kind](Draw(rng, language))
        return Drawn(
            dialogue.turns,
            # By the first turn: the same request must not be answered in training and continued in a test.
            (_request(dialogue),),
            holds=lambda: _holds(dialogue, language),
            record=lambda: _record(kind, language, dialogue),
        )

    sets = draw_sets(list(KINDS), draw, random.Random(f"{seed} dialogues"), wanted, seed)
    if len(sets.records["train"]) < wanted.examples / 10:
        raise DataError(
            f"only {len(sets.records['train'])} of {wanted.examples} dialogues could be made without saying one twice",
            place="task.build",
            remedy="lower task.build.examples",
        )
    left = {"said before": sets.repeated, "its own answer breaks a rule": sets.refused}
    rejected = {reason: count for reason, count in left.items() if count}
    built = write_built(sets.records, sets.kinds, rejected, out, key, "every last turn graded")
    log.info("built %s dialogues; left out: %s", built.counts, rejected)
    return built


def _request(dialogue: Dialogue) -> str:
    """The first turn without its greeting."""
    first = dialogue.turns[0].casefold()
    for greetings in HELLO.values():
        for greeting in filter(None, greetings):
            first = first.removeprefix(greeting.casefold())
    return first


def _holds(dialogue: Dialogue, language: Language) -> bool:
    last = dialogue.turns[-1]
    calls = read_calls(last)
    if calls:
        return not any(breaks_schema(one, TOOLS) for one in calls)
    _, broken = check_rules(last, {"include": list(dialogue.include), "language": language}, language)
    return bool(dialogue.include) and not broken


def _record(kind: str, language: Language, dialogue: Dialogue) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(dialogue.turns)]
    checks: dict[str, Any] = {"tools": TOOLS} if not dialogue.include else {"include": list(dialogue.include)}
    return {
        "messages": [{"role": "system", "content": SYSTEM[language]}, *turns],
        "language": language,
        "kind": kind,
        "checks": {**checks, "language": language},
    }
