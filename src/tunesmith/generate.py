"""Prompts to completions: batched, shared prefixes computed once, held to a constraint where one is given.

Prompts that begin alike (one schema, many questions) form a group. The keys and values of the group's prefix are
computed once, at batch size 1, and every step attends to them without copying them to each sequence: one matrix
product over the whole batch for the prefix, a small one per sequence for its own tokens, one softmax over both
(shared-prefix decoding, as in Hydragen, Juravsky et al., 2024, arXiv 2402.05099). Models whose attention is more than
plain causal softmax attention are decoded by `model.generate` in padded batches instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.schema import Generate
from tunesmith.model.lora import merged_adapters
from tunesmith.types import Completion, Constraint

Progress = Callable[[int], None]

_PLAIN_ATTENTION = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types known to compute softmax(q k / scale) v and no more; each is held to `model.generate` by a test."""
_ATTENTION = "tunesmith_shared_prefix"
_LEAST_PREFIX = 16
"""Tokens; sharing fewer saves less than a batch of its own costs."""
_LEAST_GROUP = 4
"""Prompts; smaller groups decode faster together with others than alone with their prefix."""
_WORTH_MERGING = 16
"""Prompts; for fewer, adapters are not merged."""
_CANDIDATES = 4096
"""Tokens tried, likeliest first, before a constraint is given up."""
_MOST_SILENT = 3
"""Tokens in a row that may spell nothing: the first three bytes of a character of four."""
_SCORES = 1 << 26
"""Attention scores held at once; a longer prefill is done a few sequences at a time."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    config: Generate,
    end_ids: set[int] | frozenset[int],
    constraints: Sequence[Constraint | None] | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> list[Completion]:
    """Complete every prompt, in the order given.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; put back into its mode afterwards.
        tokenizer: decodes answers; its special tokens never appear in their text.
        prompts: token ids, as the renderer gave them; none may be empty.
        config: temperature 0 takes the likeliest token; above it, tokens are sampled.
        end_ids: tokens that end an answer.
        constraints: for each prompt, what its answer may contain, or None.
        progress: called with the number of answers finished since the last call.
        seed: with it and a prompt's index, its samples are drawn, whatever shares its batch.

    Raises:
        ValueError: a prompt is empty, there is no end token, or the constraints do not match the prompts.
    """
    if not all(prompts):
        raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} is empty")
    if not end_ids:
        raise ValueError("no end token: answers would never stop")
    if constraints is not None and len(constraints) != len(prompts):
        raise ValueError(f"{len(constraints)} constraints for {len(prompts)} prompts")
    held = constraints or [None] * len(prompts)
    chooser = _Chooser(tokenizer, frozenset(end_ids), config, progress)
    answers = [_Answer(held[i], _noise(config, seed, i)) for i in range(len(prompts))]
    merged = merged_adapters(model) if len(prompts) >= _WORTH_MERGING else nullcontext()
    with merged, torch.inference_mode(), _evaluating(model):
        if _shares_prefixes(model):
            for group in plan(prompts):
                _complete_group(model, chooser, prompts, answers, group, config)
        else:
            order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
            for batch in _chunks(order, config.batch_size):
                _complete_padded(model, chooser, [prompts[i] for i in batch], [answers[i] for i in batch], config)
    return [chooser.completion(answer) for answer in answers]


def end_ids_of(model: Any, tokenizer: Any, end_token: str | None = None) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, those of the model's generation settings, and `end_token`."""
    found = {tokenizer.eos_token_id}
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(listed if isinstance(listed, (list, tuple)) else [listed])
    if end_token:
        found.add(tokenizer.convert_tokens_to_ids(end_token))
    return frozenset(token for token in found if token is not None)


# --- which prompts go together --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that begin with the same `prefix` tokens, longest first."""

    prefix: int
    members: tuple[int, ...]


def plan(prompts: Sequence[list[int]]) -> list[Group]:
    """Group prompts by the tokens they share at the start; each keeps at least one token of its own.

    Sorted, prompts that begin alike stand together. Runs of neighbours that share at least half of the longest prompt
    become groups, then, of those left over, runs that share a quarter, and so on. The last rest has prefix 0.
    """
    rest = sorted(range(len(prompts)), key=lambda i: prompts[i])
    groups = []
    least = max(map(len, prompts), default=0) // 2
    while rest and least >= _LEAST_PREFIX:
        runs: list[tuple[int, list[int]]] = []
        for i in rest:
            shared = _common(prompts[runs[-1][1][-1]], prompts[i]) if runs else 0
            if shared >= least:
                prefix, members = runs[-1]
                members.append(i)
                runs[-1] = (min(prefix, shared), members)
            else:
                runs.append((len(prompts[i]), [i]))
        rest = []
        for prefix, members in runs:
            prefix = min(prefix, *(len(prompts[i]) - 1 for i in members))
            if len(members) >= _LEAST_GROUP and prefix >= _LEAST_PREFIX:
                groups.append(Group(prefix, _longest_first(members, prompts)))
            else:
                rest += members
        least //= 2
    return [*groups, Group(0, _longest_first(rest, prompts))] if rest else groups


