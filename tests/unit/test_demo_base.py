"""The base model that ships, and the made-up data it was trained on."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src" / "tunesmith" / "demo_base"
TABLE = re.compile(r"CREATE TABLE\s+(\w+)\s*\((.*?)\n\);", re.S | re.I)

needs_weights = pytest.mark.skipif(not (FOLDER / "model.safetensors").exists(), reason="the base is not trained yet")


@pytest.fixture(scope="module")
def scripts() -> ModuleType:
    """The training script's row maker: its folder holds a package of its own, outside the library."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from demo_base import rows
    finally:
        sys.path.pop(0)
    return rows


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


# U+2581 stands for the space inside the vocabulary, so it is the one character that does not come back.
_TEXT = st.text(alphabet=st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=80)


@given(
    text=_TEXT | st.sampled_from(["a  b\n\n c ", " Xin chào,  1.250.000 đồng ", "SELECT COUNT(*) FROM x", "日本 🎉"])
)
@settings(max_examples=150, deadline=None)
def test_text_comes_back_from_the_tokenizer_as_it_went_in(text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_padding_is_its_own_token_and_never_the_end(tokenizer: Any) -> None:
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)
    assert len(tokenizer) == 4096


def test_a_name_has_the_same_pieces_in_schema_question_and_query(tokenizer: Any) -> None:
    def pieces(text: str) -> list[str]:
        return tokenizer.tokenize(text)

    name = pieces("zorvibrand")
    assert len(name) > 1
    for text in ("zorvibrand(id int pk)", "List all zorvibrands.", " FROM zorvibrand WHERE x = 'zorvibrand'"):
        found = pieces(text)
        assert any(found[i : i + len(name)] == name for i in range(len(found)))


def test_no_merge_crosses_a_word_so_that_a_pre_tokenizer_would_change_nothing(tokenizer: Any) -> None:
    model = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["model"]
    joined = ["".join(merge if isinstance(merge, list) else merge.split(" ")) for merge in model["merges"]]
    assert joined
    assert all(re.fullmatch(r"[^\W\d_]+", piece) for piece in joined)
    assert not any(piece.lower().endswith("s") for piece in joined)


def test_finding_the_longest_added_piece_first_gives_the_same_ids(tokenizer: Any, scripts: ModuleType) -> None:
    """llama.cpp cuts out the longest added pieces first, Hugging Face the leftmost: on prompts they must agree."""
    from tokenizers import Tokenizer

    added = tokenizer.get_added_vocab()
    longest = sorted(added, key=len, reverse=True)
    bare = json.loads((FOLDER / "tokenizer.json").read_text("utf-8")) | {"added_tokens": []}
    inside = Tokenizer.from_str(json.dumps(bare))

    def as_llama_cpp(text: str) -> list[int]:
        parts: list[str | int] = [text]
        for piece in longest:
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, int):
                    cut.append(part)
                    continue
                for i, rest in enumerate(part.split(piece)):
                    cut += [added[piece]] * bool(i) + [rest] * bool(rest)
            parts = cut
        return [
            i for p in parts for i in ([p] if isinstance(p, int) else inside.encode(p, add_special_tokens=False).ids)
        ]

    rng = random.Random(0)
    texts = []
    for _ in range(100):  # enough to tell one per cent from two
        db = scripts.database(rng, rich=0.7)
        texts += [
            scripts.prefix_text(db, rng),
            *(f"{p.question} [/INST] {p.sql}</s>" for p in scripts.pairs(db, rng, 6)),
        ]
    differing = [t for t in texts if as_llama_cpp(t) != tokenizer(t, add_special_tokens=False)["input_ids"]]
    assert len(differing) <= len(texts) * 0.02, differing[:3]


_SYSTEM = {"role": "system", "content": "Write one PostgreSQL query.\n\nt(id int pk)"}
_USER = {"role": "user", "content": "How many t?"}
_ANSWER = {"role": "assistant", "content": "SELECT COUNT(*) FROM t"}


