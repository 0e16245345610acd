from __future__ import annotations

from typing import Any

import pytest

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
    from tokenizers import AddedToken, normalizers

    tokenizer = make_tokenizer("chatml", "metaspace")
    # A normaliser and a token of several characters, both of which look at what stands around a special token.
    tokenizer.add_tokens([AddedToken(" many", special=False)])
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    texts = [f"<|im_start|>a {n} <|im_end|> many" for n in range(4)]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [one.ids.tolist() for one in encoder(tokenizer).encode_batch(texts)] == alone
