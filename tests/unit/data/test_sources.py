from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import Source
from tunesmith.data.ledger import Dropped
from tunesmith.data.sources import CHUNK, read_records, read_whole, source_files
from tunesmith.errors import DataError
from tunesmith.types import Record

LIMIT = 1_000_000


def read(path: Path | str, **settings: Any) -> list[Record | Dropped]:
    return list(read_records(Source(path=str(path), **settings), LIMIT))


def fields(items: list[Record | Dropped]) -> list[Any]:
    assert all(isinstance(item, Record) for item in items)
    return [item.fields for item in items if isinstance(item, Record)]


def test_the_same_record_has_the_same_id_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n\n{"c": 3}\n')
    (tmp_path / "b.json").write_text('[{"c": 3}, {"b": 2, "a": 1}]')
    one, two = read(tmp_path / "a.jsonl"), read(tmp_path / "b.json")
    assert [item.id for item in one] == [item.id for item in two][::-1]
    assert [item.place for item in one] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:3"]


def test_large_integers_are_part_of_a_record_s_identity(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"a": {10**30}}}\n{{"a": {10**30 + 1}}}\n{{"a": {2**64 - 1}}}\n')
    read_back = read(tmp_path / "a.jsonl")
    assert fields(read_back) == [{"a": 10**30}, {"a": 10**30 + 1}, {"a": 2**64 - 1}]
    assert len({item.id for item in read_back}) == 3


def test_a_source_that_must_be_whole_stops_at_what_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"question": "how many", "sql": "SELECT 1"}\n{"question": "how\n')
    with pytest.raises(DataError, match="broken JSON") as error:
        read_whole(Source(path=str(file)), 1000)
    assert error.value.place == f"{file}:2"
    assert "mend it" in error.value.remedy
    file.write_text('{"question": "how many", "sql": "SELECT 1"}\n')
    assert [one.fields["sql"] for one in read_whole(Source(path=str(file)), 1000)] == ["SELECT 1"]


def test_a_pretty_printed_array_knows_its_lines(tmp_path: Path) -> None:
    records = [{"n": n, "text": "x" * 50} for n in range(20_000)]
    (tmp_path / "a.json").write_text(json.dumps(records, indent=1))
    assert (tmp_path / "a.json").stat().st_size > CHUNK
    items = read(tmp_path / "a.json")
    assert fields(items) == records
    assert [item.place.rpartition(":")[2] for item in items[:3]] == ["2", "6", "10"]


def test_one_pretty_printed_object_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"messages": []}, indent=2))
    assert fields(read(tmp_path / "a.json")) == [{"messages": []}]
    (tmp_path / "b.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert fields(read(tmp_path / "b.json")) == [{"a": 1}, {"a": 2}]


def test_lines_that_cross_chunks_are_whole(tmp_path: Path) -> None:
    records = [{"n": n, "text": "ữ" * (n % 1000)} for n in range(4000)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8")
    assert fields(read(tmp_path / "a.jsonl")) == records


def test_csv_cells_may_hold_line_ends_and_bad_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffquestion,answer\r\n"a\nb","x, y"\r\nonly one\r\nc,d\r\n'.encode())
    items = read(tmp_path / "a.csv")
    assert [item.fields for item in items if isinstance(item, Record)] == [
        {"question": "a\nb", "answer": "x, y"},
        {"question": "c", "answer": "d"},
    ]
    [dropped] = [item for item in items if isinstance(item, Dropped)]
    assert dropped.place == f"{tmp_path}/a.csv:4" and "1 cells under 2 columns" in dropped.detail
    (tmp_path / "b.csv").write_text('a,b\n"open,2\n')
    with pytest.raises(DataError, match="broken CSV"):
        read(tmp_path / "b.csv")
    (tmp_path / "c.tsv").write_text("a\ta\n1\t2\n")
    with pytest.raises(DataError, match="the same name"):
        read(tmp_path / "c.tsv")


def test_parquet_rows_are_records(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"messages": [{"role": "user", "content": str(n)}]} for n in range(600)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet")
    assert fields(items) == rows and items[599].place == f"{tmp_path}/a.parquet:600"
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more than that")
    with pytest.raises(DataError, match="not a Parquet file"):
        read(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "a.parquet").read_bytes())
    with pytest.raises(DataError, match="Parquet under another name"):
        read(tmp_path / "c.jsonl")


def test_folders_and_globs_are_read_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / name).write_text(json.dumps({"from": name}) + "\n")
    assert fields(read(tmp_path)) == [{"from": "a.jsonl"}, {"from": "b.jsonl"}]
    assert fields(read(tmp_path / "[b]*.jsonl")) == [{"from": "b.jsonl"}]
    with pytest.raises(DataError, match="no data file here"):
        read(tmp_path / "*.csv")


def test_max_samples_stops_early(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert fields(read(tmp_path / "a.jsonl", max_samples=2)) == [{"a": 1}, {"a": 2}]


def test_a_function_gives_records_and_a_missing_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_records.py").write_text("def rows():\n    yield {'a': 1}\n    yield 'text'\n")
    monkeypatch.syspath_prepend(tmp_path)
    items = read("my_records:rows")
    assert source_files(Source(path="my_records:rows")) is None
    assert isinstance(items[0], Record) and items[0].fields == {"a": 1} and items[0].place == "my_records:rows:1"
    assert isinstance(items[1], Dropped) and items[1].reason == "not an object"
    for path, says in (("my_records:nothing", "has no 'nothing'"), ("no_such_module:rows", "no module named")):
        with pytest.raises(DataError, match=says):
            read(path)
    sys.modules.pop("my_records")


def test_a_hub_data_set_is_streamed_and_its_failure_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, split: str, streaming: bool) -> Iterator[Any]:
        assert (name, split, streaming) == ("owner/name", "test", True)
        return iter([{"a": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert fields(read("hf://owner/name", split="test")) == [{"a": 1}]

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="cannot be read: no network\n") as caught:
        read("hf://owner/name")
    assert caught.value.place == "hf://owner/name"


def test_a_record_that_is_too_large_in_memory_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large_records.py").write_text("def rows():\n    yield {'a': ['x' * 2_000_000]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    [item] = read("large_records:rows")
    assert isinstance(item, Dropped) and item.reason == "record too large"
