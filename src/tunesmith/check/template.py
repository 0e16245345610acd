"""The chat template, tried on conversations like those of the data, with words in them that cannot be overlooked.

Every distinct shape of conversation in the data (which roles in which order, with or without a system message, tools,
reasoning) is written once with marked contents. What the template loses, cuts, repeats or moves shows in the text. It is
a second opinion: the rows themselves are found by other code (`data/template.py`), which would refuse most of this too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jinja2

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.data.ledger import Dropped
from tunesmith.data.phrase import conversations
from tunesmith.data.template import DATE
from tunesmith.errors import ModelError
from tunesmith.types import Example, Finding, Level

_MOST_SHAPES = 48
_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
_MARKER = re.compile(r"<\|[A-Za-z0-9_ ]{1,40}\|>|<(?:start|end)_of_turn>")
_FILLER = " ".join(f"filler{at}" for at in range(60))
_OTHER = "set model.chat_template to a Jinja file that does, for instance the one of the model's instruct version"


class Turn(NamedTuple):
    """One turn of a shape."""

    role: str
    train: bool
    reasoning: str
    """`field` for `reasoning_content`, `inline` for a `<think>` block in the content; empty without."""
    calls: bool
    blank: bool
    """Whether it has no text of its own, as a bare tool call."""


class Shape(NamedTuple):
    """What conversations have in common for a template."""

    turns: tuple[Turn, ...]
    tools: bool


def check_template(subject: Subject) -> Looked:
    """The template of the tokenizer, or of `model.chat_template`, on every shape of conversation in the data."""
    config = subject.config
    try:
        tokenizer = subject.tokenizer
    except ModelError as error:
        return Looked([_not_loaded(error)], {})
    shapes: dict[Shape, str] = {}
    sources = [source for source in (config.data.train, config.data.validation) if source is not None]
    for source in sources:
        for one in conversations(source, config, subject.task):
            if not isinstance(one, Dropped) and len(shapes) < _MOST_SHAPES:
                shapes.setdefault(shape_of(one), one.place)
    place = str(config.model.chat_template or config.model.name)
    findings = template_findings(tokenizer, list(shapes), config.model.end_token, place, list(shapes.values()))
    return Looked(findings, {"shapes of conversation": len(shapes)})


def template_findings(
    tokenizer: Any, shapes: Sequence[Shape], end_token: str | None = None, place: str = "", seen: Sequence[str] = ()
) -> list[Finding]:
    """What a tokenizer's chat template does wrong to conversations of these shapes; each fault is named once.

    Args:
        tokenizer: with its chat template.
        shapes: as `shape_of` gives them.
        end_token: `model.end_token`.
        place: the template's name in findings.
        seen: for each shape, where in the data it was met first.
    """
    found: dict[str, Finding] = {}
    for at, shape in enumerate(shapes):
        where = f" (a conversation like the one at {seen[at]})" if at < len(seen) and seen[at] else ""
        for check, level, message, cost, remedy in _look(tokenizer, shape, end_token):
            found.setdefault(check, Finding(check, level, message + where, place, remedy, cost))
    for check, level, message, cost, remedy in _look_at_tokens(tokenizer, end_token):
        found.setdefault(check, Finding(check, level, message, place, remedy, cost))
    return list(found.values())


def shape_of(example: Example) -> Shape:
    """The shape of an example's conversation."""
    turns = []
    for message in example.messages:
        inline = message.role == "assistant" and "</think>" in message.content
        reasoning = "field" if message.extra.get("reasoning_content") else "inline" if inline else ""
        calls = bool(message.extra.get("tool_calls"))
        turns.append(Turn(message.role, message.train, reasoning, calls, not message.content.strip()))
    if len(turns) > 12:  # long conversations repeat themselves: the start and the end say what a template does
        turns = turns[:6] + turns[-6:] if len(turns) % 2 == 0 else turns[:7] + turns[-6:]
    return Shape(tuple(turns), bool(example.meta.get("tools")))


# --- one shape --------------------------------------------------------------------------------------------------------

Fault = tuple[str, Level, str, str, str]
"""(check, level, message, cost, remedy)."""


