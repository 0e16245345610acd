"""The lexicon: what it learns, what it says of answers, and that it comes back from the disk as it was."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import StorageError
from tunesmith.generate.lexicon import Lexicon, pieces

NOUNS = {"dogs": "dog", "cats": "cat", "birds": "bird", "mice": "mouse"}
TOWNS = ("Cork", "Sligo", "Ennis")
PAIRS = [
    (f"{opener} {asked} in {town}?", f"SELECT {what} FROM pets WHERE species = '{noun}' AND city = '{town}'")
    for asked, noun in NOUNS.items()
    for town in TOWNS
    for opener, what in (("How many", "COUNT(*)"), ("Names of the", "name"), ("Average weight of", "AVG(weight)"))
]


def answer(what: str, noun: str = "dog") -> str:
    return f"SELECT {what} FROM pets WHERE species = '{noun}' AND city = 'Cork'"


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.learn(PAIRS * 4, seed=1, data="some")


def test_pieces_are_words_and_pairs_with_values_as_one() -> None:
    assert pieces("How many? 1,250 or 3") == {
        "how", "many", "?", "0", "or", "^ how", "how many", "many ?", "? 0", "0 or", "or 0", "0 $",
    }  # fmt: skip
    assert pieces("a = 'It''s Cork' AND b <> 'x'") == pieces("a = 'Sligo' and b <> 'It''s'")
    assert "vet" in pieces("the vet's dog and the owner's cat"), "an apostrophe opens no quotation"
    assert pieces("x2 = 7") == pieces("x2 = 8.5") != pieces("x3 = 7")
    assert pieces("one\ntwo") == {"one", "two", "^ one", "one $", "^ two", "two $"}, "lines do not run into each other"
    assert pieces("bao nhiêu học sinh") >= {"nhiêu", "học sinh"}
    assert pieces("") == set()


@pytest.mark.parametrize(
    ("question", "right"),
    [
        ("How many dogs in Cork?", "COUNT(*)"),
        ("Average weight of mice in Cork?", "AVG(weight)"),
        ("Names of the cats in Galway?", "name"),
        ("so how many newts in Galway", "COUNT(*)"),
        ("avergae weihgt of birds", "AVG(weight)"),
    ],
)
def test_the_words_of_a_question_tell_which_answer_it_wants(lexicon: Lexicon, question: str, right: str) -> None:
    offered = [answer(what) for what in ("COUNT(*)", "name", "AVG(weight)")]
    nats = lexicon.weigh(question, offered)
    assert max(zip(nats, offered, strict=True))[1] == answer(right)
    assert all(one < 0 for one in nats), "logarithms of probabilities"


def test_what_it_says_is_the_probability_of_all_pieces_together(lexicon: Lexicon) -> None:
    """Every answer that has some of the pieces and lacks the others, one by one: their probabilities sum to 1."""
    few = Lexicon.learn([("a b", "x"), ("b", "y x"), ("a", "y"), ("b b", "x"), ("a a", "y")] * 3, seed=0)
    columns = list(few._written)
    assert len(columns) > 4
    odds = few._prior + sum(few._weights[few._asked[piece]] for piece in pieces("a b") if piece in few._asked)
    total = 0.0
    for chosen in itertools.product((False, True), repeat=len(columns)):
        total += math.prod(
            float(o.sigmoid()) if has else 1 - float(o.sigmoid()) for o, has in zip(odds, chosen, strict=True)
        )
    assert total == pytest.approx(1)
    has = [column in pieces("y x") for column in columns]
    expected = sum(
        math.log(float(o.sigmoid()) if h else 1 - float(o.sigmoid())) for o, h in zip(odds, has, strict=True)
    )
    assert few.weigh("a b", ["y x"])[0] == pytest.approx(expected, rel=1e-5)


def test_a_question_without_a_known_word_gets_the_prior(lexicon: Lexicon) -> None:
    nats = lexicon.weigh("zzz", [answer("COUNT(*)"), answer("COUNT(*), name")])
    assert nats[0] > nats[1]
    assert all(math.isfinite(one) for one in lexicon.weigh("", ["", "unheard of"]))


@pytest.mark.parametrize("pairs", [[("", "")], [("a", "b")], [("a", "b")] * 3, [("", "b c")] * 3 + [("a", "")] * 4])
def test_hardly_anything_to_learn_from_is_no_error(pairs: list[tuple[str, str]]) -> None:
    little = Lexicon.learn(pairs, seed=0)
    assert all(math.isfinite(nats) for nats in little.weigh("a b", ["b", "c", ""]))


def test_the_same_pairs_and_seed_give_the_same_weights(lexicon: Lexicon, tmp_path: Path) -> None:
    again = Lexicon.learn(PAIRS * 4, seed=1, data="some")
    for name, one in (("a", lexicon), ("b", again)):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_it_comes_back_as_it_was(lexicon: Lexicon, tmp_path: Path) -> None:
    lexicon.save(tmp_path / "lexicon.safetensors")
    back = Lexicon.load(tmp_path / "lexicon.safetensors")
    offered = [answer(what, noun) for what in ("COUNT(*)", "name") for noun in NOUNS.values()]
    assert back.weigh("How many cats?", offered) == lexicon.weigh("How many cats?", offered)
    assert (back.size, back.data) == (lexicon.size, "some")
    assert [path.name for path in tmp_path.iterdir()] == ["lexicon.safetensors"], "no draft is left"


def test_where_it_cannot_be_written_is_said_and_nothing_is_left(
    lexicon: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="cannot be written") as caught:
        lexicon.save(tmp_path / "no folder" / "lexicon.safetensors")
    assert "same command" in caught.value.remedy

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        lexicon.save(tmp_path / "lexicon.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a lexicon", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lexicon.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is no lexicon") as caught:
        Lexicon.load(path)
    assert caught.value.place == str(path)
    assert "delete it" in caught.value.remedy
