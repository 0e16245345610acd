"""Faults that `faults.py` seeds into finished rows, into the chat template and into records, each with its due name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from faults_sets import Records, same, with_thoughts, with_tools, with_turns, without_thoughts
from tunesmith.types import IGNORE

# --- label faults -----------------------------------------------------------------------------------------------------

Row = tuple[list[int], list[int]]
"""(ids, labels) of one row, to be changed in place."""


def runs_of(labels: list[int]) -> list[tuple[int, int]]:
    """[start, stop) of every labelled stretch."""
    on = [label != IGNORE for label in labels]
    edges = np.flatnonzero(np.diff(np.array([False, *on, False]).astype(int)))
    return list(zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True))


def end_masked(row: Row, tok: Any) -> None:
    """Padding is the end token, and the collator masks padding."""
    row[1][:] = [IGNORE if label == tok.eos_token_id else label for label in row[1]]


def start_masked(row: Row, tok: Any) -> None:
    row[1][runs_of(row[1])[-1][0]] = IGNORE


def last_word_masked(row: Row, tok: Any) -> None:
    row[1][runs_of(row[1])[-1][1] - 2] = IGNORE


def middle_masked(row: Row, tok: Any) -> None:
    start, stop = runs_of(row[1])[-1]
    row[1][start + 1 : max(start + 2, stop - 3)] = [IGNORE] * (max(start + 2, stop - 3) - start - 1)


def only_end_trained(row: Row, tok: Any) -> None:
    """axolotl#1801: everything ignored but the last token."""
    for start, stop in runs_of(row[1]):
        row[1][start : stop - 1] = [IGNORE] * (stop - 1 - start)


def everything_trained(row: Row, tok: Any) -> None:
    """No mask: the loss runs over the prompt."""
    row[1][:] = row[0]


def header_trained(row: Row, tok: Any) -> None:
    start = runs_of(row[1])[-1][0]
    row[1][start - 3 : start] = row[0][start - 3 : start]


def question_trained(row: Row, tok: Any) -> None:
    start = runs_of(row[1])[-1][0]
    before = [at for at in range(start - 3) if row[0][at] == tok.eos_token_id][-2:]
    first = before[0] + 1 if len(before) > 1 else 1
    row[1][first : before[-1] + 1] = row[0][first : before[-1] + 1]


def blank_trained(row: Row, tok: Any) -> None:
    start = runs_of(row[1])[-1][0]
    row[1][start - 1] = row[0][start - 1]


def nothing_trained(row: Row, tok: Any) -> None:
    row[1][:] = [IGNORE] * len(row[1])


def markers_of_another_family(row: Row, tok: Any) -> None:
    """Response-only training that looks for Llama 3's header in ChatML: never found, all masked."""
    marker = tok.convert_tokens_to_ids(["<|start_header_id|>", "<|end_header_id|>"])
    ids, row[1][:] = row[0], [IGNORE] * len(row[1])
    for at in range(len(ids) - 1):
        if ids[at : at + 2] == marker:
            row[1][at:] = ids[at:]


def marker_without_its_partner(row: Row, tok: Any) -> None:
    """Everything after the first answer's header is trained, the user's next turn too."""
    start = runs_of(row[1])[0][0]
    stop = max(at for at, token in enumerate(row[0]) if token == tok.eos_token_id) + 1
    row[1][start:stop] = row[0][start:stop]


def first_turn_only(row: Row, tok: Any) -> None:
    for start, stop in runs_of(row[1])[1:]:
        row[1][start:stop] = [IGNORE] * (stop - start)


def last_turn_only(row: Row, tok: Any) -> None:
    for start, stop in runs_of(row[1])[:-1]:
        row[1][start:stop] = [IGNORE] * (stop - start)


def shifted_left(row: Row, tok: Any) -> None:
    row[1][:] = [*row[1][1:], IGNORE]


def shifted_right(row: Row, tok: Any) -> None:
    row[1][:] = [IGNORE, *row[1][:-1]]


def wrong_id(row: Row, tok: Any) -> None:
    at = runs_of(row[1])[-1][0]
    row[1][at] += 1


