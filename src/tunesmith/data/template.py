"""Where each message lies in the text a chat template writes.

The template is rendered once more with a unique word (a slot) in place of every content. What stands between the
slots is the template's own writing, so the spans of the answers are known exactly and no marker is guessed. The literal
text found that way is the same for all conversations of one shape and is kept; every conversation is still rendered by
the template itself, and its text must be the literals with the contents between them, to the last character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.formats import RowRefused
from tunesmith.data.guarded import OverLimitError, RefusedError, or_refusal, render_guarded, render_here
from tunesmith.errors import DataError
from tunesmith.types import Message

DATE = "26 Jul 2024"
"""What templates that insert today's date are given, so that a row is the same tomorrow. Llama 3's own default."""
_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format|replace('%d', '26')|replace('%m', '07')|replace('%b', 'Jul')"
    "|replace('%B', 'July')|replace('%Y', '2024')|replace('%y', '24')|replace('%A', 'Friday')|replace('%H', '12')"
    "|replace('%M', '00')|replace('%S', '00') -}}{%- endmacro -%}"
)
"""The same for templates that ask the clock: stands before them and hides it."""

_THINK = re.compile(r"(</?think>)")
_SLOT = re.compile(r"Qslot(\d+)Zend")
_SHAPES = 4096
_CLEAN = 256
"""Longer texts in which no control token was found, a system message perhaps that the next example has too."""
_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?[A-Z_]{3,30}\]|<</?[A-Z_]{2,20}>>|</?s>|<(?:start|end)_of_turn>")
"""What control words of chat templates look like, special tokens or not; those the template uses are refused in
contents."""


@cache
def _shipped() -> str:
    """The chat template of the base that ships with the package: our own, so it is rendered in this process."""
    path = Path(__file__).resolve().parents[1] / "demo_base" / "tokenizer_config.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("chat_template"))


def _renders_as_usual(tokenizer: Any) -> bool:
    """Whether it renders as transformers' tokenizers do; a few have a renderer of their own, and no Jinja in it."""
    method = getattr(type(tokenizer), "apply_chat_template", None)
    return getattr(method, "__module__", "") == "transformers.tokenization_utils_base"


class Slot(NamedTuple):
    """One stretch of a message's text."""

    message: int
    text: str


class Span(NamedTuple):
    """What the model must write itself: characters [start, stop) of the rendered text, the end token included."""

    start: int
    stop: int
    message: int
    end: str
    """The end token it finishes with; empty where the template wrote none, and then `stop` is where it would be."""


class Layout(NamedTuple):
    """A conversation as the template writes it."""

    text: str
    spans: tuple[Span, ...]
    """Of every trained turn, in order."""
    contents: tuple[tuple[int, int, int], ...]
    """(message, start, stop) of every stretch of content, in the order of the text."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a template writes around the contents of conversations with the same roles."""

    pieces: tuple[str, ...]
    """Literal text before, between and after the slots."""
    order: tuple[int, ...]
    """Slot numbers in the order of the text."""
    starts: Mapping[int, tuple[int, int]]
    """Trained message -> (piece, offset): where its span starts within the piece before its first slot."""
    stops: Mapping[int, tuple[int, int, str]]
    """Trained message -> (piece, offset, end token): where its span stops within the piece after its last slot."""
    markers: frozenset[str]
    """Control words of the template."""


