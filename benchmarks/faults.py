"""Faults seeded into healthy set-ups, one at a time: is each caught before a run, and named rightly?

Label faults change the finished rows as other tools have been seen to do (padding that is the end, markers of another
model family, a cut at the wrong side); template faults change the chat template; record faults change the data. Every
kind is seeded into every data set. The healthy set-ups themselves, with many templates, must give no alarm.

    python benchmarks/faults.py [--data FOLDER] [--quick] [--json FILE]

Data sets are made here; `--data` adds the real chat templates of `FOLDER/templates` to the healthy set-ups.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tunesmith.check import check
from tunesmith.check.template import first_shapes, template_findings
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.data.cache import TokensDataset, write_tokens
from tunesmith.data.formats import to_messages
from tunesmith.data.prove import prove_labels
from tunesmith.data.render import Renderer
from tunesmith.model.load import DEMO
from tunesmith.types import IGNORE, Example, Tokens

Records = list[dict[str, Any]]
ROWS = 24
CONFIG = RunConfig.model_validate({"task": "chat", "model": {"name": "demo"}, "data": {"train": "x"}})
SPECIAL = [
    "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>",
    "<unk>", "<other_end>",
]  # fmt: skip


# --- healthy set-ups --------------------------------------------------------------------------------------------------


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **extra: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **extra}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
PLACES = ["Huế", "Cork", "Lyon", "Oslo", "Bergen", "Porto"]


def sql(n: int) -> dict[str, Any]:
    schema = "CREATE TABLE clinic (id int, city text, beds int);\n\nCREATE TABLE cat (id int, clinic_id int);"
    query = f"SELECT count(*)\nFROM clinic\nWHERE city = '{PLACES[n % 6]}' AND beds > {n};"
    return {"messages": [system(f"Write one query.\n\n{schema}"), user(f"How many clinics in {PLACES[n % 6]} have more than {n} beds?"), answer(query)]}  # fmt: skip


def maths(n: int) -> dict[str, Any]:
    text = f"Một hình chữ nhật có chiều dài {n + 3} cm và chiều rộng {n + 1} cm. Tính chu vi."
    return {"messages": [system("Giải từng bước."), user(text), answer(f"Chu vi: ({n + 3} + {n + 1}) × 2 = {4 * n + 8} cm\n#### {4 * n + 8}")]}  # fmt: skip


def chat(n: int) -> dict[str, Any]:
    turns = [system("You are kind."), user(f"Hello, I am number {n}."), answer(f"Hello number {n}!  How are you?")]
    return {"messages": [*turns, user(f"Fine, and {n} times better."), answer(f"Good to hear; {n} is a lot.")]}


def reasoning(n: int) -> dict[str, Any]:
    thought = f"{n} and {n} make {2 * n}; say it plainly."
    return {"messages": [system("Think first."), user(f"What is {n} plus {n}?"), answer(f"It is {2 * n}.", reasoning_content=thought)]}  # fmt: skip


def tools(n: int) -> dict[str, Any]:
    call = {"type": "function", "id": f"abcdefg{n % 100:02d}", "function": {"name": "weather", "arguments": {"place": PLACES[n % 6]}}}  # fmt: skip
    result = {
        "role": "tool",
        "name": "weather",
        "tool_call_id": f"abcdefg{n % 100:02d}",
        "content": f"{n} degrees, rain",
    }
    asked = user(f"Is it warm in {PLACES[n % 6]}, day {n}?")
    return {"messages": [system("Use the tool."), asked, answer("", tool_calls=[call]), result, answer(f"It is {n} degrees.")], "tools": TOOLS}  # fmt: skip


SETS: dict[str, Callable[[int], dict[str, Any]]] = {
    "sql": sql, "maths": maths, "chat": chat, "reasoning": reasoning, "tools": tools,
}  # fmt: skip


def records_of(name: str) -> Records:
    return [SETS[name](n) for n in range(1, ROWS + 1)]


def with_turns(records: Records) -> Records:
    """A second question and answer, for faults that need one."""
    return [{**r, "messages": [*r["messages"], user(f"And then, {n}?"), answer(f"Then {n} more.")]} for n, r in enumerate(records)]  # fmt: skip


def with_thoughts(records: Records) -> Records:
    made = deepcopy(records)
    for n, record in enumerate(made):
        record["messages"][-1].setdefault("reasoning_content", f"First I look at number {n}.")
    return made


def without_thoughts(records: Records) -> Records:
    made = deepcopy(records)
    for record in made:
        for message in record["messages"]:
            message.pop("reasoning_content", None)
    return made


def with_tools(records: Records) -> Records:
    return [r if "tools" in r else {**tools(n), "messages": [*r["messages"], *tools(n)["messages"][1:]]} for n, r in enumerate(records)]  # fmt: skip


CHATML = """{{ bos_token }}{% if tools %}{{ '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% if m.reasoning_content %}\
{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}\
{{ '<tool_call>' + (c.function | tojson) + '</tool_call>' }}{% endfor %}{% else %}{{ m.content }}{% endif %}\
{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PLAIN = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama-3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
    "m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "gemma": "{{ bos_token }}{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.s = m.content + '\\n\\n' %}{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + "
    "'\\n' + ns.s + m.content | trim + '<end_of_turn>\\n' }}{% set ns.s = '' %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    "mistral": "{{ bos_token }}{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.s = m.content + '\\n\\n' %}{% elif m.role == 'user' %}{{ ' [INST] ' + ns.s + m.content + ' [/INST]' }}"
    "{% set ns.s = '' %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    "phi": "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "alpaca": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '### Instruction:\\n' + m.content + '\\n\\n' }}"
    "{% elif m.role == 'system' %}{{ m.content + '\\n\\n' }}{% else %}{{ '### Response:\\n' + m.content + eos_token + '\\n\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
}  # fmt: skip
EOS = {"chatml": "<|im_end|>", "llama-3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi": "<|end|>"}