def _look(tokenizer: Any, shape: Shape, end_token: str | None) -> Iterator[Fault]:
    messages = [_marked(at, turn) for at, turn in enumerate(shape.turns)]
    tools = [_TOOL] if shape.tools else None
    roles = ", ".join(turn.role for turn in shape.turns)
    try:
        text = _write(tokenizer, messages, tools)
    except jinja2.TemplateSyntaxError as error:
        yield ("template.broken", "error", f"the chat template is not Jinja: {error.message}, line {error.lineno}",
               "the run stops at the first row", _OTHER)  # fmt: skip
        return
    except Exception as error:  # a template runs arbitrary expressions
        yield ("template.refuses", "error", f"the template refuses the roles {roles}: {error}",
               "every such conversation is left out of training", _refused(shape))  # fmt: skip
        return
    lost = list(_lost(text, shape))
    yield from lost
    if any(fault[1] == "error" for fault in lost):
        return
    yield from _order(text, shape)
    yield from _reasoning(text, shape)
    yield from _ends(tokenizer, text, shape, end_token)
    yield from _prompt(tokenizer, messages, tools, text, shape)
    yield from _bos(tokenizer, text)


_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "ToolDescriptionProbe",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def _content(at: int) -> str:
    return f"Begin{at}Probe said SomeThing  twice.\n\nA second line, {_FILLER} End{at}Probe"


def _thought(at: int) -> str:
    return f"Thought{at}Begin weighs it. Thought{at}End"


