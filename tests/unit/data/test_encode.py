from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

from tunesmith.data.encode import Encoder

SHARED = "<|im_start|>system\nThe quick brown fox, 日本.<|im_end|>\n<|im_start|>user\n"
TEXTS = [SHARED + f" How many {n}?<|im_end|>\n<|im_start|>assistant\n {n} giờ<|im_end|>\n" for n in range(9)] + [
    "", "no special token", "<|im_end|>", "text before <|im_start|><|im_end|>", SHARED,
]  # fmt: skip


def encoder(tokenizer: Any) -> Encoder:
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    return Encoder(tokenizer.backend_tokenizer.to_str(), special)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_encoding_what_is_shared_once_changes_no_id_and_no_place(make_tokenizer: Any, kind: str) -> None:
    tokenizer = make_tokenizer("chatml", kind)
    together = encoder(tokenizer).encode_batch(TEXTS)
    for text, encoded in zip(TEXTS, together, strict=True):
        alone = encoder(tokenizer).encode(text)
        assert encoded.ids.tolist() == alone.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [encoded.token_at(at) for at in range(len(text))] == [alone.token_at(at) for at in range(len(text))]
        starts = [encoded.start_of(token) for token in range(len(encoded.ids))]
        assert starts == [alone.start_of(token) for token in range(len(alone.ids))]


def test_a_tokenizer_that_was_left_padding_does_not_pad_here(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    tokenizer(["a", "b c d e"], padding=True)
    assert [len(one.ids) for one in encoder(tokenizer).encode_batch(["a", "b c d e"])][0] == 1


def test_a_normaliser_and_added_words_change_nothing(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml", "metaspace")
    # A normaliser and a token of several characters, both of which look at what stands around a special token.
    tokenizer.add_tokens([AddedToken(" many", special=False)])
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    texts = [f"<|im_start|>a {n} <|im_end|> many" for n in range(4)]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [one.ids.tolist() for one in encoder(tokenizer).encode_batch(texts)] == alone


SCHEMA = "\n".join(f"CREATE TABLE clinic_{n} (id integer, town text, note text, price numeric);" for n in range(12))


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("joint", ["\n\nHow many ", " and ", "", "\n", "日本 ", "  ", "_"])
def test_a_beginning_that_no_special_token_closes_is_encoded_once(make_tokenizer: Any, kind: str, joint: str) -> None:
    tokenizer = make_tokenizer("mistral", kind)
    texts = [f"<s> [INST] {SCHEMA}{joint}{n}{word}</s>" for n, word in enumerate(["", " dogs", "s", "\n", "giờ"] * 4)]
    texts += [f"<s> [INST] {SCHEMA.replace('town', 'city')}{joint}{n}</s>" for n in range(4)] + [SCHEMA, SCHEMA[:500]]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for together in (encoder(tokenizer), fresh := encoder(tokenizer)):
        for batch in (texts[:7], texts[7:9], texts):
            found = together.encode_batch(batch)
            wanted = [alone[texts.index(text)] for text in batch]
            assert [one.ids.tolist() for one in found] == wanted
    text, one = texts[3], fresh.encode_batch(texts)[3]
    whole = fresh.encode(text)
    assert [one.token_at(at) for at in range(len(text))] == [whole.token_at(at) for at in range(len(text))]
    assert any(known is not None for known in fresh._beginnings.values())


def test_a_beginning_is_encoded_once_for_all_batches(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("mistral")
    made, encoded = encoder(tokenizer), []
    plain = made._plain
    made._plain = lambda texts: encoded.extend(texts) or plain(texts)  # type: ignore[method-assign, func-returns-value]
    for batch in range(5):
        made.encode_batch([f"{SCHEMA}\n\nQuestion {batch}{n}" for n in range(10)])
    # The first batch is encoded both ways, in part.
    assert sum(text.startswith(SCHEMA) for text in encoded) <= 10


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["bytes", "metaspace"]),
    start=st.text(alphabet="ab é日\n .,_1'", max_size=30),
    ends=st.lists(st.text(alphabet="ab é日\n .,_1'", max_size=12), min_size=2, max_size=6),
)
def test_whatever_follows_a_common_beginning_no_id_changes(
    make_tokenizer: Any, kind: str, start: str, ends: list[str]
) -> None:
    tokenizer = make_tokenizer("mistral", kind)
    texts = [f"{SCHEMA}{start}{end}" for end in ends]
    together = encoder(tokenizer)
    together.encode_batch([f"{SCHEMA} {n}" for n in range(3)])  # which is when both ways are compared
    found = together.encode_batch(texts)
    assert [one.ids.tolist() for one in found] == tokenizer(texts, add_special_tokens=False)["input_ids"]


def unchanged(tokenizer: Any) -> None:
    """As it is made."""


def composed(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])


def stripped(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()


def emptied(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("b", "")


def collapsed(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")


def preceded(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def removed(tokenizer: Any) -> None:
    split = pre_tokenizers.Split(" ", "removed")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False)])


def swallowing(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True, rstrip=True)])


def same_places(made: Encoder, text: str) -> None:
    wanted = made.tokenizer.encode(text, add_special_tokens=False)
    for at in range(len(text)):
        (encoded,) = made.encode_batch([text])
        token = encoded.token_at(at)
        assert token == wanted.char_to_token(at)
        if token is not None:
            assert encoded.start_of(token) == wanted.token_to_chars(token)[0]
        made._with_places = not made._spells  # as for the first text


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("change", [unchanged, composed, stripped, emptied, collapsed, preceded, removed, swallowing])
@pytest.mark.parametrize("text", ["bab", " a b", "<|turn|>  a", "<|im_start|>e\u0301B日", "<|im_start|> b a"])
def test_a_tokenizer_that_leaves_out_or_adds_is_asked_for_places(
    make_tokenizer: Any, kind: str, change: Any, text: str
) -> None:
    tokenizer = make_tokenizer("chatml", kind)
    change(tokenizer)
    same_places(encoder(tokenizer), text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["bytes", "metaspace"]),
    change=st.sampled_from([unchanged, composed, stripped, emptied, collapsed, preceded, removed, swallowing]),
    text=st.lists(st.sampled_from([*"ab é日B \n_1", "\u0301", "<|im_start|>", "<|turn|>", "the "]), max_size=12),
)
def test_a_place_told_from_ids_is_where_the_tokenizer_puts_it(
    make_tokenizer: Any, kind: str, change: Any, text: list[str]
) -> None:
    tokenizer = make_tokenizer("chatml", kind)
    change(tokenizer)
    same_places(encoder(tokenizer), "".join(text))


def test_places_are_told_from_ids_where_tokens_spell_the_text(make_tokenizer: Any) -> None:
    made = encoder(make_tokenizer("chatml"))
    texts = [f"<|im_start|>assistant\n {n} cats<|im_end|>" for n in range(9)]
    for encoded in made.encode_batch(texts):
        assert encoded.start_of(encoded.token_at(len("<|im_start|>assistant\n"))) == len("<|im_start|>assistant\n")
    assert not made._with_places
    encoded.token_at(len(texts[0]) - 20)
    assert made._with_places
