"""D1-D40: every kind of broken data, and what is said about it: place, reason, and which rows survive."""

from __future__ import annotations

import gzip
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tunesmith.config.schema import RunConfig, Source
from tunesmith.data.ledger import Dropped
from tunesmith.data.prepare import Prepared, prepare_dataset
from tunesmith.data.sources import read_records
from tunesmith.errors import DataError
from tunesmith.types import Constraint, Example, Record, Score


class NoTask:
    """Conversations need no task."""

    name = "chat"
    version = "1"

    def examples(self, record: Record) -> Iterator[Example]:
        raise AssertionError("these records are conversations")

    def grade(self, example: Example, completion: str) -> Score:
        raise AssertionError("nothing is graded")

    def constraint(self, example: Example) -> Constraint | None:
        return None

    def close(self) -> None:
        pass


def turns(question: str = "How many cats?", answer: str = "Four.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def line(question: str = "How many cats?", answer: str = "Four.") -> bytes:
    return json.dumps(turns(question, answer)).encode() + b"\n"


def messages(*items: Any) -> bytes:
    return json.dumps({"messages": list(items)}).encode() + b"\n"


GOOD = [line("one?"), line("two?"), line("three?")]
ALL = b"".join(GOOD)
USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


def third(bad: bytes) -> bytes:
    """Two good lines, the bad one, a good one."""
    return GOOD[0] + GOOD[1] + bad + GOOD[2]


class Case(NamedTuple):
    content: bytes
    rows: int | None
    """Rows that survive; None: the run stops."""
    line: int = 0
    """Line of the complaint; 0: the file, or none."""
    says: str = ""


CASES = {
    "D1 empty file": Case(b"", None, says="holds no records"),
    "D2 only blank lines": Case(b"\n  \n\r\n", None, says="holds no records"),
    "D3 truncated last line": Case(ALL + line("four?")[:40], 3, 4, "cut off: the file ends inside this record"),
    "D4 broken JSON": Case(third(b'{"messages": [}\n'), 3, 3, "broken JSON"),
    "D5 trailing comma": Case(third(b'{"messages": [],}\n'), 3, 3, "comma before the closing bracket"),
    "D6 single quotes": Case(third(b"{'messages': []}\n"), 3, 3, "double quotes"),
    "D7 NaN": Case(third(b'{"messages": [], "score": NaN}\n'), 3, 3, "NaN is not a JSON value"),
    "D7 Infinity": Case(third(b'{"messages": [], "score": -Infinity}\n'), 3, 3, "-Infinity is not a JSON value"),
    "D8 duplicate keys": Case(third(b'{"messages": [1], "messages": []}\n'), 3, 3, "'messages' appears twice"),
    "D9 UTF-8 BOM": Case(b"\xef\xbb\xbf" + ALL, 3),
    "D10 UTF-16": Case(ALL.decode().encode("utf-16"), 3),
    "D10 UTF-16 without BOM": Case(ALL.decode().encode("utf-16-be"), 3),
    "D11 invalid UTF-8": Case(third(line("x").replace(b"x", b"\xff\xfe")), 3, 3, "byte 43 of the line is not UTF-8"),
    "D12 lone surrogate": Case(third(line("x").replace(b'"x"', b'"\\ud800"')), 3, 3, "lone surrogate"),
    "D13 NUL in text": Case(third(line("a\0b")), 3, 3, "NUL in text"),
    "D13 raw NUL": Case(third(line("x").replace(b'"x"', b'"\0"')), 3, 3, "broken JSON: Invalid control character"),
    "D14 CRLF": Case(ALL.replace(b"\n", b"\r\n"), 3),
    "D14 CR only": Case(ALL.replace(b"\n", b"\r"), 3),
    "D16 array instead of lines": Case(b"[" + b",\n".join(GOOD) + b"]", 3),
    "D16 array cut off": Case(b"[" + b",".join(GOOD), None, 4, "the array is not closed"),
    "D16 array with a broken record": Case(b"[\n" + GOOD[0] + b", {]", None, 3, "broken JSON"),
    "D17 concatenated objects": Case(third(GOOD[0][:-1] + GOOD[1]), 3, 3, "two values on one line"),
    "D18 gzip named .jsonl": Case(gzip.compress(ALL), 3),
    "D18 broken gzip": Case(gzip.compress(ALL)[:-12], None, says="the gzip file is broken"),
    "D18 zip named .jsonl": Case(b"PK\x03\x04rest", None, says="an archive"),
    "D19 numeric content": Case(third(messages(USER, {"role": "assistant", "content": 42})), 3, 3, "int '42'"),
    "D19 null content": Case(third(messages(USER, {"role": "assistant", "content": None})), 3, 3, "content is missing"),
    "D20 messages is a string": Case(third(b'{"messages": "hello"}\n'), 3, 3, "messages is not a list"),
    "D21 no messages": Case(third(b'{"mesages": []}\n'), 3, 3, "no messages: the record has the keys mesages"),
    "D22 empty messages": Case(third(messages()), 3, 3, "the list of messages is empty"),
    "D23 unknown role": Case(third(messages({"role": "narrator", "content": "a"}, ANSWER)), 3, 3, "'narrator'"),
    "D24 two users in a row": Case(third(messages(USER, USER, ANSWER)), 3, 3, "template refuses: users in a row"),
    "D25 last turn is the user's": Case(third(messages(USER, ANSWER, USER)), 3, 3, "no answer to learn"),
    "D26 empty answer": Case(third(line("x", "")), 3, 3, "empty answer: turn 2"),
    "D27 blank answer": Case(third(line("x", " \n\t ")), 3, 3, "empty answer: turn 2"),
    "D28 nothing to train on": Case(third(messages(USER, {**ANSWER, "weight": 0})), 3, 3, "nothing to train on"),
    "D29 answer would be cut": Case(third(line("x", "many words " * 400)), 3, 3, "data.max_length is 512"),
    "D30 end token in a question": Case(third(line("a</s>b")), 3, 3, "'</s>'"),
    "D30 turn marker in an answer": Case(third(line("x", "<|im_end|>")), 3, 3, "would become structure"),
    "D30 control word of the template": Case(third(line("[INST] obey [/INST]")), 3, 3, "'[INST]'"),
    "D31 duplicate rows": Case(third(GOOD[0]), 3, 3, "duplicate: the same as"),
    "D33 a number of a million digits": Case(third(b'{"id": ' + b"7" * 1_000_000 + b"}\n"), 3, 3, "1,000,000 digits"),
    "D34 depth 100,000": Case(third(b"[" * 100_000 + b"]" * 100_000 + b"\n"), 3, 3, "nested too deeply"),
    "D35 hidden characters": Case(third(line("a\u202eb\u200bc")), 4, 3, "characters nobody sees"),
    "a number alone": Case(third(b"42\n"), 3, 3, "not an object"),
}

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if not loop.first and m.role == 'user' and "
    "messages[loop.index0 - 1].role == 'user' %}{{ raise_exception('users in a row') }}{% endif %}"
    "{{ ' [INST] ' + m.content + ' [/INST]' if m.role == 'user' else ' ' + m.content + eos_token }}{% endfor %}"
)


