"""The chat grader on published conversations: their own answers, graded as if a model had given them.

Every assistant turn of `chat/formats/*.jsonl` becomes an example. A tool call must score 1 under the schema of its
tools; a published answer that a rule refuses is a false alarm, unless it does break off.

    python benchmarks/graders.py --only chat --data FOLDER [--quick] [--json FILE]
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.schema import ChatTask as Settings
from tunesmith.data.formats import RowRefused, detect, to_messages
from tunesmith.errors import DataError
from tunesmith.tasks.chat.task import ChatTask, gold_calls
from tunesmith.types import Example


def measure(data: Path, quick: bool, figure: Any) -> None:
    """Print every figure of the chat grader on the conversations in `data`/chat/formats."""
    task = ChatTask(Settings())
    calls: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for example in _turns(data / "chat" / "formats", 5 if quick else 1):
        answer = task.gold_answer(example)
        score = task.grade(example, answer)
        (calls if gold_calls(example) else texts)[score.failure or "kept"] += 1
    figure("chat: published tool calls", calls.total(), "calls")
    figure("chat: of them score 1", round(100 * calls["kept"] / max(1, calls.total()), 1), "%", "100")
    figure("chat: published answers in text", texts.total(), "answers")
    refused = texts.total() - texts["kept"]
    figure("chat: of them a rule refuses", round(100 * refused / max(1, texts.total()), 1), "%", "near 0")
    for failure, count in texts.most_common():
        if failure != "kept":
            figure(f"  {failure}", count, "answers")


def _turns(folder: Path, step: int) -> Iterator[Example]:
    for path in sorted(folder.glob("*.jsonl")):
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        for number, line in enumerate(lines[::step]):
            fields = json.loads(line)
            form = detect(fields)
            if form is None:
                continue
            try:
                conversations = to_messages(fields, form)
            except (RowRefused, DataError):
                continue
            tools = fields.get("tools")
            try:
                tools = json.loads(tools) if isinstance(tools, str) else tools
            except ValueError:
                tools = None
            for turns in conversations:
                for at, turn in enumerate(turns):
                    if turn.role == "assistant" and at:
                        meta = {"tools": tools} if tools else {}
                        yield Example(f"{path.stem}-{number}-{at}", turns[: at + 1], turn.content, meta=meta)