class Template:
    """A tokenizer's chat template, and how it lays out conversations.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        end_token: the token that ends an answer; None takes what the template writes after one.
    """

    def __init__(self, tokenizer: Any, end_token: str | None = None) -> None:
        try:
            text: str = tokenizer.get_chat_template() or ""
        except ValueError:
            text = ""
        if not text.strip():
            raise DataError(
                "the tokenizer has no chat template, so a conversation cannot be written as the model expects",
                place=str(tokenizer.name_or_path),
                remedy="set model.chat_template to a Jinja file",
            )
        self.text = text
        self._tokenizer = tokenizer
        self._template = _CLOCK + text if "strftime_now" in text else text
        self._render = self._renderer()
        self.end_token = end_token
        added = tokenizer.added_tokens_decoder
        special = {token.content for token in added.values() if token.special}
        special |= {token for token in (tokenizer.eos_token, tokenizer.bos_token) if token}
        self._special = frozenset(special)
        known = {token.content for token in added.values()} | special
        ends = [end_token] if end_token else sorted(known - {tokenizer.bos_token}, key=len, reverse=True)
        if tokenizer.eos_token and tokenizer.eos_token == tokenizer.bos_token and not end_token:
            ends.append(tokenizer.eos_token)
        self._end = re.compile(r"\s*(" + "|".join(map(re.escape, ends)) + ")") if ends else re.compile(r"(?!)")
        self._shapes: dict[Any, Shape] = {}
        self._clean: dict[frozenset[str], set[str]] = {}
        self._forbidden: dict[frozenset[str], re.Pattern[str]] = {}

    # --- rendering ----------------------------------------------------------------------------------------------------

    def write(
        self, messages: Sequence[Mapping[str, Any]], place: str, generation: bool = False, tools: Any = None
    ) -> str:
        """The text the template writes. Raises RowRefused with what the template says where it refuses."""
        try:
            special = self._tokenizer.special_tokens_map
            (text,) = self._render(self._template, special, [(messages, tools)], generation=generation, date=DATE)
        except OverLimitError as error:
            raise DataError(
                f"the chat template takes {error} for one conversation",
                place=place or str(self._tokenizer.name_or_path),
                remedy="do not use this model's template: set model.chat_template to a Jinja file of your own",
            ) from error
        if isinstance(text, RefusedError):
            roles = [str(message["role"]) for message in messages]
            remedy = _LOST["system"] if "system" in roles else _LOST["user"]
            detail = f"{text} (roles: {', '.join(roles)})"
            raise RowRefused("template refuses", detail, place=place, remedy=remedy) from text
        return text

    def _renderer(self) -> Callable[..., list[str | RefusedError]]:
        """What renders it: the tokenizer, where it has code of its own; this process, where the text is ours; else the
        guarded child."""
        if _renders_as_usual(self._tokenizer):
            return render_here if self.text == _shipped() else render_guarded

        def itself(
            template: str, _: Any, conversations: Sequence[Any], *, generation: bool = False, date: str
        ) -> list[str | RefusedError]:
            def write(messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
                return str(
                    self._tokenizer.apply_chat_template(
                        list(messages), tools=tools, tokenize=False, add_generation_prompt=generation,
                        chat_template=template, date_string=date,
                    )
                )  # fmt: skip

            return [or_refusal(write, messages, tools) for messages, tools in conversations]

        return itself

    def lay_out(self, messages: Sequence[Message], place: str = "", tools: Any = None) -> Layout:
        """Render a conversation and find what is trained in it.

        Raises:
            RowRefused: this conversation cannot be used (it holds a control token, the template refuses it).
            DataError: the template cannot be used for such conversations (it drops a message, writes no end token).
        """
        (layout,) = self.lay_out_batch([(messages, place, tools)])
        if isinstance(layout, RowRefused):
            raise layout
        return layout

    def lay_out_batch(self, conversations: Sequence[tuple[Sequence[Message], str, Any]]) -> list[Layout | RowRefused]:
        """The same for many (messages, place, tools) at once, each as its layout or why it is refused."""
        results: list[Layout | RowRefused | None] = [None] * len(conversations)
        known: dict[int, tuple[Shape, list[Slot]]] = {}
        for at, (messages, place, tools) in enumerate(conversations):
            try:
                known[at] = self._known_shape(messages, place, tools)
            except RowRefused as refusal:
                results[at] = refusal
        texts = self._write_batch([conversations[at] for at in known])
        for (at, (shape, slots)), text in zip(known.items(), texts, strict=True):
            try:
                results[at] = self._lay_out(*conversations[at], shape, slots, text)
            except RowRefused as refusal:
                results[at] = refusal
        return [result for result in results if result is not None]

    def _known_shape(self, messages: Sequence[Message], place: str, tools: Any) -> tuple[Shape, list[Slot]]:
        key: Any
        if not tools and all(map(_is_one_stretch, messages)):
            slots = [Slot(at, message.content) for at, message in enumerate(messages)]
            key = tuple((message.role, message.train) for message in messages)
        else:
            slots, worded = _with_slots(messages)
            key = _canonical([worded, [message.train for message in messages], tools])
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shape(messages, *_with_slots(messages), place, tools)
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[key] = shape
        self._refuse_control_tokens(messages, shape.markers, place)
        return shape, slots

    def _write_batch(self, conversations: Sequence[tuple[Sequence[Message], str, Any]]) -> list[str | None]:
        """The text of each; None where it has to be written alone, to hear why it cannot be."""
        if len(conversations) < 2:
            return [None] * len(conversations)
        turns = [([_as_dict(message) for message in messages], tools) for messages, _, tools in conversations]
        try:
            found = self._render(self._template, self._tokenizer.special_tokens_map, turns, date=DATE)
        except OverLimitError:
            return [None] * len(conversations)
        return [text if isinstance(text, str) else None for text in found]

    def _lay_out(
        self, messages: Sequence[Message], place: str, tools: Any, shape: Shape, slots: list[Slot], text: str | None
    ) -> Layout:
        if text is None:
            text = self.write([_as_dict(message) for message in messages], place, tools=tools)
        found = _match(text, shape, slots)
        if found is None:
            shape, slots = self._shape_of_answers(messages, place, tools)
            found = _match(text, shape, slots)
        if found is None:
            detail = "the template changes this conversation's text depending on what it says"
            raise RowRefused("template rewrites content", detail, place=place, remedy="see the model's chat template")
        layout = self._spans(text, shape, slots, found)
        if any(message.train and message.extra.get("tool_calls") for message in messages):
            layout = layout._replace(spans=self._with_tool_turns(messages, text, layout.spans, place, tools))
        return self._ended(messages, layout, place)

    def prompt(self, messages: Sequence[Message], place: str = "", tools: Any = None, thinks: bool = False) -> str:
        """The text the model is given when it must answer: exactly what stands before a trained answer.

        With `thinks` it is what stands before an answer that begins with a thought.
        """
        asked = [Message(message.role, message.content, False, message.extra) for message in messages]
        answer = "<think>\nThought\n</think>\n\nAnswer" if thinks else "Answer"
        layout = self.lay_out([*asked, Message("assistant", answer, train=True)], place, tools)
        return layout.text[: layout.spans[-1].start]

    # --- shapes -------------------------------------------------------------------------------------------------------

    def _shape(
        self, messages: Sequence[Message], slots: list[Slot], worded: list[dict[str, Any]], place: str, tools: Any
    ) -> Shape:
        text = self.write(worded, place, tools=tools)
        parts = _SLOT.split(text)
        order = tuple(int(number) for number in parts[1::2])
        self._refuse_lost(messages, slots, order, place)
        pieces = tuple(parts[0::2])
        starts: dict[int, tuple[int, int]] = {}
        stops: dict[int, tuple[int, int, str]] = {}
        for index, message in enumerate(messages):
            mine = [at for at, slot in enumerate(order) if slots[slot].message == index]
            if not message.train or not mine or message.extra.get("tool_calls"):
                continue
            before, after = pieces[mine[0]], pieces[mine[-1] + 1]
            starts[index] = (mine[0], self._start(worded[:index], before, message, place, tools))
            end = self._end.match(after)
            stops[index] = (mine[-1] + 1, end.end(), end.group(1)) if end else (mine[-1] + 1, 0, "")
        markers = {word for piece in pieces for word in _MARKER.findall(piece)}
        return Shape(pieces, order, starts, stops, frozenset(markers))

    def _start(self, before: list[dict[str, Any]], piece: str, message: Message, place: str, tools: Any) -> int:
        """How much of the literal before an answer the generation prompt gives; the rest the model writes itself.

        A template may write more than its generation prompt: a space, or an empty thought. Blanks are the model's to
        write (tokenizers join a space to the word after it, so a prompt must not end in one), and so is a thought of
        the answer's own. An empty thought before an answer without one counts as given, and `prompt` gives it too.
        """
        try:
            given = _SLOT.split(self.write(before, place, generation=True, tools=tools))[-1] if before else ""
        except RowRefused:
            given = ""
        thinks = message.content.lstrip().startswith("<think>") or bool(message.extra.get("reasoning_content"))
        if given and piece.startswith(given) and (thinks or not piece[len(given) :].strip()):
            start = len(given)
        elif thinks and "<think>" in piece:
            start = piece.rindex("<think>")
        else:
            start = len(piece)
        return len(piece[:start].rstrip(" "))

    def _shape_of_answers(self, messages: Sequence[Message], place: str, tools: Any) -> tuple[Shape, list[Slot]]:
        """A shape for one conversation whose other messages the template rewrites: slots in the trained turns only."""
        slots, worded = _with_slots(messages, trained_only=True)
        return self._shape(messages, slots, worded, place, tools), slots

    def _refuse_lost(self, messages: Sequence[Message], slots: list[Slot], order: tuple[int, ...], place: str) -> None:
        for number, slot in enumerate(slots):
            role = messages[slot.message].role
            thought = _is_thought(messages[slot.message], slot.text)
            if number not in order:
                if thought and not messages[slot.message].train:
                    continue
                what = f"the {role}'s thinking" if thought else f"the {role} message"
                raise DataError(
                    f"the chat template drops {what} (turn {slot.message + 1}): the model would never see it",
                    place=place,
                    remedy=_LOST.get("thought" if thought else role, _LOST["user"]),
                )
            if order.count(number) > 1 and messages[slot.message].train:
                raise DataError("the chat template writes an answer twice", place=place, remedy=_LOST["user"])
        spoken = [slots[number].message for number in order if messages[slots[number].message].role != "system"]
        if spoken != sorted(spoken):
            raise DataError("the chat template changes the order of the turns", place=place, remedy=_LOST["user"])

    def _refuse_control_tokens(self, messages: Sequence[Message], markers: frozenset[str], place: str) -> None:
        pattern = self._forbidden.get(markers)
        if pattern is None:
            words = sorted(self._special | markers, key=len, reverse=True)
            pattern = re.compile("|".join(map(re.escape, words)) or "(?!)")
            self._forbidden[markers] = pattern
        for number, message in enumerate(messages, 1):
            texts = [message.content, *_texts(message.extra)]
            for text in texts:
                if text in self._clean.get(markers, ()):
                    continue
                if found := pattern.search(text):
                    detail = f"turn {number} ({message.role}) contains {found.group()!r}, which would become structure"
                    raise RowRefused("special token in content", detail, place=place, remedy="remove or reword it")
                if 200 < len(text) < 20_000:
                    clean = self._clean.setdefault(markers, set())
                    if len(clean) >= _CLEAN:
                        clean.clear()
                    clean.add(text)

    # --- spans --------------------------------------------------------------------------------------------------------

    def _spans(self, text: str, shape: Shape, slots: list[Slot], found: list[tuple[int, int]]) -> Layout:
        edges = [0, *(edge for pair in found for edge in pair), len(text)]
        piece_start = edges[0::2]
        spans = []
        for message, (piece, offset) in sorted(shape.starts.items()):
            after, stop, end = shape.stops[message]
            spans.append(Span(piece_start[piece] + offset, piece_start[after] + stop, message, end))
        contents = tuple((slots[slot].message, *pair) for slot, pair in zip(shape.order, found, strict=True))
        return Layout(text, tuple(spans), contents)

    def _ended(self, messages: Sequence[Message], layout: Layout, place: str) -> Layout:
        """Every trained turn must end with the same token; with `end_token` set, a missing last one is appended."""
        if not layout.spans:
            raise RowRefused("nothing to train on", "no assistant turn is trained", place=place)
        *earlier, last = layout.spans
        if not last.end:
            if not self.end_token or last.message != len(messages) - 1:
                wrote = layout.text[last.stop : last.stop + 20]
                raise DataError(
                    f"the chat template writes no end token after the answer (it writes {wrote!r}): the model would "
                    "not learn to stop",
                    place=place,
                    remedy="set model.end_token, or model.chat_template to one that ends answers",
                )
            text = layout.text[: last.stop] + self.end_token
            last = last._replace(stop=len(text), end=self.end_token)
            layout = layout._replace(text=text)
        for span in earlier:
            if span.end != last.end:
                raise DataError(
                    f"the chat template ends the last answer with {last.end!r} but not the one of turn "
                    f"{span.message + 1}",
                    place=place,
                    remedy="train on the last turn only (task.train_turns: last), or set another model.chat_template",
                )
        return layout._replace(spans=(*earlier, last))

    def _with_tool_turns(
        self, messages: Sequence[Message], text: str, spans: tuple[Span, ...], place: str, tools: Any
    ) -> tuple[Span, ...]:
        """Spans of trained tool calls, whose text is the template's: found by rendering up to and including them."""
        found = list(spans)
        worded = [_as_dict(message) for message in messages]
        for index, message in enumerate(messages):
            if not message.train or not message.extra.get("tool_calls"):
                continue
            start = len(self.write(worded[:index], place, generation=True, tools=tools))
            through = self.write(worded[: index + 1], place, tools=tools).rstrip()
            end = next((word for word in sorted(self._special, key=len, reverse=True) if through.endswith(word)), None)
            if end is None or not text.startswith(through) or start >= len(through):
                detail = f"turn {index + 1}: the template's text of a tool call cannot be told from its surroundings"
                raise RowRefused("tool call not found", detail, place=place, remedy="train on the last turn only")
            found.append(Span(start, len(through), index, end))
        return tuple(sorted(found))


_LOST = {
    "system": "merge the system text into the first user turn, or set model.chat_template to one that writes it",
    "thought": "train on the last turn only (task.train_turns: last), or set model.chat_template to one that keeps it",
    "user": "set model.chat_template to one that writes every turn",
}


_canonical = json.JSONEncoder(sort_keys=True, default=str).encode


def _as_dict(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.extra:
        turn |= {key: value for key, value in message.extra.items() if value is not None}
    return turn


def _is_thought(message: Message, text: str) -> bool:
    if message.extra.get("reasoning_content") == text:
        return True
    head, closed, _ = message.content.rpartition("</think>")
    return bool(closed) and text in head


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []


def _is_one_stretch(message: Message) -> bool:
    """Whether one slot takes its place: its text, with nothing that a template may treat on its own."""
    if message.extra or not message.content or message.content.isspace():
        return False
    return message.role != "assistant" or "think>" not in message.content


def _with_slots(messages: Sequence[Message], trained_only: bool = False) -> tuple[list[Slot], list[dict[str, Any]]]:
    """Messages with a slot for every stretch of text; thinking tags stay, because templates look for them."""
    slots: list[Slot] = []
    worded: list[dict[str, Any]] = []

    def slot(index: int, text: str) -> str:
        slots.append(Slot(index, text))
        return f"Qslot{len(slots) - 1}Zend"

    for index, message in enumerate(messages):
        turn = _as_dict(message)
        if message.train or not trained_only:
            reasoning = message.extra.get("reasoning_content")
            if isinstance(reasoning, str) and reasoning.strip():
                turn["reasoning_content"] = slot(index, reasoning)
            stretches = _THINK.split(message.content) if message.role == "assistant" else [message.content]
            turn["content"] = "".join(
                slot(index, text) if number % 2 == 0 and text.strip() else text.strip() if number % 2 == 0 else text
                for number, text in enumerate(stretches)
            )
        worded.append(turn)
    return slots, worded


def _match(text: str, shape: Shape, slots: list[Slot]) -> list[tuple[int, int]] | None:
    """Where each slot's text lies, or None when the text is not literals and contents in turn."""
    if not text.startswith(shape.pieces[0]):
        return None
    at, found = len(shape.pieces[0]), []
    for number, slot in enumerate(shape.order):
        after = shape.pieces[number + 1]
        last = number + 1 == len(shape.order)
        for form in _forms(slots[slot].text):
            stop = at + len(form)
            fits = text.startswith(form, at) and text.startswith(after, stop)
            if fits and (not last or stop + len(after) == len(text)):
                found.append((at, stop))
                at = stop + len(after)
                break
        else:
            return None
    return found


def _forms(text: str) -> Iterator[str]:
    """How a template may write a text: as it is, without blanks at its ends, or as a JSON string."""
    yield text
    yield from (text.strip(), text.lstrip(), text.rstrip(), text.strip("\n"), text.lstrip("\n"), text.rstrip("\n"))
    yield text.rstrip(" ")
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1]
