"""The label proof: what the loss will see of each row, read off the finished tensors, is its answers and their ends."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.cache import TokensDataset
from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.errors import DataError
from tunesmith.types import IGNORE, Example, Finding, Message, Tokens

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.render import Renderer

_PROMPTS = 256
"""Rows whose prompt is rendered again as for generation; tokenising every row twice would double the time."""
_BLANK = re.compile(r"\s+|</?think>")
SHOW = "`tunesmith data show RECIPE`"
"""In remedies; `check` puts the row's number behind it."""
_SPACE = re.compile(r"\s+")
_USUAL = 0.9
"""Share of the rows of a shape that open alike before one that does not is called cut off."""


class Proof(NamedTuple):
    """What was proved."""

    rows: int
    """Examples looked at: all of them."""
    labels: int
    """Label tokens the loss will see."""
    seconds: float
    findings: tuple[Finding, ...]
    """Errors, one per faulty row; empty when every row is right."""


class _Seen(NamedTuple):
    """One example as it stands in the tensors."""

    path: NDArray[np.int64]
    """The ids its last token may look at, in order: the whole example."""
    predicted: NDArray[np.int64]
    """The ids the loss asks for."""
    follows: bool
    """Whether each label is the token that comes next in the example."""
    ends_trained: bool
    """Whether the last token is asked for."""


