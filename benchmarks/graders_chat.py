"""The chat grader on published conversations: their own answers, graded as if a model had given them.

Every assistant turn of `chat/formats/*.jsonl` becomes an example. A tool call must score 1 under the schema of its
tools; a published answer that a rule refuses is a false alarm, unless it does break off.

    python benchmarks/graders_chat.py --data FOLDER [--quick] [--show] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.schema import ChatTask as Settings
from tunesmith.data.formats import RowRefused, detect, to_messages
from tunesmith.errors import DataError
from tunesmith.tasks.chat.task import ChatTask, gold_calls
from tunesmith.types import Example


def chat_figures(folder: Path, figure: Any, quick: bool = False, show: bool = False) -> None:
    """Print every figure of the chat grader on the conversations of a folder."""
    task = ChatTask(Settings())
    calls: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for example in _turns(folder, 5 if quick else 1):
        answer = task.gold_answer(example)
        score = task.grade(example, answer)
        (calls if gold_calls(example) else texts)[score.failure or "kept"] += 1
        if show and score.failure:
            print(f"    {score.failure}: {score.note}: ...{answer[-80:]!r}")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds chat/formats")
    parser.add_argument("--quick", action="store_true", help="every fifth conversation")
    parser.add_argument("--show", action="store_true", help="print each answer that a rule refuses")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    arguments = parser.parse_args()
    conditions = f"{platform.machine()}, Python {platform.python_version()}"
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float | str, unit: str, goal: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<56} {value:>10} {unit:<8} {f'goal: {goal}' if goal else ''}", flush=True)

    chat_figures(arguments.data / "chat" / "formats", figure, arguments.quick, arguments.show)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
