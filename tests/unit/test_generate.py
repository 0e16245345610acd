"""Generation: the same text as `model.generate` one by one, whatever is batched, shared or constrained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_decoders import MODELS, OnlyDigits, letter_tokenizer, some_prompts, tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from tunesmith import generate as room
from tunesmith.config.schema import Generate, Lora
from tunesmith.generate import end_ids_of, generate, plan, shared
from tunesmith.generate.search import Answer, Beam, Chooser
from tunesmith.model.lora import add_lora, merged_adapters

SHARED = ("mistral", "llama", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return letter_tokenizer()


@pytest.fixture(scope="module")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens 0 to 255, then </s>, <s>, <pad>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["</s>", "<s>", "<pad>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", bos_token="<s>", pad_token="<pad>")


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]], tokens: int) -> list[str]:
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=256, pad_token_id=258)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        texts.append(tokenizer.decode(answer[0, len(prompt) :], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("kind", MODELS)
def test_the_text_is_that_of_generating_one_by_one(kind: str, tokenizer: Any) -> None:
    model, prompts = tiny(kind), some_prompts(schemas=2, questions=7) + some_prompts(schemas=3, questions=1, seed=5)
    answers = generate(model, tokenizer, prompts, Generate(max_new_tokens=20, batch_size=4), {256})
    assert [answer.text for answer in answers] == one_by_one(model, tokenizer, prompts, 20)
    assert shared.shares_prefixes(model) == (kind in SHARED)


def test_only_models_of_plain_attention_go_through_the_shared_prefix(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    attend = shared._attend
    monkeypatch.setattr(
        shared,
        "_attend",
        lambda *args: (lengths.append(args[-2][0].length), attend(*args))[1],
    )
    generate(tiny("mistral"), tokenizer, some_prompts(1, 5), Generate(max_new_tokens=2), {256})
    assert set(lengths) == {41}
    lengths.clear()
    generate(tiny("mistral with a sliding window"), tokenizer, some_prompts(1, 5), Generate(max_new_tokens=2), {256})
    assert not lengths


@pytest.mark.parametrize("beams", [1, 3])
def test_many_scores_are_computed_a_few_lines_at_a_time(
    beams: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = tiny("llama"), some_prompts(schemas=1, questions=6)
    whole = generate(model, tokenizer, prompts, Generate(max_new_tokens=8, beams=beams), {256})
    monkeypatch.setattr(shared, "_SCORES", 1)
    assert generate(model, tokenizer, prompts, Generate(max_new_tokens=8, beams=beams), {256}) == whole


def test_a_prompt_is_kept_once_for_all_of_its_beams(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, int, int]] = []
    attend = shared._attend

    def noted(*args: Any) -> Any:
        query, key, *_, parts, _ = args
        if len(parts) == 2:
            steps.append((len(query), len(parts[1].keys), key.shape[2]))
        return attend(*args)

    monkeypatch.setattr(shared, "_attend", noted)
    generate(tiny("mistral"), tokenizer, some_prompts(1, 5), Generate(max_new_tokens=4, beams=3), set(range(10)))
    lines, answers, written = zip(*steps, strict=True)
    assert max(lines) == 15 and max(answers) == 5, "a beam has a copy of its prompt"
    assert set(written) == {1, 2, 3}, "what a line carries along is more than it has written"


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_an_answer_stops_at_its_end_token_and_counts_it(kind: str, tokenizer: Any) -> None:
    model, prompts = tiny(kind), some_prompts(schemas=1, questions=8)
    never = 3
    free = generate(model, tokenizer, prompts, Generate(max_new_tokens=12), {never})
    assert all(not answer.stopped and answer.tokens == 12 for answer in free)
    end = free[0].text[3]
    stopped = generate(model, tokenizer, prompts, Generate(max_new_tokens=12), {never, *tokenizer.encode(end)})
    for before, after in zip(free, stopped, strict=True):
        assert after.text == before.text.split(end)[0]
        assert after.stopped == (end in before.text)
        assert after.tokens == len(after.text) + after.stopped


# peft still asks transformers under the old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_and_half_precision_generate_too(tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny("llama")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    prompts = some_prompts(schemas=1, questions=5)
    answers = generate(adapted, tokenizer, prompts, Generate(max_new_tokens=10), {256})
    assert [answer.text for answer in answers] == one_by_one(adapted, tokenizer, prompts, 10)
    half = generate(tiny("llama").to(torch.bfloat16), tokenizer, prompts, Generate(max_new_tokens=10), {256})
    assert len(half) == 5 and all(answer.tokens for answer in half)


def test_a_large_adapter_is_merged_while_it_writes_and_the_weights_are_then_what_they_were(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = add_lora(tiny("llama"), Lora(r=16, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = [module for module in model.modules() if hasattr(module, "merged_adapters")]
    prompts, config = some_prompts(2, 8), Generate(max_new_tokens=12)
    with merged_adapters(model):
        assert len(layers) == 14 and all(module.merged for module in layers)
    found = generate(model, tokenizer, prompts, config, {256})
    monkeypatch.setattr(room, "_WORTH_MERGING", 99)
    assert [one.text for one in found] == [one.text for one in generate(model, tokenizer, prompts, config, {256})]
    assert not any(module.merged for module in layers)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_model_is_left_as_it_was_found(tokenizer: Any) -> None:
    model = tiny("llama").train()
    before = model.config._attn_implementation
    generate(model, tokenizer, some_prompts(1, 5), Generate(max_new_tokens=3), {256})
    assert model.training and model.config._attn_implementation == before


def test_samples_depend_on_seed_and_prompt_and_not_on_the_batch(tokenizer: Any) -> None:
    model, prompts = tiny("llama"), some_prompts(schemas=1, questions=8)
    warm = Generate(max_new_tokens=10, temperature=1.0)
    answers = generate(model, tokenizer, prompts, warm, {256}, seed=3)
    assert answers == generate(model, tokenizer, prompts, warm.model_copy(update={"batch_size": 3}), {256}, seed=3)
    assert answers != generate(model, tokenizer, prompts, warm, {256}, seed=4)


def test_samples_follow_the_models_distribution(tokenizer: Any) -> None:
    model, prompt = tiny("llama"), some_prompts(1, 1)[0]
    settings = Generate(max_new_tokens=1, temperature=0.5, batch_size=500)
    answers = generate(model, tokenizer, [prompt] * 3000, settings, {299})
    expected = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].detach() / 0.5, -1)
    likeliest = int(expected.argmax())
    share = sum(answer.text == tokenizer.decode([likeliest]) for answer in answers) / 3000
    p = float(expected[likeliest])
    assert abs(share - p) < 4 * (p * (1 - p) / 3000) ** 0.5


class Nothing(OnlyDigits):
    def allows(self, text: str) -> bool:
        return False

    def complete(self, text: str) -> bool:
        return False


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_constraint_is_kept_by_the_answers_that_have_one(kind: str, temperature: float, tokenizer: Any) -> None:
    model, prompts = tiny(kind), some_prompts(schemas=1, questions=6)
    settings = Generate(max_new_tokens=8, temperature=temperature)
    free = generate(model, tokenizer, prompts, settings, {256})
    digits = [OnlyDigits() if i % 2 else None for i in range(6)]
    answers = generate(model, tokenizer, prompts, settings, {256}, constraints=digits)
    for i, answer in enumerate(answers):
        if i % 2:
            assert answer.constraint_held and answer.text.isdigit() and len(answer.text) >= 3
        else:
            assert answer == free[i]


def test_an_answer_that_cannot_be_held_is_free_and_says_so(tokenizer: Any) -> None:
    model, prompts = tiny("llama"), some_prompts(schemas=1, questions=4)
    settings = Generate(max_new_tokens=6)
    free = generate(model, tokenizer, prompts, settings, {256})
    answers = generate(model, tokenizer, prompts, settings, {256}, constraints=[Nothing()] * 4)
    assert [answer.text for answer in answers] == [answer.text for answer in free]
    assert not any(answer.constraint_held for answer in answers)


class Vietnamese(OnlyDigits):
    def allows(self, text: str) -> bool:
        return set(text) <= set("đồng")

    def complete(self, text: str) -> bool:
        return False


def test_a_character_is_judged_when_all_its_bytes_are_there(byte_tokenizer: Any) -> None:
    chooser = Chooser(byte_tokenizer, frozenset({256}), Generate())
    answer = Answer([Beam(Vietnamese())])
    first, second = byte_tokenizer.encode("đ")
    capital, stray = byte_tokenizer.encode("A")[0], second
    for wishes in ([first], [capital, second], [stray] * 2, [stray], [stray], [capital, stray]):
        logits = torch.zeros(1, 259)
        for i, wish in enumerate(wishes):
            logits[0, wish] = 9 - i
        chooser.take(logits, [answer])
        (beam,) = answer.live
        if len(beam.ids) == 2:
            assert beam.text == "đ" and beam.held
    assert beam.ids == [first, second, stray, stray, stray, capital]
    assert not beam.held, "three stray bytes can never become an allowed letter"


def test_progress_counts_every_answer_once(tokenizer: Any) -> None:
    for kind in ("llama", "gemma3"):
        done: list[int] = []
        generate(tiny(kind), tokenizer, some_prompts(2, 6), Generate(max_new_tokens=4), {256}, progress=done.append)
        assert sum(done) == 12


def test_wrong_arguments_are_refused(tokenizer: Any) -> None:
    model = tiny("llama")
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate(model, tokenizer, [[1], []], Generate(), {256})
    with pytest.raises(ValueError, match="no end token"):
        generate(model, tokenizer, [[1]], Generate(), set())
    with pytest.raises(ValueError, match="1 constraints for 2 prompts"):
        generate(model, tokenizer, [[1], [2]], Generate(), {256}, constraints=[None])
    assert generate(model, tokenizer, [], Generate(), {256}) == []


def test_end_tokens_come_from_tokenizer_model_and_settings(tokenizer: Any) -> None:
    model = tiny("llama")
    model.generation_config.eos_token_id = [256, 12]
    assert end_ids_of(model, tokenizer, "<pad>") == {256, 12, 258}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.manual_seed(0)
    yield


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=6)), max_size=30))
def test_groups_hold_every_prompt_once_and_share_what_they_say(drawn: list[tuple[int, list[int]]]) -> None:
    prompts = [[schema] * 30 * schema + own for schema, own in drawn]
    groups = plan(prompts)
    assert sorted(i for group in groups for i in group.members) == list(range(len(prompts)))
    for group in groups:
        starts = {tuple(prompts[i][: group.prefix]) for i in group.members}
        assert len(starts) == 1
        assert all(len(prompts[i]) > group.prefix for i in group.members)


def test_each_schema_is_a_group_and_what_is_alone_is_put_together() -> None:
    rng = random.Random(0)
    system = [rng.randrange(100) for _ in range(8)]
    long, short = ([system + [rng.randrange(100) for _ in range(n)] for _ in range(1)][0] for n in (400, 60))
    prompts = [long + [i, 7] for i in range(5)] + [short + [i, 7] for i in range(5)] + [system + [i] for i in range(2)]
    groups = plan(prompts)
    assert [(group.prefix, len(group.members)) for group in groups] == [(408, 5), (68, 5), (0, 2)]
