"""Example -> Tokens: the model's own chat template, labels on what the model must write and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.formats import RowRefused
from tunesmith.data.ledger import Dropped
from tunesmith.data.template import Layout, Template
from tunesmith.errors import DataError, ModelError
from tunesmith.types import IGNORE, Example, Message, Tokens

TooLong = Literal["error", "drop", "shorten_prompt"]


class Rendered(NamedTuple):
    """An example that fits."""

    tokens: Tokens
    example: Example
    """As it was rendered: the one given, unless its prompt was shortened."""
    note: str = ""
    """What was changed to make it fit; empty when nothing was."""


class Renderer:
    """Writes examples as token ids and labels.

    Ids are those of `apply_chat_template(tokenize=True)`: the template's text, tokenised without adding special tokens.
    A BOS token is there exactly when the template writes one, because that is what serving through the template
    gives the model; `adds_bos_elsewhere` says when the tokenizer would add one to plain text.

    Args:
        tokenizer: a transformers tokenizer backed by the `tokenizers` library (for offsets).
        end_token: the token that ends an answer; None takes the one the template writes.
        max_length: most tokens an example may have; None does not look.
        too_long: what `render_many` does with a longer one. An answer is never cut.
        thinks: whether answers begin with a thought (`<think>`), which some templates' prompts depend on.
    """

    def __init__(
        self,
        tokenizer: Any,
        end_token: str | None = None,
        *,
        max_length: int | None = None,
        too_long: TooLong = "error",
        thinks: bool = False,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                "the tokenizer gives no offsets, so answers cannot be found in its tokens",
                place=str(getattr(tokenizer, "name_or_path", "")),
                remedy="use a model whose folder has a tokenizer.json",
            )
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, end_token)
        self.thinks = thinks
        self.max_length = max_length
        self.too_long = too_long
        self.serialised: str = tokenizer.backend_tokenizer.to_str()
        written = {tokenizer.bos_token, tokenizer.eos_token}
        special = [
            token
            for token in tokenizer.added_tokens_decoder.values()
            if token.special and (token.content in written or token.content in self.template.text)
        ]
        self._encoder = Encoder(self.serialised, special)
        self._bos: int | None = tokenizer.bos_token_id
        if end_token and tokenizer.backend_tokenizer.token_to_id(end_token) is None:
            raise ModelError(
                f"the tokenizer has no token {end_token!r}",
                place="model.end_token",
                remedy="name a token of this tokenizer, or leave it out",
            )

    @property
    def adds_bos_elsewhere(self) -> bool:
        """Whether the tokenizer puts a BOS before plain text although the template writes none."""
        if self._bos is None:
            return False
        plain: list[int] = self.tokenizer("a")["input_ids"]
        return plain[0] == self._bos and self.prompt_ids([Message("user", "a")])[0] != self._bos

    def render(self, example: Example) -> Tokens:
        """One example, whatever its length.

        Raises:
            RowRefused: this example cannot be used.
            DataError: the template cannot be used.
        """
        layout = self._lay_out(example)
        return self._tokens(example, layout, self._encoder.encode(layout.text))

    def render_many(self, examples: Sequence[Example]) -> list[Rendered | Dropped]:
        """Examples within `max_length`, in order; those that cannot be used, or are too long, as `Dropped`.

        Raises:
            DataError: the template cannot be used; or an example is too long and `too_long` is `error`.
        """
        results: list[Rendered | Dropped | None] = [None] * len(examples)
        layouts: list[tuple[int, Layout]] = []
        asked = [(example.messages, example.place, example.meta.get("tools")) for example in examples]
        for index, layout in enumerate(self.template.lay_out_batch(asked)):
            if isinstance(layout, RowRefused):
                results[index] = Dropped(examples[index].place, layout.reason, layout.detail, examples[index].id)
            else:
                layouts.append((index, layout))
        encodings = self._encoder.encode_batch([layout.text for _, layout in layouts])
        for (index, layout), encoding in zip(layouts, encodings, strict=True):
            example = examples[index]
            try:
                results[index] = self._fit(example, layout, encoding)
            except RowRefused as refusal:
                results[index] = Dropped(example.place, refusal.reason, refusal.detail, example.id)
        return [result for result in results if result is not None]

    def prompt_ids(self, messages: Sequence[Message], tools: Any = None) -> list[int]:
        """Ids the model is given to answer: those that stand before the answer's labels in a training row.

        Raises:
            RowRefused: a message holds a control token, or the template refuses the conversation.
        """
        text = self.template.prompt(messages, tools=tools, thinks=self.thinks)
        ids: list[int] = self._encoder.encode(text).ids.tolist()
        return ids

    @property
    def end_id(self) -> int:
        """Id of the token that ends an answer, as the template writes it."""
        layout = self.template.lay_out([Message("user", "a"), Message("assistant", "b", train=True)])
        return int(self._encoder.encode(layout.spans[-1].end).ids[0])

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, special tokens included."""
        texts: list[str] = self._encoder.tokenizer.decode_batch([list(one) for one in ids], skip_special_tokens=False)
        return texts

    def check(self, example: Example) -> Dropped | None:
        """Why an example cannot be asked, or None when it can. Only its prompt is looked at."""
        try:
            self.template.prompt(example.prompt, example.place, example.meta.get("tools"))
        except RowRefused as refusal:
            return Dropped(example.place, refusal.reason, refusal.detail, example.id)
        return None

    def answers(self, example: Example) -> list[str]:
        """The text of each trained turn as the template writes it, the end token included."""
        layout = self._lay_out(example)
        return [layout.text[span.start : span.stop] for span in layout.spans]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _lay_out(self, example: Example) -> Layout:
        return self.template.lay_out(example.messages, example.place, example.meta.get("tools"))

    def _tokens(self, example: Example, layout: Layout, encoding: Encoded) -> Tokens:
        ids = encoding.ids
        labels = np.full(len(ids), IGNORE, dtype=np.int32)
        for span in layout.spans:
            end = span.end
            first = _token_at(encoding, span.start, span.stop)
            last = encoding.token_at(span.stop - len(end))
            if first is None or last is None or self._encoder.tokenizer.token_to_id(end) != ids[last]:
                raise DataError(
                    f"the end token {end!r} is not one token here",
                    place=example.place,
                    remedy="set model.end_token to a token of this tokenizer",
                )
            if encoding.start_of(first) < span.start:
                detail = (
                    f"turn {span.message + 1}: its first token begins inside the prompt, so it is never generated so"
                )
                raise RowRefused(
                    "answer joins the prompt", detail, place=example.place, remedy="strip blanks off the answer's start"
                )
            labels[first : last + 1] = ids[first : last + 1]
        if self._bos is not None and len(ids) > 1 and ids[0] == ids[1] == self._bos:
            raise DataError(
                "the row begins with two BOS tokens", place=example.place, remedy="let the chat template write one"
            )
        return Tokens(example.id, ids, labels)

    def _fit(self, example: Example, layout: Layout, encoding: Encoded) -> Rendered | Dropped:
        length = len(encoding.ids)
        if self.max_length is None or length <= self.max_length:
            return Rendered(self._tokens(example, layout, encoding), example)
        detail = f"{length:,} tokens; data.max_length is {self.max_length:,}"
        if self.too_long == "error":
            raise DataError(
                f"the example has {detail}",
                place=example.place,
                remedy="raise data.max_length, or set data.too_long to drop or shorten_prompt",
            )
        if self.too_long == "shorten_prompt":
            shortened = self._shorten(example, layout, encoding, self.max_length)
            if shortened is not None:
                return shortened
            detail += ", and the rest does not fit even without its longest user turn"
        return Dropped(example.place, "too long", detail, example.id)

    def _shorten(self, example: Example, layout: Layout, encoding: Encoded, limit: int) -> Rendered | None:
        """Cut whole tokens off the start of the longest user turn until the example fits."""
        turns = [
            (start, stop, index)
            for index, start, stop in layout.contents
            if example.messages[index].role == "user" and stop > start
        ]
        if not turns:
            return None
        start, stop, index = max(turns, key=lambda turn: turn[1] - turn[0])
        first, last = _token_at(encoding, start, stop), encoding.token_at(stop - 1)
        if first is None or last is None:
            return None
        text = layout.text[start:stop]
        cut = len(encoding.ids) - limit
        while first + cut <= last:
            rest = text[max(0, encoding.start_of(first + cut) - start) :].lstrip()
            if not rest:
                return None
            message = example.messages[index]
            messages = list(example.messages)
            messages[index] = Message(message.role, rest, message.train, message.extra)
            shorter = self.template.lay_out(messages, example.place, example.meta.get("tools"))
            again = self._encoder.encode(shorter.text)
            if len(again.ids) <= limit:
                note = f"{cut} tokens cut off the start of turn {index + 1}"
                return Rendered(self._tokens(example, shorter, again), replace(example, messages=tuple(messages)), note)
            cut += len(again.ids) - limit
        return None


def _token_at(encoding: Encoded, start: int, stop: int) -> int | None:
    """The first token that holds a character of [start, stop); a normaliser may have left some without one."""
    for character in range(start, stop):
        token = encoding.token_at(character)
        if token is not None:
            return token
    return None
