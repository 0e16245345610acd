from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.data import identity
from tunesmith.data.ledger import Dropped, Ledger
from tunesmith.data.prepare import Prepared, prepare_dataset
from tunesmith.data.splits import assign_split
from tunesmith.errors import DataError
from tunesmith.types import IGNORE, Constraint, Example, Message, Record, Score


class Counting:
    """A task that asks how many of something there are."""

    name = "counting"
    version = "1"

    def __init__(self) -> None:
        self.asked = 0

    def examples(self, record: Record) -> Iterator[Example]:
        self.asked += 1
        if "what" not in record.fields:
            raise DataError("the record does not say what to count", place=record.place)
        for phrase in ("How many {}?", "Count the {}."):
            yield Example(
                id=f"{record.id}-{phrase[0]}",
                messages=(
                    Message("system", "Answer with one query."),
                    Message("user", phrase.format(record.fields["what"])),
                    Message("assistant", f"SELECT count(*) FROM {record.fields['what']};", train=True),
                ),
                target="4",
                group=record.fields.get("group", ""),
                meta={"n": [1, 2]},
            )

    def grade(self, example: Example, completion: str) -> Score:
        raise AssertionError("nothing is graded")

    def constraint(self, example: Example) -> Constraint | None:
        return None

    def close(self) -> None:
        pass


Run = Callable[..., Prepared]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def run(make_tokenizer: Any, tmp_path: Path) -> Run:
    def run(
        data: dict[str, Any], task: Any = None, tokenizer: Any = None, section: Any = None, **settings: Any
    ) -> Prepared:
        config = RunConfig.model_validate(
            {"task": section or "my_module:MyTask", "model": {"name": "demo"}, "data": data, **settings}
        )
        return prepare_dataset(
            config,
            task or Counting(),
            tokenizer or make_tokenizer(),
            cache_dir=tmp_path / "cache",
            ledger_path=tmp_path / "run" / "ledger.jsonl",
        )

    return run


def things(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"what": f"thing{n}", **fields} for n in range(count)]


def test_records_become_rows_and_every_one_is_accounted_for(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*things(100), {"other": 1}])
    test = write(tmp_path / "exam.jsonl", [{"what": "exam"}])
    prepared = run({"train": str(train), "test": {"exam": str(test)}, "validation_share": 0.2})
    ledger = prepared.ledger
    assert ledger.rows == 203 == ledger.trained + ledger.validation + ledger.test + ledger.dropped
    assert (ledger.test, ledger.dropped, dict(ledger.reasons)) == (2, 1, {"the task refuses": 1})
    assert len(prepared.train) == ledger.trained and len(prepared.validation) == ledger.validation > 20
    assert f"{train}:101" in ledger.text() and ledger.figures()["rows"] == 203
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == 203 and {line["outcome"] for line in lines} == {"trained", "validation", "test", "dropped"}
    [example, _] = prepared.tests["exam"]
    assert (example.target, example.meta, example.place) == ("4", {"n": [1, 2]}, f"{test}:1")
    tokens, made_of = prepared.train[3], prepared.train.example(3)
    assert tokens.id == made_of.id and made_of.messages[-1].train
    assert prepared.train.lengths[3] == len(tokens.input_ids)
    assert prepared.train.label_counts.tolist() == [(t.labels != IGNORE).sum() for t in prepared.train]
    assert len(prepared.validation_examples) == len(prepared.validation)


