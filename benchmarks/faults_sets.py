"""Healthy set-ups for `faults.py`: five data sets, chat templates, a tokenizer; and the shapes that faults need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tunesmith.config.schema import RunConfig
from tunesmith.data.formats import to_messages
from tunesmith.model.load import DEMO
from tunesmith.types import Example

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


def same(records: Records) -> Records:
    """The data set as it is."""
    return records


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