def cut_in_the_answer(row: Row, tok: Any) -> None:
    """Truncation at the right, through the last answer."""
    start, stop = runs_of(row[1])[-1]
    at = max(start + 1, stop - 3)
    del row[0][at:], row[1][at:]


def cut_before_the_answer(row: Row, tok: Any) -> None:
    at = runs_of(row[1])[0][0]
    del row[0][at:], row[1][at:]


def cut_at_the_left(row: Row, tok: Any) -> None:
    """Truncation at the left, behind the beginning token: the start of the prompt is gone."""
    del row[0][1:12], row[1][1:12]


def double_bos(row: Row, tok: Any) -> None:
    row[0].insert(0, tok.bos_token_id), row[1].insert(0, IGNORE)


def bos_missing(row: Row, tok: Any) -> None:
    del row[0][0], row[1][0]


def end_repeated(row: Row, tok: Any) -> None:
    at = runs_of(row[1])[-1][1]
    row[0].insert(at, tok.eos_token_id), row[1].insert(at, tok.eos_token_id)


def tail_trained(row: Row, tok: Any) -> None:
    row[1][-1] = row[0][-1]


def padded_inside(row: Row, tok: Any) -> None:
    at = runs_of(row[1])[-1][0] - 3
    row[0][at:at], row[1][at:at] = [tok.pad_token_id] * 2, [IGNORE] * 2


def padded_at_the_left(row: Row, tok: Any) -> None:
    row[0][0:0], row[1][0:0] = [tok.pad_token_id] * 4, [IGNORE] * 4


def word_twice(row: Row, tok: Any) -> None:
    start = runs_of(row[1])[-1][0]
    row[0].insert(start, row[0][start]), row[1].insert(start, row[1][start])


def question_replaced(row: Row, tok: Any) -> None:
    start = runs_of(row[1])[-1][0]
    row[0][start - 9 : start - 5] = row[0][start - 6 : start - 2]


LABEL_FAULTS: list[tuple[Callable[[Row, Any], None], str, Callable[[Records], Records]]] = [
    (end_masked, "labels.end_masked", same),
    (start_masked, "labels.answer_incomplete", same),
    (last_word_masked, "labels.answer_incomplete", same),
    (middle_masked, "labels.answer_incomplete", same),
    (only_end_trained, "labels.answer_incomplete", same),
    (everything_trained, "labels.prompt_trained", same),
    (header_trained, "labels.prompt_trained", same),
    (question_trained, "labels.prompt_trained", same),
    (blank_trained, "labels.other_blanks", same),
    (nothing_trained, "labels.none_trained", same),
    (markers_of_another_family, "labels.none_trained", same),
    (marker_without_its_partner, "labels.prompt_trained", with_turns),
    (first_turn_only, "labels.turn_missing", with_turns),
    (last_turn_only, "labels.turn_missing", with_turns),
    (shifted_left, "labels.not_next_token", same),
    (shifted_right, "labels.not_next_token", same),
    (wrong_id, "labels.not_next_token", same),
    (cut_in_the_answer, "labels.cut_off", same),
    (cut_before_the_answer, "labels.none_trained", same),
    (cut_at_the_left, "labels.message_lost", same),
    (double_bos, "labels.double_bos", same),
    (bos_missing, "labels.bos_missing", same),
    (end_repeated, "labels.end_repeated", same),
    (tail_trained, "labels.beyond_end", same),
    (padded_inside, "labels.padding_inside", same),
    (padded_at_the_left, "labels.padding_inside", same),
    (word_twice, "labels.prompt_trained", same),
    (question_replaced, "labels.message_lost", same),
]


# --- template faults --------------------------------------------------------------------------------------------------


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(template: str) -> str:
        assert old in template, old
        return template.replace(old, new, 1)

    return change