@pytest.fixture
def prepare(make_tokenizer: Any, tmp_path: Path) -> Any:
    def run(source: Any, **data: Any) -> Prepared:
        settings = {"validation_share": 0, "max_dropped": 1, "too_long": "drop", "max_length": 512, **data}
        settings.setdefault("max_record_bytes", 2_000_000)
        config = RunConfig.model_validate(
            {
                "task": "chat",
                "model": {"name": "demo"},
                "data": {"train": str(source), **settings},
                "train": {"batch_size": 1},
            }
        )
        tokenizer = make_tokenizer("mistral", template=TEMPLATE)
        return prepare_dataset(
            config, NoTask(), tokenizer, cache_dir=tmp_path / "cache", ledger_path=tmp_path / "ledger"
        )

    return run


@pytest.mark.parametrize("name", CASES)
def test_bad_data_is_named_with_its_line_and_spares_the_rest(name: str, prepare: Any, tmp_path: Path) -> None:
    case = CASES[name]
    file = tmp_path / "train.jsonl"
    file.write_bytes(case.content)
    place = f"{file}:{case.line}" if case.line else str(file)
    if case.rows is None:
        with pytest.raises(DataError) as caught:
            prepare(file)
        assert case.says in caught.value.message and caught.value.place == place and caught.value.remedy
        assert caught.value.exit_code == 3
        return
    prepared = prepare(file)
    assert len(prepared.train) == prepared.ledger.trained == case.rows
    assert prepared.ledger.rows == prepared.ledger.trained + prepared.ledger.dropped
    complaints = [
        f"{entry['place']}: {entry['reason']}: {entry['detail']}"
        for entry in map(json.loads, (tmp_path / "ledger").read_text(encoding="utf-8").splitlines())
        if entry["outcome"] == "dropped"
    ] + [f"{finding.place}: {finding.message}" for finding in prepared.findings if finding.level == "warning"]
    if case.says:
        assert len(complaints) == 1 and complaints[0].startswith(place + ":") and case.says in complaints[0]
    else:
        assert complaints == []


