"""The loops that feed chosen tokens back to the model until every answer is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.schema import Generate
from tunesmith.generate.caches import PaddedCache, SharedCache
from tunesmith.generate.groups import Group, chunks
from tunesmith.generate.search import Answer, Chooser
from tunesmith.generate.shared import attending, encode


def complete_group(
    model: Any,
    chooser: Chooser,
    prompts: Sequence[list[int]],
    answers: Sequence[Answer],
    group: Group,
    config: Generate,
) -> None:
    """Decode the prompts of a group, whose prefix is encoded once; for models that `shares_prefixes` accepts."""
    prefix = encode(model, prompts[group.members[0]][: group.prefix]) if group.prefix else []
    with attending(model):
        for batch in chunks(group.members, config.batch_size):
            own = [prompts[i][group.prefix :] for i in batch]
            _decode(model, chooser, own, [answers[i] for i in batch], SharedCache(prefix))


def complete_padded(
    model: Any, chooser: Chooser, prompts: Sequence[list[int]], answers: Sequence[Answer], config: Generate
) -> None:
    """Decode one batch of any model: with one beam through `model.generate`, which knows every architecture's cache.

    Raises:
        ConfigError: several beams are asked for, and the architecture's cache cannot be reordered.
    """
    if config.beams == 1:
        _through_generate(model, chooser, prompts, answers, config)
    else:
        _decode(model, chooser, prompts, answers, PaddedCache(model))


def _decode(
    model: Any, chooser: Chooser, own: Sequence[list[int]], answers: Sequence[Answer], cache: SharedCache | PaddedCache
) -> None:
    """Decode until every answer is finished; beams that died, and finished answers, leave the batch.

    Each line is `[padding] [its own prompt tokens] [its answer]`, positions counted from the start of the whole prompt.
    """
    device = model.device
    width = max(map(len, own))
    ids = torch.zeros(len(own), width, dtype=torch.long)
    seen = torch.zeros(len(own), width, dtype=torch.bool)
    for row, tokens in enumerate(own):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        seen[row, width - len(tokens) :] = True
    ids, seen = ids.to(device), seen.to(device)
    position = cache.start + (seen.cumsum(1) - 1).clamp(min=0)
    inputs = cache.read(seen)
    alive = list(answers)
    while True:
        found = model(input_ids=ids, position_ids=position, use_cache=True, logits_to_keep=1, **inputs)
        rows = torch.tensor(chooser.take(found.logits[:, -1], alive), device=device)
        beams = [len(answer.live) for answer in alive]
        alive = [answer for answer in alive if answer.live]
        if not alive:
            return
        inputs = cache.go_on(rows, beams)
        ids = torch.tensor([beam.ids[-1] for answer in alive for beam in answer.live], device=device)[:, None]
        position = position[rows, -1:] + 1


def _through_generate(
    model: Any, chooser: Chooser, prompts: Sequence[list[int]], answers: Sequence[Answer], config: Generate
) -> None:
    from transformers import GenerationConfig

    end = min(chooser.end_ids)
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), end)
    seen = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, tokens in enumerate(prompts):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        seen[row, width - len(tokens) :] = 1

    def decide(_: Tensor, logits: Tensor) -> Tensor:
        """A logits processor that leaves only the token that was chosen."""
        only = torch.full_like(logits, float("-inf"))
        only[:, end] = 0
        rows = [row for row, answer in enumerate(answers) if answer.live]
        asked = [answers[row] for row in rows]
        if rows:
            chooser.take(logits[rows], asked)
        for row, answer in zip(rows, asked, strict=True):
            only[row] = float("-inf")
            only[row, (answer.live or answer.whole)[0].ids[-1]] = 0
        return only

    model.generate(
        input_ids=ids.to(model.device),
        attention_mask=seen.to(model.device),
        # Said in full: what is left out here, `generate` would take from the checkpoint's own settings.
        generation_config=GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=sorted(chooser.end_ids),
            pad_token_id=end,
            use_cache=True,
        ),
        logits_processor=[decide],
    )
