"""A data set of support dialogues, made up: no text of anybody's, every last turn graded."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

from tunesmith.config.schema import ChatBuild, ChatTask
from tunesmith.errors import DataError
from tunesmith.tasks.built import SETS, Built, digest, read_built, share_of, write_built
from tunesmith.tasks.chat.calls import breaks_schema, read_calls
from tunesmith.tasks.chat.dialogues import HELLO, KINDS, SYSTEM, TOOLS, Dialogue, Draw, Language
from tunesmith.tasks.chat.rules import check_rules

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same settings would give other dialogues."""
_TEST_SHARE = 0.1
"""Share of the dialogues of a kind that are kept for testing, by hash of what they are about."""
_TRIES = 40
"""Dialogues drawn for each that is wanted, before giving up on variety."""


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
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
    most = {"train": wanted.examples, "test_built": wanted.test_examples, "test_unseen": wanted.test_examples}
    unseen = unseen_kinds(wanted.unseen_kinds, seed)
    kinds: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    said: set[tuple[str, ...]] = set()
    rng = random.Random(f"{seed} dialogues")
    for _ in range(_TRIES * (wanted.examples + 2 * wanted.test_examples)):
        open_sets = [name for name in SETS if len(records[name]) < most[name] and (name != "test_unseen" or unseen)]
        if not open_sets:
            break
        kind = rng.choice(list(KINDS))
        language: Language = "vi" if rng.random() < wanted.vietnamese else "en"
        dialogue = KINDS[kind](Draw(rng, language))
        # By the first turn: the same request must not be answered in training and continued in a test.
        side = "test_built" if share_of(seed, _request(dialogue)) < _TEST_SHARE else "train"
        side = "test_unseen" if kind in unseen else side
        if side not in open_sets:
            continue
        if dialogue.turns in said:
            rejected["said before"] += 1
        elif not _holds(dialogue, language):
            rejected["its own answer breaks a rule"] += 1
        else:
            said.add(dialogue.turns)
            kinds[kind] += 1
            records[side].append(_record(kind, language, dialogue))
    if len(records["train"]) < wanted.examples / 10:
        raise DataError(
            f"only {len(records['train'])} of {wanted.examples} dialogues could be made without saying one twice",
            place="task.build",
            remedy="lower task.build.examples",
        )
    built = write_built(records, kinds, rejected, out, key, "every last turn graded")
    log.info("built %s dialogues; left out: %s", built.counts, dict(rejected))
    return built


def unseen_kinds(share: float, seed: int) -> frozenset[str]:
    """The kinds that training never sees: the nearest whole number to their share, chosen by hash."""
    order = sorted(KINDS, key=lambda kind: digest(seed, "unseen", kind))
    return frozenset(order[: min(round(share * len(KINDS)), len(KINDS) - 1)])


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