def test_d15_a_line_of_500_mb_is_reported_by_its_size_in_bounded_memory(tmp_path: Path) -> None:
    size = 500_000_000
    file = tmp_path / "train.jsonl"
    with file.open("wb") as out:
        out.write(GOOD[0])
        out.seek(size, os.SEEK_CUR)  # a hole: zero bytes without the disk space
        out.write(b"\n" + GOOD[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = list(read_records(Source(path=str(file)), 1_000_000))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert [type(item) for item in items] == [Record, Dropped, Record]
    assert items[1].place == f"{file}:2" and "500,000,000 bytes" in items[1].detail  # type: ignore[union-attr]
    assert grown < 50_000  # KiB


def test_d32_training_rows_that_are_in_a_test_set_are_left_out_and_named(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(ALL)
    (tmp_path / "test.jsonl").write_bytes(line("TWO? ", "another answer"))
    prepared = prepare(tmp_path / "train.jsonl", test={"exam": str(tmp_path / "test.jsonl")})
    assert len(prepared.train) == 2 and prepared.ledger.test == 1
    [leak] = [finding for finding in prepared.findings if finding.check == "leak"]
    assert leak.place == f"{tmp_path / 'train.jsonl'}:2" and f"{tmp_path / 'test.jsonl'}:1" in leak.message


def test_d36_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(ALL)
    items = read_records(Source(path=str(file)), 1_000_000)
    next(items)
    with file.open("ab") as out:
        out.write(GOOD[0])
    with pytest.raises(DataError, match="changed while it was read"):
        list(items)


def test_d37_a_source_that_vanishes_after_preparation_is_not_missed(prepare: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(ALL)
    prepared = prepare(file)
    file.unlink()
    assert [len(tokens.input_ids) > 0 for tokens in prepared.train] == [True] * 3


def test_d38_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(ALL)
    # Permissions do not hold root back, and tests often run as root.
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(DataError, match="Permission denied") as caught:
        list(read_records(Source(path=str(file)), 1_000_000))
    assert caught.value.place == str(file) and "permission" in caught.value.remedy


def test_d39_a_link_to_itself_and_a_missing_file_are_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    for file, says in ((loop, "symbolic links"), (tmp_path / "nothing.jsonl", "No such file")):
        with pytest.raises(DataError, match=says) as caught:
            list(read_records(Source(path=str(file)), 1_000_000))
        assert caught.value.place == str(file)


def test_d40_fewer_rows_than_one_batch_is_said(make_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(ALL)
    config = RunConfig.model_validate(
        {
            "task": "chat",
            "model": {"name": "demo"},
            "data": {"train": str(tmp_path / "train.jsonl"), "validation_share": 0},
        }
    )
    prepared = prepare_dataset(config, NoTask(), make_tokenizer(), cache_dir=tmp_path / "cache")
    [finding] = [finding for finding in prepared.findings if finding.level == "warning"]
    assert "3 training rows are fewer than one step's batch_size (16)" in finding.message


def test_more_faults_than_allowed_stop_the_run_with_reasons_and_leave_the_ledger(prepare: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(third(b"{broken\n"))
    with pytest.raises(DataError, match=r"1 of 4 train rows would be dropped; data.max_dropped allows 20.0%") as caught:
        prepare(file, max_dropped=0.2)
    assert caught.value.place == f"{file}:3" and "broken JSON" in caught.value.message
    assert "broken JSON" in (tmp_path / "ledger").read_text(encoding="utf-8")


def test_duplicates_and_leaks_are_no_faults(prepare: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(ALL * 5)
    prepared = prepare(file, max_dropped=0)
    assert (prepared.ledger.trained, prepared.ledger.dropped, prepared.ledger.faults) == (3, 12, 0)


def test_too_long_stops_the_run_unless_told_otherwise(prepare: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(third(line("x", "many words " * 400)))
    with pytest.raises(DataError, match="data.max_length is 512") as caught:
        prepare(file, too_long="error")
    assert caught.value.place == f"{file}:3" and "data.too_long" in caught.value.remedy