def prove_labels(dataset: TokensDataset, tokenizer: Any, renderer: Renderer, config: RunConfig) -> Proof:
    """Check every example through `plant_forest` and `collate_rows` as training will use them.

    For each: the tensors give back its ids; the supervised tokens are its trained turns and one end token after each,
    and decode to the text of its messages; there is at least one; no two BOS tokens begin it; every message is in its
    text. For a sample of rows, the prompt that generation will use is the row's own beginning.

    Args:
        dataset: rendered examples with the conversations they were made of.
        tokenizer: for the padding and BOS ids.
        renderer: for decoding, and for the prompts.
        config: `train.batch_size`, `max_tokens` and `share_prefixes` are read.
    """
    start = time.perf_counter()
    findings: list[Finding] = []
    other_prompts: list[str] = []
    blanks: dict[tuple[str, str], list[str]] = {}
    openings: dict[tuple[str, ...], dict[str, list[str]]] = {}
    labels = 0
    train = config.train
    ids = _Ids.of(tokenizer, renderer)
    sampled = set(range(0, len(dataset), max(1, len(dataset) // _PROMPTS)))
    for first in range(0, len(dataset), train.batch_size):
        tokens: list[Tokens] = dataset[first : first + train.batch_size]
        # Ids may repeat; places in the step may not.
        step = [Tokens(str(at), one.input_ids, one.labels) for at, one in enumerate(tokens)]
        answers: list[list[int]] = []
        wanted: list[tuple[Message, str]] = []
        whole: list[tuple[Example, list[int]]] = []
        for at, seen in _walk(step, train.max_tokens, train.share_prefixes, ids.pad):
            example = dataset.example(first + at)
            labels += len(seen.predicted)
            turns = [message for message in example.messages if message.train]
            fault = _structure(seen, step[at], ids)
            runs = [] if fault else _runs(seen.predicted)
            if not fault:
                fault = _ends(seen, runs, turns, ids, renderer)
            if fault:
                findings.append(_error(*fault, example.place))
                continue
            if first + at in sampled and not _prompt_fits(example, tokens[at], renderer):
                other_prompts.append(example.place)
            answers += runs
            wanted += [(turn, example.place) for turn in turns]
            if ids.unknown is None or ids.unknown not in seen.path:
                whole.append((example, seen.path.tolist()))
        faulty: set[str] = set()
        for text, (turn, place) in zip(renderer.decode(answers), wanted, strict=True):
            if not _says(text, turn):
                findings.append(_error(*_other_text(text, turn), place))
                faulty.add(place)
            elif text.strip() and turn.content == turn.content.strip():
                around = text.partition(text.strip())
                blanks.setdefault((around[0], around[2]), []).append(place)
        for text, (example, _) in zip(renderer.decode([path for _, path in whole]), whole, strict=True):
            if example.place not in faulty and (lost := _lost(text, example)):
                findings.append(_error("labels.message_lost", lost, example.place))
            elif opening := _opening(text, example):
                openings.setdefault(opening.shape, {}).setdefault(opening.text, []).append(example.place)
    findings += [*_other_blanks(blanks), *_other_openings(openings)]
    if other_prompts:
        findings.append(_prompts(other_prompts, len(sampled)))
    return Proof(len(dataset), labels, time.perf_counter() - start, tuple(findings))


class _Ids(NamedTuple):
    """Token ids with a meaning of their own."""

    pad: int
    padding: int | None
    """The id that stands nowhere but in padding; None where it means something else too."""
    bos: int | None
    begins: bool
    """Whether the template begins every conversation with the BOS token."""
    unknown: int | None
    end: int | None
    """What the template ends an answer with; None where it cannot write question and answer alone."""

    @classmethod
    def of(cls, tokenizer: Any, renderer: Renderer) -> _Ids:
        pad, eos, unknown = tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
        try:
            end = renderer.end_id
            begins = renderer.prompt_ids([Message("user", "a")])[0] == tokenizer.bos_token_id
        except DataError:
            end, begins = None, False
        padding = None if pad in (eos, end, unknown, tokenizer.bos_token_id) else pad
        return cls(pad if pad is not None else eos or 0, padding, tokenizer.bos_token_id, begins, unknown, end)


def _walk(step: Sequence[Tokens], max_tokens: int, share: bool, pad_id: int) -> Iterator[tuple[int, _Seen]]:
    """Every example of a step as the tensors hold it, by its place in the step."""
    rows = plant_forest(step, max_tokens, share)
    batch = {name: tensor.numpy() for name, tensor in collate_rows(rows, pad_id).items()}
    for at, row in enumerate(rows):
        ids, position, end = (batch[name][at] for name in ("input_ids", "position_ids", "subtree_end"))
        labels = batch["labels"][at]
        size = len(row.input_ids)
        starts = [0, *(np.flatnonzero(position[1:size] <= position[: size - 1]) + 1).tolist(), size]
        for name, (start, stop) in zip(row.examples, pairwise(starts), strict=True):
            path = np.flatnonzero(end[:stop] >= stop - 1)
            asked = np.flatnonzero(labels[start:stop] != IGNORE) + start
            follows = bool((asked < stop - 1).all()) and bool((labels[asked] == ids[asked + 1]).all())
            ends_trained = bool(len(asked)) and int(asked[-1]) == stop - 2
            yield int(name), _Seen(ids[path], labels[asked], follows, ends_trained)
        if (labels[size:] != IGNORE).any():
            raise AssertionError("a padded cell has a label")


def _structure(seen: _Seen, tokens: Tokens, ids: _Ids) -> tuple[str, str] | None:
    """(kind, message) of what is wrong with the ids and with where the labels stand."""
    if not np.array_equal(seen.path, tokens.input_ids):
        return "labels.packed_wrong", "the packed row does not give the example back"
    if not len(seen.predicted):
        return "labels.none_trained", "no token is trained"
    # Nothing predicts the first token, so a label on it is no label.
    if not seen.follows or not np.array_equal(seen.predicted, tokens.labels[1:][tokens.labels[1:] != IGNORE]):
        return "labels.not_next_token", "a label is not the token that follows"
    if len(seen.predicted) >= len(seen.path) - 1:
        return "labels.prompt_trained", "every token of the row is trained, the question too"
    if ids.padding is not None and (seen.path == ids.padding).any():
        return "labels.padding_inside", "padding stands inside the example"
    if ids.bos is not None and len(seen.path) > 1 and seen.path[0] == seen.path[1] == ids.bos:
        return "labels.double_bos", "the row begins with two BOS tokens"
    if ids.begins and seen.path[0] != ids.bos:
        return "labels.bos_missing", "the row does not begin with the BOS token, as the chat template does"
    return None


def _ends(
    seen: _Seen, runs: list[list[int]], turns: Sequence[Message], ids: _Ids, renderer: Renderer
) -> tuple[str, str] | None:
    """(kind, message) where the labels do not fall into one stretch a turn, each with its end token."""
    calls = bool(turns[-1].extra.get("tool_calls"))  # which some templates end with a token of their own
    predicted = seen.predicted
    if ids.end is not None and predicted[-1] != ids.end and not calls:
        if seen.ends_trained and ids.end not in seen.path[-2:]:
            return "labels.cut_off", "the row ends inside the answer: it was cut off"
        if ids.end not in predicted or _last_text(predicted, ids.end, renderer) in turns[-1].content:
            return "labels.end_masked", "the end token of the answer is not trained"
        return "labels.beyond_end", "tokens after the answer's end are trained"
    if len(runs) == len(turns):
        return None
    said = f"{len(turns)} turns are trained, the labels hold {len(runs)} end tokens"
    if len(runs) < len(turns):
        texts = [_bare(text) for text in renderer.decode(runs)]
        merged = all(any(_bare(turn.content) in text for text in texts) for turn in turns)
        return ("labels.end_masked" if merged else "labels.turn_missing"), said
    return ("labels.end_repeated" if any(not run for run in runs) else "labels.prompt_trained"), said


def _last_text(predicted: NDArray[np.int64], end: int, renderer: Renderer) -> str:
    """What is trained after the last end token."""
    after = predicted[int(np.flatnonzero(predicted == end)[-1]) + 1 :]
    return renderer.decode([after.tolist()])[0].strip() or "\0"


def _other_text(text: str, turn: Message) -> tuple[str, str]:
    """(kind, message) where the labels do not say the answer."""
    thought = str(turn.extra.get("reasoning_content") or "")
    said, answer = _bare(text), _bare(thought + turn.content)
    message = f"the labels say {text[:80]!r}, the answer is {turn.content[:80]!r}"
    # A thought may be cut within its own tag: then nothing but the answer and its tags is there, and not all of it.
    tagged = _bare(f"<think>{thought}</think>{turn.content}", _SPACE)
    if _is_part(said, answer) or (thought and _is_part(_bare(text, _SPACE), tagged)):
        return "labels.answer_incomplete", message
    return ("labels.prompt_trained" if answer in said else "labels.other_answer"), message


def _is_part(text: str, whole: str) -> bool:
    """Whether the characters of the text stand in the whole in this order."""
    characters = iter(whole)
    return all(character in characters for character in text)


def _lost(text: str, example: Example) -> str:
    """Which message, or description of a tool, is not in the row's text; empty where all are, in their order."""
    at, bare = 0, ""
    for tool in example.meta.get("tools") or ():
        name = tool.get("function", tool).get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and name not in text:
            return f"the description of the tool {name!r} is not in the row"
    for number, message in enumerate(example.messages, 1):
        content = message.content
        if message.role == "assistant" and not message.train:
            content = content.rpartition("</think>")[2]  # templates drop the thoughts of earlier turns
        content = content.strip()
        if not content or (message.role == "tool" and content[0] in "{["):  # re-written as JSON by some templates
            continue
        found = text.find(content, at if message.role != "system" else 0)
        if found >= 0:
            at = found + len(content) if message.role != "system" else at
            continue
        bare = bare or _bare(text)
        if _bare(content) not in bare and _bare(json.dumps(content, ensure_ascii=False)[1:-1]) not in bare:
            return f"the {message.role} message of turn {number} is not in the row: {content[:60]!r}"
    return ""


class _Opening(NamedTuple):
    """How a row begins."""

    shape: tuple[str, ...]
    """Roles of the conversation, and whether it has tools: what a template's opening depends on."""
    text: str
    """What the template writes before the first message or tool."""


def _opening(text: str, example: Example) -> _Opening | None:
    first, tools = example.messages[0], example.meta.get("tools")
    at = text.find(first.content.strip()) if first.content.strip() else -1
    if at < 0:
        return None
    written = text[:at].partition("{")[0] if tools else text[:at]
    return _Opening((*(message.role for message in example.messages), "tools" if tools else ""), written)


def _other_openings(openings: dict[tuple[str, ...], dict[str, list[str]]]) -> list[Finding]:
    """A template opens all conversations of a shape alike; the start of one that opens otherwise was cut off."""
    found = []
    for by_text in openings.values():
        usual = max(by_text, key=lambda text: len(by_text[text]))
        if len(by_text[usual]) >= _USUAL * sum(map(len, by_text.values())):
            found += [
                _error(
                    "labels.message_lost", f"the row begins with {text[-60:]!r} where others do with {usual[-60:]!r}: "
                    "its start was cut off", place,
                )
                for text, places in by_text.items() if text != usual for place in places
            ]  # fmt: skip
    return found


def _runs(predicted: NDArray[np.int64]) -> list[list[int]]:
    """The labels cut after each end token, which is the last of them; the end tokens are left out."""
    ends = np.flatnonzero(predicted == predicted[-1])
    return [part.tolist() for part in np.split(np.delete(predicted, ends), ends[:-1] - np.arange(len(ends) - 1))]


def _prompt_fits(example: Example, tokens: Tokens, renderer: Renderer) -> bool:
    """Whether generation will be given what stands before the answer in the row."""
    if not example.messages[-1].train:
        return True
    labelled = tokens.labels != IGNORE
    last = int(np.flatnonzero(labelled & ~np.roll(labelled, 1))[-1])
    prompt = renderer.prompt_ids(example.prompt, example.meta.get("tools"))
    return bool(prompt == tokens.input_ids[:last].tolist())


def _prompts(places: list[str], sampled: int) -> Finding:
    return Finding(
        "labels.other_prompt",
        "error" if len(places) == sampled else "warning",
        f"in {len(places)} of {sampled} sampled rows, what stands before the answer is not the prompt the model will "
        "be given; answers with and without a thought (<think>) do this",
        places[0],
        "let all answers begin with a thought, or none",
    )


def _says(text: str, turn: Message) -> bool:
    if text.strip() == turn.content.strip():
        return True
    if turn.extra.get("tool_calls"):  # their wording is the template's
        named = [call.get("function", call).get("name", "") for call in turn.extra["tool_calls"]]
        return _bare(turn.content) in _bare(text) and all(name in text for name in named)
    return _bare(text) == _bare(str(turn.extra.get("reasoning_content") or "") + turn.content)


def _other_blanks(blanks: dict[tuple[str, str], list[str]]) -> list[Finding]:
    """A template writes the same blanks around every answer; where others are learned, the mask is off by a token."""
    usual = max(blanks, key=lambda around: len(blanks[around]), default=("", ""))
    return [
        _error(
            "labels.other_blanks",
            f"the labels hold other blanks around the answer {around!r} than the usual {usual!r}",
            place,
        )
        for around, places in blanks.items()
        if around != usual
        for place in places
    ]


def _bare(text: str, ignored: re.Pattern[str] = _BLANK) -> str:
    """Without blanks and thinking tags, which templates set as they like."""
    return ignored.sub("", unicodedata.normalize("NFKC", text))


def _error(check: str, message: str, place: str) -> Finding:
    remedy = f"{SHOW} shows it token by token; the fault is the chat template's (set model.chat_template), or ours"
    return Finding(check, "error", message, place, remedy)