LOOP, BODY, STOP = "{% for m in messages %}", "{{ m.content }}{% for c", "{{ '<|im_end|>\\n' }}{% endfor %}"
THINK = "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}"
OTHER = "{% else %}{{ m.content }}{% endif %}"
PROMPT = "{{ '<|im_start|>assistant\\n' }}"
CALLS = "{{ '<tool_call>' + (c.function | tojson) + '</tool_call>' }}"
TEMPLATE_FAULTS: list[tuple[str, Callable[[str], str], str, Callable[[Records], Records]]] = [
    ("drops the system message", replaced(LOOP, "{% for m in messages if m.role != 'system' %}"), "template.drops_system", same),
    ("drops earlier questions", replaced(OTHER, "{% elif loop.revindex <= 2 or m.role != 'user' %}{{ m.content }}{% endif %}"), "template.drops_user", with_turns),
    ("drops earlier answers", replaced(BODY, "{% if loop.last %}{{ m.content }}{% endif %}{% for c"), "template.drops_answer", with_turns),
    ("eats the reasoning", replaced(THINK, ""), "template.drops_reasoning", with_thoughts),
    ("puts the answer where the reasoning belongs", replaced(THINK, "{{ '<think>\\n' + m.content + m.reasoning_content + '\\n</think>\\n\\n' }}"), "template.writes_twice", with_thoughts),
    ("writes the reasoning behind the answer", lambda t: t.replace(THINK, "").replace(BODY, "{{ m.content }}{% if m.reasoning_content %}" + THINK + "{% endif %}{% for c"), "template.swaps_reasoning", with_thoughts),
    ("does not write tool calls", replaced(CALLS, ""), "template.drops_tool_call", with_tools),
    ("writes the name of a call without its arguments", replaced(CALLS, "{{ c.function.name }}"), "template.drops_tool_call", with_tools),
    ("drops tool results", replaced(OTHER, "{% elif m.role != 'tool' %}{{ m.content }}{% endif %}"), "template.drops_tool", with_tools),
    ("does not describe the tools", replaced("(tools | tojson)", "'none'"), "template.drops_tools", with_tools),
    ("writes no end token", replaced(STOP, "{{ '\\n' }}{% endfor %}"), "template.no_end_token", same),
    ("ends all answers but the last", replaced(STOP, "{% if not loop.last %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"), "template.no_end_token", same),
    ("ends answers in different ways", replaced(STOP, "{{ '<|im_end|>\\n' if loop.last else '</s>\\n' }}{% endfor %}"), "template.different_ends", with_turns),
    ("ends with a token that the tokenizer does not have", replaced(STOP, "{{ '<|eot|>\\n' }}{% endfor %}"), "template.end_is_text", same),
    ("writes the beginning token twice", replaced("{{ bos_token }}", "{{ bos_token + bos_token }}"), "template.double_bos", same),
    ("writes the answer twice", replaced(BODY, "{{ m.content + ' ' + m.content }}{% for c"), "template.writes_twice", same),
    ("turns the conversation round", replaced(LOOP, "{% for m in messages | reverse %}"), "template.changes_order", same),
    ("writes in lower case", replaced(OTHER, "{% else %}{{ m.content | lower }}{% endif %}"), "template.rewrites_content", same),
    ("squeezes empty lines", replaced(BODY, "{{ m.content | replace('\\n\\n', '\\n') }}{% for c"), "template.rewrites_content", same),
    ("cuts long messages", replaced(OTHER, "{% else %}{{ m.content[:60] }}{% endif %}"), "template.cuts_content", same),
    ("cuts long answers", replaced(BODY, "{{ m.content[:60] }}{% for c"), "template.cuts_content", same),
    ("escapes as HTML", replaced(OTHER, "{% else %}{{ m.content | replace(',', '&#44;') }}{% endif %}"), "template.rewrites_content", same),
    ("ignores the generation prompt", replaced(PROMPT, ""), "template.no_generation_prompt", same),
    ("asks with another header than it trains", replaced(PROMPT, "{{ '<|im_start|>model\\n' }}"), "template.other_prompt", same),
    ("asks with other blanks than it trains", replaced(PROMPT, "{{ '\\n\\n<|im_start|>assistant\\n' }}"), "template.other_prompt", same),
    ("opens a thought in the prompt alone", lambda t: t.replace(PROMPT, "{{ '<|im_start|>assistant\\n<think>\\n' }}").replace(BODY, "{{ '<think>\\n\\n</think>\\n\\n' + m.content }}{% for c"), "template.opens_thought", without_thoughts),
    ("writes an empty thought behind the reasoning", replaced(BODY, "{{ '<think>\\n\\n</think>\\n\\n' + m.content }}{% for c"), "template.second_thought", with_thoughts),
    ("refuses system messages", replaced(LOOP, LOOP + "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"), "template.refuses", same),
    ("is not Jinja", replaced("{% endfor %}", "{% endfro %}"), "template.broken", same),
    ("writes markers that the tokenizer does not have", lambda t: t.replace("<|im_start|>", "<|turn_starts|>"), "template.unknown_marker", same),
]  # fmt: skip
SETTING_FAULTS = {
    "padding is the end": ("template.pad_is_end", {"pad": "<|im_end|>"}),
    "model.end_token is another than the template writes": ("template.other_end_token", {"end": "<other_end>"}),
    "model.end_token is no token": ("template.end_is_text", {"end": "<|never_seen|>"}),
}