def _longest_first(members: list[int], prompts: Sequence[list[int]]) -> tuple[int, ...]:
    return tuple(sorted(members, key=lambda i: -len(prompts[i])))


def _common(a: list[int], b: list[int]) -> int:
    """Length of the shared start, by bisection: slices compare at the speed of C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _chunks(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


# --- which token comes next -----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Answer:
    """One completion in the making."""

    constraint: Constraint | None
    noise: torch.Generator | None
    """Source of its samples; None when decoding is greedy."""
    ids: list[int] = field(default_factory=list)
    text: str = ""
    """What `ids` spell, kept only while a constraint is held."""
    silent: int = 0
    """Tokens since `text` last grew: bytes of a character that is not whole yet."""
    held: bool = True
    stopped: bool = False


def _noise(config: Generate, seed: int, index: int) -> torch.Generator | None:
    if config.temperature == 0:
        return None
    # PyTorch's generator looks at 32 bits of a seed: a hash of both numbers keeps neighbours apart.
    return torch.Generator().manual_seed(random.Random(f"{seed} {index}").getrandbits(32))


class _Chooser:
    """Takes the next token of every answer."""

    def __init__(
        self, tokenizer: Any, end_ids: frozenset[int], config: Generate, progress: Progress | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.config = config
        self.progress = progress
        self._unspoken = frozenset(tokenizer.all_special_ids) - end_ids

    def finished(self, answer: _Answer) -> bool:
        return answer.stopped or len(answer.ids) >= self.config.max_new_tokens

    def take(self, logits: Tensor, answers: Sequence[_Answer]) -> list[int]:
        """Choose and append a token for each answer; `logits` has shape (len(answers), vocabulary)."""
        scores = logits.float()
        if self.config.temperature:
            # The largest of logits plus Gumbel noise is a sample, and the next largest ones are further samples
            # without replacement: so sampling and greedy decoding meet constraints in the same way.
            draws = [torch.empty(scores.shape[1]).exponential_(generator=answer.noise) for answer in answers]
            scores = scores / self.config.temperature - torch.stack(draws).log().to(scores.device)
        chosen: list[int] = scores.argmax(-1).tolist()
        for row, answer in enumerate(answers):
            if answer.constraint is not None and answer.held:
                chosen[row] = self._hold(answer, answer.constraint, chosen[row], scores[row])
            answer.ids.append(chosen[row])
            answer.stopped = chosen[row] in self.end_ids
        if self.progress and (done := sum(map(self.finished, answers))):
            self.progress(done)
        return chosen

    def _hold(self, answer: _Answer, constraint: Constraint, first: int, scores: Tensor) -> int:
        """The first token the constraint allows, likeliest first; `first` itself, and freedom, when none is."""
        if self._fits(answer, constraint, first):
            return first
        for token in scores.topk(min(_CANDIDATES, len(scores))).indices.tolist()[1:]:
            if self._fits(answer, constraint, token):
                return int(token)
        answer.held = False
        return first

    def _fits(self, answer: _Answer, constraint: Constraint, token: int) -> bool:
        if token in self.end_ids:
            return constraint.complete(answer.text)
        if token in self._unspoken:
            return False
        # Decoding the whole answer is the only exact way: what a piece spells depends on the pieces before it. A
        # character whose bytes are not all there yet shows as U+FFFD and is judged when it is whole.
        text = self._decode([*answer.ids, token]).rstrip("\ufffd")
        silent = answer.silent + 1 if text == answer.text else 0
        if silent > _MOST_SILENT or not constraint.allows(text):
            return False
        answer.text, answer.silent = text, silent
        return True

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def completion(self, answer: _Answer) -> Completion:
        spoken = answer.ids[:-1] if answer.stopped else answer.ids
        return Completion(self._decode(spoken), answer.stopped, len(answer.ids), answer.held)


# --- decoding with a shared prefix ----------------------------------------------------------------------------------


def _complete_group(
    model: Any,
    chooser: _Chooser,
    prompts: Sequence[list[int]],
    answers: Sequence[_Answer],
    group: Group,
    config: Generate,
) -> None:
    prefix = _encode(model, prompts[group.members[0]][: group.prefix]) if group.prefix else None
    with _attending(model):
        for batch in _chunks(group.members, config.batch_size):
            own = [prompts[i][group.prefix :] for i in batch]
            _decode_batch(model, chooser, own, [answers[i] for i in batch], prefix, group.prefix)


Prefix = list[tuple[Tensor, Tensor]]
"""For each layer, keys and values of shape (key/value heads, tokens, head size)."""


def _encode(model: Any, ids: list[int]) -> Prefix:
    from transformers import DynamicCache

    cache = DynamicCache()
    model(input_ids=torch.tensor([ids], device=model.device), cache=cache, use_cache=True, logits_to_keep=1)
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]


def _decode_batch(
    model: Any,
    chooser: _Chooser,
    own: Sequence[list[int]],
    answers: Sequence[_Answer],
    prefix: Prefix | None,
    start: int,
) -> None:
    """Decode until every answer is finished; finished ones leave the batch.

    Each line is `[shared prefix, elsewhere] [padding] [its own prompt tokens] [its answer]`, positions counted from the
    start of the prompt.
    """
    from transformers import DynamicCache

    device = model.device
    width = max(map(len, own))
    ids = torch.zeros(len(own), width, dtype=torch.long)
    seen = torch.zeros(len(own), width, dtype=torch.bool)
    for row, tokens in enumerate(own):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        seen[row, width - len(tokens) :] = True
    ids, seen = ids.to(device), seen.to(device)
    position = start + (seen.cumsum(1) - 1).clamp(min=0)
    mask = (seen[:, None, :] & torch.ones(width, width, dtype=torch.bool, device=device).tril())[:, None]
    cache = DynamicCache()
    alive = list(answers)
    while True:
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
            shared_prefix=prefix,
        ).logits[:, -1]
        ids = torch.tensor(chooser.take(logits, alive), device=device)[:, None]
        position = position[:, -1:] + 1
        rows = [row for row, answer in enumerate(alive) if not chooser.finished(answer)]
        if not rows:
            return
        if len(rows) < len(alive):
            kept = torch.tensor(rows, device=device)
            cache.batch_select_indices(kept)
            ids, position, seen = ids[kept], position[kept], seen[kept]
            alive = [alive[row] for row in rows]
        seen = torch.cat([seen, seen.new_ones(len(alive), 1)], dim=1)
        mask = seen[:, None, None, :]


def attend_shared(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    shared_prefix: Prefix | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention over a prefix that all sequences share, and each sequence's own tokens.

    Args:
        query: (batch, heads, new, head size).
        key: own keys, (batch, key/value heads, own, head size); `value` likewise.
        attention_mask: True where a new token may see an own one, (batch, 1, new, own). The prefix is seen by all.
        shared_prefix: keys and values of the prefix for every layer, or None.

    Returns:
        (batch, new, heads, head size), and None for the weights.
    """
    batch, heads, new, size = query.shape
    prefix = None if shared_prefix is None else shared_prefix[module.layer_idx]
    length = key.shape[2] + (0 if prefix is None else prefix[0].shape[1])
    step = max(1, _SCORES // (heads * new * length))
    parts = [
        _attend(
            query[i : i + step] * scaling, key[i : i + step], value[i : i + step], attention_mask[i : i + step], prefix
        )
        for i in range(0, batch, step)
    ]
    output = parts[0] if len(parts) == 1 else torch.cat(parts)
    return output.reshape(batch, heads, new, size).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, prefix: tuple[Tensor, Tensor] | None) -> Tensor:
    batch, heads, new, size = query.shape
    kv_heads, own = key.shape[1], key.shape[2]
    query = query.reshape(batch, kv_heads, -1, size)
    scores = (query @ key.transpose(2, 3)).view(batch, heads, new, own)
    # Filled with a finite number: a padding row that sees nothing must not become NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).view(batch, kv_heads, -1, own)
    if prefix is None:
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    keys, values = prefix
    together = query.transpose(0, 1).reshape(kv_heads, -1, size)
    before = (together @ keys.transpose(1, 2)).view(kv_heads, batch, -1, keys.shape[1]).transpose(0, 1)
    weights = torch.cat([before, scores], dim=-1).softmax(-1, dtype=torch.float32).to(value.dtype)
    length = keys.shape[1]
    from_prefix = weights[..., :length].transpose(0, 1).reshape(kv_heads, -1, length) @ values
    return weights[..., length:] @ value + from_prefix.view(kv_heads, batch, -1, size).transpose(0, 1)


# --- the model's mode -----------------------------------------------------------------------------------------------


def _transformer(model: Any) -> Any:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _shares_prefixes(model: Any) -> bool:
    """Whether attention and cache are of the plain kind that `attend_shared` computes."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = _transformer(model).config
    if config.model_type not in _PLAIN_ATTENTION:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _attending(model: Any) -> Iterator[None]:
    """Within, the model attends through `attend_shared`."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, attend_shared)
    transformer = _transformer(model)
    before = transformer.config._attn_implementation
    transformer.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        transformer.set_attn_implementation(before)


# --- any other model ------------------------------------------------------------------------------------------------


def _complete_padded(
    model: Any, chooser: _Chooser, prompts: Sequence[list[int]], answers: Sequence[_Answer], config: Generate
) -> None:
    """Left-padded batches through `model.generate`, which knows every architecture's cache."""
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
        rows = [row for row, answer in enumerate(answers) if not chooser.finished(answer)]
        chosen = chooser.take(logits[rows], [answers[row] for row in rows]) if rows else []
        only = torch.full_like(logits, float("-inf"))
        only[:, end] = 0
        for row, token in zip(rows, chosen, strict=True):
            only[row] = float("-inf")
            only[row, token] = 0
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