def _marked(at: int, turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": "" if turn.blank else _content(at)}
    if turn.reasoning == "field":
        message["reasoning_content"] = _thought(at)
    elif turn.reasoning == "inline":
        message["content"] = f"<think>\n{_thought(at)}\n</think>\n\n{message['content']}"
    if turn.calls:
        function = {"name": f"call_{at}_probe", "arguments": {"place": f"Argument{at}Probe"}}
        message["tool_calls"] = [{"type": "function", "id": f"abcdefg{at % 100:02d}", "function": function}]
    if turn.role == "tool":
        message |= {"name": "probe_tool", "tool_call_id": f"abcdefg{max(0, at - 1) % 100:02d}"}
    return message


def _write(tokenizer: Any, messages: Sequence[Any], tools: Any, generation: bool = False) -> str:
    text: str = tokenizer.apply_chat_template(
        list(messages), tools=tools, tokenize=False, add_generation_prompt=generation, date_string=DATE
    )
    return text


def _lost(text: str, shape: Shape) -> Iterator[Fault]:
    for at, turn in enumerate(shape.turns):
        who = {"assistant": "answer"}.get(turn.role, turn.role)
        if not turn.blank:
            begins, ends = f"Begin{at}Probe" in text, f"End{at}Probe" in text
            if not begins and not ends:
                if f"begin{at}probe" in text.lower():
                    yield _rewrites(at, turn)
                else:
                    yield (f"template.drops_{who}", "error",
                           f"the template drops the {turn.role} message of turn {at + 1}",
                           "the model never sees it in training, and will be asked with it", _LOST.get(turn.role, _OTHER))  # fmt: skip
            elif not (begins and ends):
                yield ("template.cuts_content", "error", f"the template cuts the {turn.role} message of turn {at + 1} off",
                       "the model learns answers without their end, or from half a question", _OTHER)  # fmt: skip
            elif _content(at) not in text:
                yield _rewrites(at, turn)
            elif turn.role == "assistant" and text.count(f"Begin{at}Probe") > 1:
                yield ("template.writes_twice", "error", f"the template writes the answer of turn {at + 1} twice",
                       "an answer that stands in its own prompt teaches copying", _OTHER)  # fmt: skip
        if turn.reasoning and turn.train and f"Thought{at}Begin" not in text:
            yield ("template.drops_reasoning", "error", f"the template drops the reasoning of turn {at + 1}",
                   "the reasoning in the data was paid for and is not learned",
                   "train on the last turn only (task.train_turns: last), or " + _OTHER)  # fmt: skip
        if turn.calls and (f"call_{at}_probe" not in text or f"Argument{at}Probe" not in text):
            yield ("template.drops_tool_call", "error", f"the template does not write the tool call of turn {at + 1}",
                   "the model learns to answer without calling the tool", _OTHER)  # fmt: skip
    if shape.tools and "ToolDescriptionProbe" not in text:
        yield ("template.drops_tools", "error", "the template does not write the descriptions of the tools",
               "the model learns calls to tools it was never shown", _OTHER)  # fmt: skip


def _rewrites(at: int, turn: Turn) -> Fault:
    return ("template.rewrites_content", "error", f"the template changes the wording of the {turn.role} message of turn "
            f"{at + 1}", "the model learns another text than the data holds", _OTHER)  # fmt: skip


def _order(text: str, shape: Shape) -> Iterator[Fault]:
    spoken = [text.index(f"Begin{at}Probe") for at, turn in enumerate(shape.turns)
              if not turn.blank and turn.role != "system"]  # fmt: skip
    if spoken != sorted(spoken):
        yield ("template.changes_order", "error", "the template changes the order of the turns",
               "answers come before their questions", _OTHER)  # fmt: skip


def _reasoning(text: str, shape: Shape) -> Iterator[Fault]:
    """S8: a template that overwrites the content before it takes the reasoning out of it."""
    for at, turn in enumerate(shape.turns):
        if not turn.reasoning or not turn.train or turn.blank:
            continue
        thought, answer = text.find(f"Thought{at}Begin"), text.find(f"Begin{at}Probe")
        between = text[text.find(f"Thought{at}End") : answer]
        if _EMPTY_THOUGHT.search(between.partition("</think>")[2]):
            yield ("template.second_thought", "error",
                   f"in turn {at + 1} the template writes a second, empty thought between the reasoning and the answer",
                   "the model learns to think twice, the second time of nothing", _OTHER)  # fmt: skip
            continue
        closed = text.rfind("</think>", 0, answer) if "</think>" in text else answer - 1
        opened = text.rfind("<think>", 0, answer)
        if thought > answer or opened > closed or text.count(f"Thought{at}Begin") > 1:
            yield ("template.swaps_reasoning", "error",
                   f"in turn {at + 1} the answer stands where the reasoning belongs, or the reasoning stands twice",
                   "the model learns to put its answer into its thoughts", _OTHER)  # fmt: skip


def _ends(tokenizer: Any, text: str, shape: Shape, end_token: str | None) -> Iterator[Fault]:
    special = sorted({token.content for token in tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
    ends: dict[str, int] = {}
    last = len(shape.turns) - 1
    for at, turn in enumerate(shape.turns):
        if not turn.train or turn.blank or turn.calls:
            continue
        after = text[text.index(f"End{at}Probe") + len(f"End{at}Probe") :].lstrip()
        written = next((token for token in special if after.startswith(token)), "")
        opens_next = at < last and not written
        if opens_next and not end_token:
            yield ("template.no_end_token", "error", f"after the answer of turn {at + 1} the template writes no end token",
                   "a model that does not stop: it goes on with the user's next turn",
                   "task.train_turns: last, or " + _OTHER)  # fmt: skip
        elif not written and at == last and not end_token:
            marker = _MARKER.match(after)
            if marker:
                yield ("template.end_is_text", "error",
                       f"the template ends an answer with {marker.group()}, which this tokenizer does not know as a token",
                       "a model that does not stop: the end is a few ordinary tokens",
                       "take a tokenizer that has it, or set model.end_token to a token it has")  # fmt: skip
            else:
                yield ("template.no_end_token", "error", "after the last answer the template writes no end token",
                       "a model that does not stop: it runs on to the length limit",
                       f"set model.end_token={tokenizer.eos_token}, or " + _OTHER)  # fmt: skip
        elif written and end_token and written != end_token:
            yield ("template.other_end_token", "error",
                   f"model.end_token is {end_token!r}, and the template ends answers with {written!r}",
                   "the model learns an end that its template never writes, and does not stop where it is served",
                   f"set model.end_token={written}, or take it out")  # fmt: skip
        if written:
            ends.setdefault(written, at)
    if len(ends) > 1:
        (first, one), (second, other), *_ = ends.items()
        yield ("template.different_ends", "error",
               f"the template ends the answer of turn {one + 1} with {first!r} and that of turn {other + 1} with {second!r}",
               "a model that stops in one place and runs on in another", "task.train_turns: last, or " + _OTHER)  # fmt: skip


def _prompt(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, text: str, shape: Shape) -> Iterator[Fault]:
    """What serving through the template gives the model, against what stands before the answer in training."""
    turn, at = shape.turns[-1], len(shape.turns) - 1
    if turn.role != "assistant" or turn.blank or turn.calls or at == 0:
        return
    try:
        prompt = _write(tokenizer, messages[:-1], tools, generation=True)
    except Exception as error:
        yield ("template.refuses", "error", f"the template refuses to write a prompt: {error}",
               "no question could be asked of the trained model", _OTHER)  # fmt: skip
        return
    start = text.index(f"Thought{at}Begin" if turn.reasoning else f"Begin{at}Probe")
    if not text.startswith(prompt.rstrip()):
        if _EMPTY_THOUGHT.sub("", text).startswith(_EMPTY_THOUGHT.sub("", prompt).rstrip()):
            return
        blanks = "".join(text.split()).startswith("".join(prompt.split()))
        yield ("template.other_prompt", "warning" if blanks else "error",
               "the prompt for generation is not the beginning of what is trained"
               + (": other blanks and line ends" if blanks else ""),
               "trained on one text and asked with another: answers get worse for no visible reason", _OTHER)  # fmt: skip
        return
    between = text[len(prompt.rstrip()) : start]
    bare = _EMPTY_THOUGHT.sub("", between) if not turn.reasoning else between.replace("<think>", "")
    if bare.strip() == "</think>":
        yield ("template.opens_thought", "warning",
               "the prompt for generation opens a thought, and the answers in the data have none",
               "where it is served, the model begins with a thought it was not trained to have",
               "train with reasoning, or " + _OTHER)  # fmt: skip
    elif bare.strip():
        yield ("template.no_generation_prompt", "error",
               f"the prompt for generation stops before {bare.strip()!r}, which stands before every trained answer",
               "where it is served, the model begins with something else than an answer",
               "let the template write it under `add_generation_prompt`, or " + _OTHER)  # fmt: skip


def _bos(tokenizer: Any, text: str) -> Iterator[Fault]:
    bos = tokenizer.bos_token
    if not bos or bos == tokenizer.eos_token:
        return
    if re.match(rf"\s*{re.escape(bos)}\s*{re.escape(bos)}", text):
        yield ("template.double_bos", "error", f"the template writes the beginning token {bos!r} twice",
               "the model was never shown two, and is a little worse with every answer", _OTHER)  # fmt: skip
    elif text.count(bos) > 1 and text.startswith(bos):
        yield ("template.bos_inside", "info", f"the template writes the beginning token {bos!r} before later turns too",
               "", "nothing, if the model's makers wrote it so")  # fmt: skip


def _look_at_tokens(tokenizer: Any, end_token: str | None) -> Iterator[Fault]:
    """Control words of the template that the tokenizer has no token for, and padding that is an end."""
    known = set(tokenizer.get_vocab())
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError:
        return
    unknown = sorted({word for word in _MARKER.findall(template) if word not in known})
    if unknown:
        yield ("template.unknown_marker", "warning",
               f"the tokenizer has no token for {', '.join(unknown[:4])}, which the template writes",
               "each is spelt out in several tokens that the model never saw as structure; it learns them slowly",
               "take the template that belongs to this tokenizer")  # fmt: skip
    if end_token and end_token not in known:
        yield ("template.end_is_text", "error", f"model.end_token is {end_token!r}, which the tokenizer does not know",
               "a model that does not stop", f"set model.end_token={tokenizer.eos_token}")  # fmt: skip
    ends = {tokenizer.eos_token, end_token} - {None}
    if tokenizer.pad_token is not None and tokenizer.pad_token in ends:
        yield _pad_is_end(str(tokenizer.pad_token))


def _pad_is_end(token: str) -> Fault:
    return ("template.pad_is_end", "error", f"padding and the end of an answer are the same token ({token})",
            "collators that mask padding mask every end with it: a model that never stops",
            "add a padding token to the tokenizer's special tokens (pad_token in tokenizer_config.json)")  # fmt: skip


def _not_loaded(error: ModelError) -> Finding:
    check = "template.pad_is_end" if "to pad with" in error.message else "template.not_loaded"
    return Finding(check, "error", error.message, error.place, error.remedy, "the run stops here")


_LOST = {
    "system": "put the system text into the first user turn, or set model.chat_template to one that writes it",
}


def _refused(shape: Shape) -> str:
    roles = [turn.role for turn in shape.turns]
    if "system" in roles:
        return _LOST["system"]
    if "tool" in roles:
        return "take a template that knows tools, or leave such conversations out with `where`"
    return "let user and assistant take turns in the data, or " + _OTHER


def first_shapes(examples: Sequence[Example], most: int = _MOST_SHAPES) -> list[Shape]:
    """Distinct shapes of these examples, in order."""
    return list(islice(dict.fromkeys(shape_of(one) for one in examples), most))