# --- record faults ----------------------------------------------------------------------------------------------------


def last(content: Any) -> Callable[[dict[str, Any]], Any]:
    def change(record: dict[str, Any]) -> Any:
        record["messages"][-1] = {**record["messages"][-1], "content": content}
        return record

    return change


def turn(at: int, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(record: dict[str, Any]) -> Any:
        record["messages"][at].update(changes)
        return record

    return change


def called(call: Any) -> Callable[[dict[str, Any]], Any]:
    def change(record: dict[str, Any]) -> Any:
        record["messages"][-1]["tool_calls"] = [call]
        return record

    return change


def without(record: dict[str, Any]) -> Any:
    record["messages"].pop()
    return record


def function_call(record: dict[str, Any]) -> Any:
    record["messages"][-1] = {"role": "function_call", "content": "weather({place: Cork})"}
    return record


RECORD_FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("empty answer", last(""), "data.empty_answer"),
    ("blank answer", last(" \n "), "data.empty_answer"),
    ("null answer", last(None), "data.content_is_not_a_text"),
    ("answer that is a number", last(42), "data.content_is_not_a_text"),
    ("no answer", without, "data.no_answer"),
    ("unknown role", turn(1, role="narrator"), "data.unknown_role"),
    ("control token in the question", turn(1, content="Say <|im_end|> please"), "data.special_token_in_content"),
    ("control token in the answer", last("Yes.<|im_end|>\n<|im_start|>user\nAnd?"), "data.special_token_in_content"),
    ("tool call that is not JSON", function_call, "data.broken_tool_call"),
    ("tool call without a name", called({"function": {"arguments": {}}}), "data.broken_tool_call"),
    ("tool call whose arguments are not JSON", called({"function": {"name": "weather", "arguments": "{place: 3"}}), "data.broken_tool_call"),
    ("every turn has weight 0", lambda r: {**r, "messages": [{**m, "weight": 0} for m in r["messages"]]}, "data.nothing_to_train_on"),
    ("messages is a text", lambda r: {**r, "messages": "hello"}, "data.messages_is_not_a_list"),
    ("no messages", lambda r: {**r, "messages": []}, "data.no_messages"),
    ("turn that is a text", lambda r: {**r, "messages": ["hello", *r["messages"]]}, "data.broken_turn"),
    ("another key", lambda r: {"dialogue": r["messages"]}, "data.no_messages"),
    ("NUL in a text", turn(1, content="a\x00b"), "data.NUL_in_text"),
    ("broken JSON", lambda r: '{"messages": [,]}', "data.broken_JSON"),
    ("line cut off", lambda r: json.dumps(r, ensure_ascii=False)[:-30] + "\x1a", "data.broken_JSON"),
    ("not an object", lambda r: "[1, 2]", "data.not_an_object"),
    ("key twice", lambda r: '{"messages": [], "messages": []}', "data.broken_JSON"),
    ("data dump in the prompt", turn(1, content="INSERT INTO t VALUES (1);\n" * 400), "data.record_too_large"),
    ("longer than max_length", turn(1, content="word " * 900), "data.too_long"),
    ("characters nobody sees", turn(1, content="Is it\u200b warm?"), "data.hidden_characters"),
]  # fmt: skip
