"""Conversations: tool calls, stated facts and rules are checked; the rest is a judge model's, or is not judged.

`docs/graders/chat.md` states the rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config import schema
from tunesmith.endpoint import Endpoint
from tunesmith.errors import DataError
from tunesmith.tasks.chat.calls import BrokenCallError, Call, breaks_schema, read_calls, same_calls
from tunesmith.tasks.chat.cheap import cheap_answers
from tunesmith.tasks.chat.judge import RUBRIC_VERSION, Budget, Judge
from tunesmith.tasks.chat.rules import KNOWN, check_rules, echoes, folded_text, holds
from tunesmith.tasks.writing import language_of
from tunesmith.types import Constraint, Example, Message, Record, Score

_MATCHES = ("exact", "contains")
_ROOMY = 40
"""Words that an answer may have in any case where `checks.include` decides and `max_words` is not set; else four times
those of the right answer."""


class ChatTask:
    """The task `chat`. Chat formats are read by the data room; this reads plain question and answer."""

    name = "chat"
    version = "2"

    def __init__(self, config: schema.ChatTask, environ: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._environ = environ
        self._judge: Judge | None = None

    def examples(self, record: Record) -> Iterator[Example]:
        """One example of a record `{question, answer}` with an optional `system`, `match` and `checks`.

        `match: exact` or `match: contains` has answers marked against `answer`; `checks` are the rules an answer must
        keep (`tasks.chat.rules`).

        Raises:
            DataError: question or answer is missing, or `match` or a check is another word.
        """
        question, answer = record.fields.get("question"), record.fields.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
            raise DataError(
                f"the record has neither a conversation nor question and answer (it has: {', '.join(record.fields)})",
                place=record.place,
                remedy="use `messages`, `conversations`, `prompt` and `completion`, or `question` and `answer`",
            )
        match = record.fields.get("match", "")
        if match and match not in _MATCHES:
            raise DataError(f"match: {match} is not known", place=record.place, remedy="write exact or contains")
        checks = record.fields.get("checks") or {}
        if not isinstance(checks, Mapping) or (unknown := [key for key in checks if key not in KNOWN]):
            named = unknown[0] if isinstance(checks, Mapping) else checks
            raise DataError(f"checks: {named} is not known", place=record.place, remedy=f"known are {', '.join(KNOWN)}")
        system = record.fields.get("system")
        opening = (Message("system", str(system)),) if system else ()
        kept = {key: record.fields[key] for key in ("kind", "language", "tools") if record.fields.get(key)}
        yield Example(
            id=record.id,
            messages=(*opening, Message("user", question), Message("assistant", answer, train=True)),
            target=answer,
            meta={**({"match": match} if match else {}), **({"checks": dict(checks)} if checks else {}), **kept},
            place=record.place,
        )

    def grade(self, example: Example, completion: str) -> Score:
        """Whether the answer does what the record says is right, keeps the rules and, with a judge, how good it is.

        A record says what is right by a tool call in its last turn, by `match`, or by `checks.include`. Where it does,
        the score is 1.0 when that and every rule hold, else 0.0. Where it does not, a judge's mean of relevance,
        completeness and clarity is the score, 0.0 where a rule is broken; without a judge it is None. The judge's parts
        are there only when it was asked.
        """
        answer = completion.rpartition("</think>")[2] if "</think>" in completion else completion
        if not answer.strip() or ("<think>" in answer and "</think>" not in completion):
            return Score(0.0, note="no answer", failure="no_answer")
        tools = tools_of(example)
        right = gold_calls(example)
        try:
            said = read_calls(answer)
        except BrokenCallError as error:
            return Score(0.0, {"tool_json": 0.0}, f"a tool call that cannot be read: {error}", "broken_call")
        if right or said:
            return _grade_calls(right, said, tools)
        if echoes(answer, (turn.content for turn in example.prompt if turn.role in ("user", "tool")), example.target):
            return Score(0.0, {"echo": 0.0}, "it only repeats the conversation", "echo")
        checks = _checks(example)
        if "include" in checks:  # facts count in an answer, not in a list of everything that could be one
            checks = {"max_words": max(_ROOMY, 4 * len(example.target.split())), **checks}
        parts, broken = check_rules(answer, checks, _language(example))
        match = example.meta.get("match")
        if match:
            right_text, text = folded_text(example.target), folded_text(answer)
            found = text == right_text if match == "exact" else holds(answer, example.target)
            if not found:
                return Score(0.0, parts, f"is not a match ({match})", "no_match")
        if broken:
            return Score(0.0, parts, broken[0].why, f"breaks_{broken[0].rule}")
        if match or "include" in checks:
            return Score(1.0, parts, "what the record asks for is there, and every rule holds")
        return self._judged(example, answer, parts)

    def _judged(self, example: Example, answer: str, parts: Mapping[str, float]) -> Score:
        judge = self.judge()
        if judge is None:
            return Score(None, parts, "free text: nothing says which answers are right, and no judge is set")
        shows = self._config.judge is not None and self._config.judge.sees_reference
        found = judge.score(example.prompt, answer, example.target if shows else "")
        if found is None:
            why = "the judge's budget is spent" if judge.budget.spent else "the judge's reply was no judgement"
            return Score(None, parts, why)
        mean = sum(found.parts.values()) / len(found.parts)
        shown = {"judge": judge.name, "rubric": RUBRIC_VERSION}
        failure = "" if mean == 1 else "judged_lower"
        return Score(mean, {**parts, **found.parts}, found.reason, failure, shown)

    def judge(self) -> Judge | None:
        """The judge of the recipe, reached on first use; None where it names none.

        Raises:
            ConfigError: its address, key or model is wrong.
        """
        wanted = self._config.judge
        if wanted is not None and self._judge is None:
            endpoint = Endpoint.parse(wanted.endpoint, wanted.key, self._environ)
            budget = Budget(wanted.max_calls, wanted.max_cost, wanted.input_price, wanted.output_price)
            self._judge = Judge.at(endpoint, budget, wanted.cache and Path(wanted.cache))
        return self._judge

    def gold_answer(self, example: Example) -> str:
        """The last turn as a model would write it: its tool calls as JSON where they stand outside its text."""
        last = example.messages[-1]
        calls = last.extra.get("tool_calls")
        if calls and not last.content.strip():
            made = [{"name": call.name, "arguments": dict(call.arguments)} for call in gold_calls(example)]
            return json.dumps(made[0] if len(made) == 1 else made, ensure_ascii=False)
        return last.content

    def cheap_answers(self, example: Example) -> Mapping[str, str]:
        """Answers that solve nothing, for the red team."""
        return cheap_answers(example, gold_calls(example), tools_of(example))

    def constraint(self, example: Example) -> Constraint | None:
        """Conversation is free text."""
        return None

    def close(self) -> None:
        """Nothing is held: every reply of a judge is on disk when it is there."""


def tools_of(example: Example) -> Any:
    """The tools that were offered: the record's `tools`, or `checks.tools` where the prompt's text names them."""
    return example.meta.get("tools") or _checks(example).get("tools")


def _checks(example: Example) -> Mapping[str, Any]:
    found = example.meta.get("checks")
    return found if isinstance(found, Mapping) else {}


def gold_calls(example: Example) -> list[Call]:
    """The tool calls of the example's last turn, from `tool_calls` or from its text; empty for plain text."""
    last = example.messages[-1] if example.messages else None
    if last is None or last.role != "assistant":
        return []
    try:
        if last.extra.get("tool_calls"):
            return read_calls(json.dumps({"tool_calls": last.extra["tool_calls"]}))
        return read_calls(last.content)
    except BrokenCallError:
        return []


def _grade_calls(right: list[Call], said: list[Call], tools: Any) -> Score:
    if not right:
        return Score(0.0, {"tool_call": 0.0}, "it calls a tool where an answer is right", "needless_call")
    if not said:
        return Score(0.0, {"tool_json": 0.0, "tool_call": 0.0}, "it does not call the tool", "no_call")
    parts = {"tool_json": 1.0}
    if tools:
        breach = next((why for why in (breaks_schema(call, tools) for call in said) if why), "")
        parts["tool_schema"] = 0.0 if breach else 1.0
        if breach:
            return Score(0.0, {**parts, "tool_call": 0.0}, f"against the tool's schema: {breach}", "breaks_schema")
    differs = same_calls(right, said, tools)
    parts["tool_call"] = 0.0 if differs else 1.0
    return Score(parts["tool_call"], parts, differs or "the right call", "wrong_call" if differs else "")


def _language(example: Example) -> str:
    said = example.meta.get("language")
    if said:
        return str(said)
    return language_of(example.question)