def test_a_second_run_reads_nothing_and_gives_the_same(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", things(50))
    first, task = run({"train": str(train)}), Counting()
    (tmp_path / "run" / "ledger.jsonl").unlink()
    second = run({"train": str(train)}, task)
    assert task.asked == 0 and second.key == first.key
    assert second.ledger == first.ledger and second.findings == first.findings
    assert [t.input_ids.tolist() for t in second.train] == [t.input_ids.tolist() for t in first.train]
    assert (tmp_path / "run" / "ledger.jsonl").exists()


def test_the_same_bytes_elsewhere_are_the_same_data(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one = write(tmp_path / "train.jsonl", things(50))
    two = write(tmp_path / "elsewhere" / "train.jsonl", things(50))
    assert run({"train": str(one)}).key == run({"train": str(two)}).key


def changed_bytes(case: dict[str, Any]) -> None:
    path = Path(case["data"]["train"])
    path.write_text(path.read_text().replace("thing7", "thingX"))


def changed_tokenizer(case: dict[str, Any]) -> None:
    case["tokenizer"].add_tokens(["fox"])


def changed_template(case: dict[str, Any]) -> None:
    case["tokenizer"].chat_template += "{# another #}"


def changed_version(case: dict[str, Any]) -> None:
    case["task"].version = "2"


def changed_eos(case: dict[str, Any]) -> None:
    case["tokenizer"].eos_token = "</s>"


def changed_file_of_the_task(case: dict[str, Any]) -> None:
    Path(case["task_options"]["sql"]["databases"]["shop"]).write_text("CREATE TABLE other ();")


def setting(section: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(case: dict[str, Any]) -> None:
        case.setdefault(section, {}).update(values)

    return change


MUTATIONS = {
    "a byte of a source": changed_bytes,
    "the tokenizer": changed_tokenizer,
    "the template": changed_template,
    "the end of an answer": changed_eos,
    "the task's version": changed_version,
    "a file the task reads": changed_file_of_the_task,
    "max_length": setting("data", max_length=1000),
    "too_long": setting("data", too_long="drop"),
    "validation_share": setting("data", validation_share=0.5),
    "max_samples": setting("source", max_samples=10),
    "the seed": setting("settings", seed=1),
}


@pytest.mark.parametrize("name", [*MUTATIONS, "nothing"])
def test_the_cache_key_changes_with_everything_rows_depend_on_and_nothing_else(
    name: str, run: Run, make_tokenizer: Any, tmp_path: Path
) -> None:
    train = write(tmp_path / "train.jsonl", things(30))
    (tmp_path / "shop.sql").write_text("CREATE TABLE shop ();")
    keys = []
    for mutated in (False, True):
        case: dict[str, Any] = {
            "data": {"train": str(train)},
            "source": {"path": str(train)},
            "tokenizer": make_tokenizer(),
            "task": Counting(),
            "settings": {},
            "task_options": {"sql": {"databases": {"shop": str(tmp_path / "shop.sql")}}},
        }
        if mutated and name != "nothing":
            MUTATIONS[name](case)
        data = {**case["data"], "train": case["source"]}
        task_section = {"name": "sql", **case["task_options"]["sql"]}
        # Settings that rows do not depend on must not make a new entry.
        other = {"train": {"learning_rate": 1e-3 if mutated else 1e-4}, "name": "b" if mutated else "a"}
        keys.append(run(data, case["task"], case["tokenizer"], task_section, **other, **case["settings"]).key)
    assert (keys[0] == keys[1]) == (name == "nothing")


def test_other_code_makes_another_key(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write(tmp_path / "train.jsonl", things(30))
    before = run({"train": str(train)}).key
    monkeypatch.setattr(identity, "FORMAT", identity.FORMAT + 1)
    assert run({"train": str(train)}).key != before


@pytest.mark.parametrize("damage", ["manifest", "cut", "missing"])
def test_a_torn_entry_is_built_again(run: Run, tmp_path: Path, damage: str) -> None:
    train = write(tmp_path / "train.jsonl", things(30))
    first = run({"train": str(train)})
    rows = [t.input_ids.tolist() for t in first.train]
    entry = tmp_path / "cache" / first.key
    if damage == "manifest":
        (entry / "MANIFEST.json").write_text('{"sizes": {')
    elif damage == "cut":
        (entry / "train.ids").write_bytes((entry / "train.ids").read_bytes()[:-4])
    else:
        (entry / "examples.jsonl").unlink()
    task = Counting()
    assert [t.input_ids.tolist() for t in run({"train": str(train)}, task).train] == rows
    assert task.asked == 30


def test_a_stopped_build_leaves_no_entry(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"what": "x " * 5000}])
    with pytest.raises(DataError, match="data.max_length"):
        run({"train": str(train)})
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_rows_survive_pickling_for_loader_processes(run: Run, tmp_path: Path) -> None:
    prepared = run({"train": str(write(tmp_path / "train.jsonl", things(30)))})
    again = pickle.loads(pickle.dumps(prepared.train))
    assert (again[5].input_ids == prepared.train[5].input_ids).all() and len(again) == len(prepared.train)
    assert [one.id for one in again[2:4]] == [prepared.train[2].id, prepared.train[3].id]
    assert again[-1].id == prepared.train[len(again) - 1].id
    with pytest.raises(IndexError):
        again[len(again)]


def test_a_group_never_straddles_the_split(run: Run, tmp_path: Path) -> None:
    records = [{"what": f"thing{n}", "group": f"database{n % 10}"} for n in range(100)]
    prepared = run({"train": str(write(tmp_path / "train.jsonl", records)), "validation_share": 0.3})
    sides = [{one.example(at).group for at in range(len(one))} for one in (prepared.train, prepared.validation)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_one_group_alone_is_split_by_question_and_said(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", things(100, group="the only database"))
    prepared = run({"train": str(train), "validation_share": 0.2})
    assert len(prepared.train) and len(prepared.validation)
    assert [finding.check for finding in prepared.findings if finding.level == "warning"] == ["split"]


def test_the_split_does_not_depend_on_order_and_keeps_its_share() -> None:
    sides = {str(n): assign_split(str(n), 3, {"validation": 0.2, "test": 0.1}) for n in range(5000)}
    assert {name: assign_split(name, 3, {"validation": 0.2, "test": 0.1}) for name in reversed(sides)} == sides
    counts = {side: list(sides.values()).count(side) / 5000 for side in ("train", "validation", "test")}
    assert counts["validation"] == pytest.approx(0.2, abs=0.02) and counts["test"] == pytest.approx(0.1, abs=0.02)
    assert sides != {str(n): assign_split(str(n), 4, {"validation": 0.2, "test": 0.1}) for n in range(5000)}


def test_a_validation_set_of_ones_own_is_used_whole(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", things(20))
    held = write(tmp_path / "held.jsonl", [{"what": "thing3"}, {"what": "other"}])
    prepared = run({"train": str(train), "validation": str(held)})
    assert (len(prepared.train), len(prepared.validation)) == (38, 4)
    assert dict(prepared.ledger.reasons) == {"leak": 2}


def test_a_shortened_prompt_is_in_the_ledger_and_in_the_example(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*things(5), {"what": "cats " * 100 + "dogs"}])
    prepared = run({"train": str(train), "max_length": 1000, "too_long": "shorten_prompt", "validation_share": 0})
    assert prepared.ledger.notes == {}
    asked = [{"messages": [{"role": "user", "content": "cats " * 900}, {"role": "assistant", "content": "Four."}]}]
    write(train, asked)
    prepared = run({"train": str(train), "max_length": 300, "too_long": "shorten_prompt", "validation_share": 0})
    assert prepared.ledger.notes == {"prompt shortened": 1} and prepared.train.lengths.tolist() == [300]
    assert len(prepared.train.example(0).messages[0].content) < 4000
    [line] = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    assert "tokens cut off the start of turn 1" in json.loads(line)["detail"]


def test_records_of_no_known_shape_are_refused_for_chat(run: Run, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"question": "a", "reply": "b"}])
    with pytest.raises(DataError, match="their keys are: question, reply") as caught:
        run({"train": str(train)}, section={"name": "chat"})
    assert caught.value.place == f"{train}:1"


def test_an_entry_of_another_machine_can_be_moved(run: Run, tmp_path: Path) -> None:
    prepared = run({"train": str(write(tmp_path / "train.jsonl", things(30)))})
    moved = tmp_path / "moved"
    shutil.copytree(prepared.train.folder, moved)
    from tunesmith.data.cache import TokensDataset

    assert np.array_equal(TokensDataset(moved, "train")[0].input_ids, prepared.train[0].input_ids)


def test_a_ledger_that_does_not_add_up_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="2 rows came in, 1 were accounted for"), Ledger(None) as ledger:
        ledger.admit("train", 2)
        ledger.drop(Dropped("a:1", "broken JSON"), "train")
