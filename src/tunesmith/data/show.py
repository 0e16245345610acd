"""Looking at data: one example token by token, and the figures of a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.data.cache import TokensDataset
from tunesmith.data.forest import plant_forest
from tunesmith.types import IGNORE, Tokens

if TYPE_CHECKING:
    from rich.text import Text

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
_STEPS = 50
"""Steps that are packed to measure what sharing saves."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A data set in figures."""

    examples: int
    tokens: int
    labels: int
    """Tokens the loss sees."""
    prompt_share: float
    """Share of the tokens that are read and not learned."""
    lengths: dict[float, int]
    """Tokens per example at some quantiles."""
    label_lengths: dict[float, int]
    """The same for label tokens."""
    longest: str
    """Place of the longest example."""
    prefixes: int
    """Distinct prompts, as token ids."""
    token_reduction: float
    """Tokens without sharing, divided by tokens in rows, over shuffled steps of `batch_size`."""
    fill: float
    """Tokens in rows, divided by `max_tokens` times rows."""

    def text(self) -> str:
        """For a terminal."""
        quantiles = ", ".join(f"{q:.0%} {n:,}" for q, n in self.lengths.items())
        answers = ", ".join(f"{q:.0%} {n:,}" for q, n in self.label_lengths.items())
        return (
            f"{self.examples:,} examples, {self.tokens:,} tokens, {self.labels:,} of them trained "
            f"({1 - self.prompt_share:.1%})\n"
            f"tokens per example: {quantiles}; the longest is {self.longest}\n"
            f"trained tokens per example: {answers}\n"
            f"{self.prefixes:,} distinct prompts; sharing prefixes computes {self.token_reduction:.2f} times fewer "
            f"tokens, rows are {self.fill:.0%} full"
        )


def token_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text of each token; together they are the text. A character of several tokens is shown at its last."""
    decode = tokenizer.backend_tokenizer.decode
    texts: list[str] = []
    # What a token adds depends on those before it, so it is decoded behind the last complete stretch.
    context = complete = 0
    for at in range(len(ids)):
        through = decode(list(ids[context : at + 1]), skip_special_tokens=False)
        if through.endswith("\ufffd"):
            texts.append("")
            continue
        texts.append(through[len(decode(list(ids[context:complete]), skip_special_tokens=False)) :])
        context, complete = complete, at + 1
    return texts


def mask(tokens: Tokens, tokenizer: Any) -> dict[str, Any]:
    """An example for the report: `{id, tokens: [{text, trained}]}`, JSON-serialisable."""
    texts = token_texts(tokens.input_ids.tolist(), tokenizer)
    trained = (tokens.labels != IGNORE).tolist()
    return {"id": tokens.id, "tokens": [{"text": t, "trained": on} for t, on in zip(texts, trained, strict=True)]}


def show_example(tokens: Tokens, tokenizer: Any) -> Text:
    """An example for the terminal: trained tokens on green, the others dim, a thin stroke between tokens."""
    from rich.text import Text

    shown = Text(no_wrap=False)
    texts = token_texts(tokens.input_ids.tolist(), tokenizer)
    for text, trained in zip(texts, (tokens.labels != IGNORE).tolist(), strict=True):
        shown.append(text.replace("\n", "↵\n"), style="black on green" if trained else "dim")
        shown.append("|" if not text.endswith("\n") else "", style="dim")
    return shown


def stats(dataset: TokensDataset, batch_size: int, max_tokens: int, seed: int = 0) -> Stats:
    """The figures of a data set, and what sharing prefixes saves at that batch size.

    Args:
        dataset: at least one example.
        batch_size: examples per optimizer step.
        max_tokens: tokens per row.
        seed: of the shuffle that draws the steps.
    """
    lengths, labels = dataset.lengths, dataset.label_counts
    prefixes = {tokens.input_ids[: int((tokens.labels != IGNORE).argmax())].tobytes() for tokens in dataset}
    order = np.random.default_rng(seed).permutation(len(dataset))
    plain = packed = rows = 0
    for start in range(0, min(len(order), _STEPS * batch_size), batch_size):
        step = [dataset[int(at)] for at in order[start : start + batch_size]]
        forest = plant_forest(step, max_tokens)
        plain += sum(len(one.input_ids) for one in step)
        packed += sum(len(row.input_ids) for row in forest)
        rows += len(forest)
    return Stats(
        examples=len(dataset),
        tokens=int(lengths.sum()),
        labels=int(labels.sum()),
        prompt_share=1 - float(labels.sum() / lengths.sum()),
        lengths={q: int(v) for q, v in zip(QUANTILES, np.quantile(lengths, QUANTILES), strict=True)},
        label_lengths={q: int(v) for q, v in zip(QUANTILES, np.quantile(labels, QUANTILES), strict=True)},
        longest=dataset.example(int(lengths.argmax())).place,
        prefixes=len(prefixes),
        token_reduction=plain / packed,
        fill=packed / (rows * max_tokens),
    )