def tokenizer_of(template: str, eos: str = "<|im_end|>", bos: str = "<s>", special: Iterable[str] = SPECIAL) -> Any:
    backend = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token="<pad>")
    made.chat_template = template
    return made


def examples_of(records: Records) -> list[Example]:
    made = []
    for n, record in enumerate(records):
        (messages,) = to_messages(record, "messages", place=f"x.jsonl:{n + 1}")
        meta = {"tools": record["tools"]} if "tools" in record else {}
        made.append(Example(str(n), messages, messages[-1].content, meta=meta, place=f"x.jsonl:{n + 1}"))
    return made


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


def same(records: Records) -> Records:
    """The data set as it is."""
    return records


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


def prove(records: Records, tok: Any, folder: Path, fault: Callable[[Row, Any], None] | None = None) -> set[str]:
    """Names of what the proof finds in these records, one row of which has the fault."""
    renderer = Renderer(tok)
    examples = examples_of(records)
    rows = [renderer.render(example) for example in examples]
    if fault is not None:
        row = (rows[7].input_ids.tolist(), rows[7].labels.tolist())
        fault(row, tok)
        rows[7] = Tokens(rows[7].id, np.array(row[0], np.int32), np.array(row[1], np.int32))
    write_tokens(folder, "train", rows, examples)
    return {f.check for f in prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG).findings}


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