def test_the_template_writes_what_the_base_was_trained_on(tokenizer: Any) -> None:
    turns = [_SYSTEM, _USER, _ANSWER, {"role": "user", "content": "And now?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<s>[INST] Write one PostgreSQL query.\n\nt(id int pk)\n\nHow many t? [/INST] SELECT COUNT(*) FROM t</s>"
        "[INST] And now? [/INST]"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids == tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, add_generation_prompt=True)


def test_the_template_and_the_training_rows_agree(tokenizer: Any, scripts: ModuleType) -> None:
    turns = [(m["role"], m["content"]) for m in (_SYSTEM, _USER, _ANSWER)]
    joined = "".join(text for text, _ in scripts.turn_texts(turns))
    assert joined == tokenizer.apply_chat_template([_SYSTEM, _USER, _ANSWER], tokenize=False)


@pytest.mark.parametrize(
    "turns",
    [[_ANSWER], [_USER, _USER], [_USER, _SYSTEM], [_SYSTEM]],
    ids=["answer first", "two questions", "late system", "only system"],
)
def test_the_template_refuses_roles_in_the_wrong_order(tokenizer: Any, turns: list[dict[str, str]]) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        tokenizer.apply_chat_template(turns, tokenize=False)


def test_the_template_refuses_to_answer_an_answer(tokenizer: Any) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        tokenizer.apply_chat_template([_USER, _ANSWER], tokenize=False, add_generation_prompt=True)


def test_a_row_sees_only_its_schema_and_itself(tokenizer: Any, scripts: ModuleType) -> None:
    """Read along any path of the tree, a row is the text of the chat template, and answers carry their end token."""
    rng = random.Random(3)
    made = (scripts.sql_row(tokenizer.backend_tokenizer, rng) for _ in range(50))
    row = next(row for row in made if row is not None)
    ends = [i for i, (label, sort) in enumerate(zip(row["labels"], row["sorts"], strict=True)) if sort and label == 2]
    assert len(ends) == len(row["kinds"])
    for last in ends:
        path = [j for j in range(last + 1) if row["end"][j] >= last]
        assert [row["position"][j] for j in path] == list(range(len(path)))
        text = tokenizer.decode([row["ids"][j] for j in path])
        assert re.fullmatch(
            r"<s>\[INST\] Write one PostgreSQL query\.\n\n.+\n\n.+ \[/INST\] (SELECT|WITH) .+", text, re.S
        )


def test_the_same_seed_makes_the_same_rows(tokenizer: Any, scripts: ModuleType) -> None:
    first, second = (next(scripts.rows(tokenizer.backend_tokenizer, 11)) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in ("ids", "labels", "position", "end"))


def test_the_folder_is_small_enough_for_a_wheel() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 15_000_000


@needs_weights
def test_the_model_loads_offline_and_its_logits_are_finite(tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert type(model).__name__ == "MistralForCausalLM"
    assert model.config.sliding_window is None
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    ids = tokenizer.apply_chat_template(
        [_SYSTEM, _USER], return_dict=False, return_tensors="pt", add_generation_prompt=True
    )
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert torch.isfinite(logits).all()
    made = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(made, skip_special_tokens=True).strip().startswith("SELECT COUNT(*) FROM t")


def test_the_training_network_computes_what_transformers_computes(scripts: ModuleType) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from demo_base import network, shipped

    shape = network.Shape(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, head_dim=8, intermediate_size=40
    )
    torch.manual_seed(0)
    mine = network.Network(shape)
    for weight in mine.parameters():
        weight.data = weight.data.bfloat16().float()
    settings_ = {
        k: v for k, v in shipped.mistral_config(shape).items() if k not in {"architectures", "dtype", "model_type"}
    }
    theirs = MistralForCausalLM(MistralConfig(**settings_)).eval()
    state = {name: weight.float() for name, weight in shipped.hugging_face_state(mine).items()}
    theirs.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    ids = torch.randint(0, 97, (2, 17))
    position = torch.arange(17).expand(2, 17)
    with torch.no_grad():
        hidden = mine(ids, position, network.tree_mask(torch.full((2, 17), 16)))
        torch.testing.assert_close(mine.head(hidden), theirs(input_ids=ids).logits, atol=2e-5, rtol=1e-4)


def _normal(text: str) -> str:
    return " ".join(re.findall(r"[\w'%.*<>=]+", text.lower()))


NAME = re.compile(r"\b[a-z_]{2,}\b")
"""A table or a column: key words are in capitals in our queries."""
EXAMPLES = sorted(path.parent for path in (ROOT / "recipes" / "sql").glob("*/*.sql"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=[folder.name for folder in EXAMPLES])
def test_the_base_never_saw_an_example_database(folder: Path, scripts: ModuleType) -> None:
    """No table with these columns, and no question, is among what the generator makes (a sample of it).

    A whole query may coincide only where it says next to nothing: no value, no more names than a table and a column.
    """
    rng = random.Random(77)
    tables: set[frozenset[str]] = set()
    questions: set[str] = set()
    queries: set[str] = set()
    for _ in range(250):
        db = scripts.database(rng, rich=0.8)
        tables |= {frozenset((t.name, *(c.name for c in t.columns))) for t in db.schema.tables}
        for pair in scripts.pairs(db, rng, 8):
            questions.add(_normal(pair.question))
            queries.add(_normal(pair.sql))
    assert len(questions) > 1000
    defined = {
        frozenset((name, *re.findall(r"^\s*(\w+)\s", body, re.M)))
        - {"PRIMARY", "FOREIGN", "UNIQUE", "CHECK", "CONSTRAINT"}
        for path in folder.glob("*.sql")
        for name, body in TABLE.findall(path.read_text("utf-8"))
    }
    assert defined
    assert not defined & tables
    records = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    asked = {_normal(record["question"]) for record in records if "question" in record}
    shared = len(asked & questions)  # counted, not shown: half of the questions are sealed
    assert shared == 0
    telling = [r["sql"] for r in records if "sql" in r and ("'" in r["sql"] or len(set(NAME.findall(r["sql"]))) > 2)]
    assert len(telling) > 150
    assert not [sql for sql in map(_normal, telling) if sql in queries]