def look(records: Records, tok_dir: Path, folder: Path, fault: Callable[[dict[str, Any]], Any] | None) -> set[str]:
    """Names of what `check` finds in a recipe with these records, one of which has the fault."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    if fault is not None:
        changed = fault(deepcopy(records[7]))
        lines[7] = changed if isinstance(changed, str) else json.dumps(changed, ensure_ascii=False)
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "name": "x", "task": "chat", "output_dir": str(folder / "runs"), "model": {"name": str(tok_dir)},
        "data": {"train": "train.jsonl", "max_record_bytes": 8000, "max_length": 700, "validation_share": 0},
    }  # fmt: skip
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    result = check(load_config(folder / "r.yaml", environ={}), families=["template", "data", "labels"])
    return {f.check for f in result.findings if f.level != "info"}


# --- counting ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="folder that holds templates/*.jinja")
    parser.add_argument("--quick", action="store_true", help="one data set, a few templates")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    arguments = parser.parse_args()
    conditions = f"{ROWS} rows a set, one row at fault, {platform.machine()}, Python {platform.python_version()}"
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float, unit: str, goal: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<58} {value:>10} {unit:<10} {f'goal: {goal}' if goal else ''}", flush=True)

    names = ["sql"] if arguments.quick else list(SETS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        missed: list[str] = []
        count: dict[str, int] = defaultdict(int)
        kinds: dict[str, int] = {}
        for family, trials in (("label", labels(names, folder)), ("template", templates(names)), ("record", data(names, folder))):  # fmt: skip
            seen = set()
            for kind, on, right, found in trials:
                seen.add(kind)
                count[family] += 1
                if right not in found:
                    missed.append(f"{family}: {kind} on {on}: due is {right}, found {sorted(found) or 'nothing'}")
            kinds[family] = len(seen)
            figure(f"kinds of {family} faults", kinds[family], "kinds")
        total = sum(count.values())
        figure("kinds of label, template and record faults", sum(kinds.values()), "kinds", "at least 40")
        figure("data sets", len(names), "sets", "5")
        figure("faults seeded", total, "faults")
        figure("caught with the right name", total - len(missed), "faults", f"{total}")
        alarms, combinations = healthy(names, folder, arguments.data, arguments.quick)
        figure("healthy combinations of data, template and recipe", combinations, "runs", "at least 60")
        figure("false alarms", len(alarms), "runs", "0")
        wall, cpu = proof_speed(folder)
        figure("label proof", wall, "rows/min", "at least 20000")
        figure("label proof, by processor time", cpu, "rows/min")
        for line in [*missed, *alarms]:
            print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


Trial = tuple[str, str, str, set[str]]
"""(kind, data set, due name, names found)."""


def labels(names: list[str], folder: Path) -> Iterator[Trial]:
    tok = tokenizer_of(CHATML)
    for name in names:
        healthy_turns = {shape: prove(shape(records_of(name)), tok, folder) for shape in (same, with_turns)}
        for fault, right, shape in LABEL_FAULTS:
            # What the healthy rows give already does not count as caught.
            yield fault.__name__, name, right, prove(shape(records_of(name)), tok, folder, fault) - healthy_turns[shape]


def templates(names: list[str]) -> Iterator[Trial]:
    for name in names:
        for kind, change, right, shape in TEMPLATE_FAULTS:
            shapes = first_shapes(examples_of(shape(records_of(name))))
            before = {f.check for f in template_findings(tokenizer_of(CHATML), shapes)}
            after = {f.check for f in template_findings(tokenizer_of(change(CHATML)), shapes) if f.level != "info"}
            yield kind, name, right, after - before
        shapes = first_shapes(examples_of(records_of(name)))
        for kind, (right, change) in SETTING_FAULTS.items():
            tok = tokenizer_of(CHATML)
            tok.pad_token = change.get("pad", tok.pad_token)
            yield kind, name, right, {f.check for f in template_findings(tok, shapes, change.get("end"))}


def data(names: list[str], folder: Path) -> Iterator[Trial]:
    model = folder / "model"
    tokenizer_of(CHATML).save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    for at, name in enumerate(names):
        before = look(records_of(name), model, folder / f"healthy-{at}", None)
        for number, (kind, change, right) in enumerate(RECORD_FAULTS):
            yield kind, name, right, look(records_of(name), model, folder / f"r{at}-{number}", change) - before


def healthy(names: list[str], folder: Path, data_folder: Path | None, quick: bool) -> tuple[list[str], int]:
    """Alarms of set-ups that are fine, and how many set-ups there are."""
    alarms, combinations = [], 0
    plain = [name for name in names if name not in ("reasoning", "tools")]
    chosen = [(name, template, PLAIN[template]) for name in plain for template in list(PLAIN)[: 2 if quick else None]]
    chosen += [(name, "chatml-full", CHATML) for name in names]
    chosen += [(f"{name}+turns", template, PLAIN[template]) for name in plain for template in PLAIN if not quick]
    for file in sorted((data_folder / "templates").glob("trl__*.jinja")) if data_folder else []:
        text = file.read_text(encoding="utf-8")
        if "training" not in file.name and "raise_exception" not in text:
            chosen += [(name, file.stem, text) for name in plain]
    for name, template, text in chosen:
        base, _, more = name.partition("+")
        records = with_turns(records_of(base)) if more else records_of(base)
        words = set(re.findall(r"<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_turn>", text))
        eos = EOS.get(template) or next((w for w in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>") if w in text), "</s>")  # fmt: skip
        tok = tokenizer_of(text, eos, special=dict.fromkeys([*SPECIAL, *sorted(words)]))
        for train_turns in ("all", "last") if not quick else ("all",):
            combinations += 1
            examples = [
                example if train_turns == "all" else Example(
                    example.id, (*(type(m)(m.role, m.content, False, m.extra) for m in example.messages[:-1]), example.messages[-1]),
                    example.target, meta=example.meta, place=example.place,
                )
                for example in examples_of(records)
            ]  # fmt: skip
            found = {f.check for f in template_findings(tok, first_shapes(examples)) if f.level != "info"}
            renderer = Renderer(tok, thinks=base == "reasoning")
            write_tokens(folder, "train", [renderer.render(e) for e in examples], examples)
            found |= {f.check for f in prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG).findings}
            if found:
                alarms.append(f"false alarm: {name}, {template}, {train_turns}: {sorted(found)}")
    return alarms, combinations


def proof_speed(folder: Path) -> tuple[int, int]:
    """Rows per minute of the proof on 3,000 rows of SQL with a schema: by the clock, and by this process's own time."""
    tok = tokenizer_of(CHATML)
    renderer = Renderer(tok)
    examples = examples_of([sql(n) for n in range(3000)])
    write_tokens(folder, "train", [renderer.render(e) for e in examples], examples)
    start, own = time.perf_counter(), time.process_time()
    proof = prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG)
    return round(60 * proof.rows / (time.perf_counter() - start)), round(60 * proof.rows / (time.process_time() - own))


if __name__ == "__main__":
    main()
