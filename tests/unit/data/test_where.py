from __future__ import annotations

from tunesmith.config.schema import Source
from tunesmith.data.ledger import Dropped
from tunesmith.data.sources import read_records
from tunesmith.types import Record


def test_a_source_can_be_filtered_by_field_before_samples_are_counted(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"q": 1, "half": "dev"}\n{"q": 2, "half": "sealed"}\nbroken\n{"q": 3, "half": "sealed"}\n{"q": 4}\n'
    )
    read = list(read_records(Source(path=str(file), where={"half": "sealed"}), 10_000))
    assert [item.fields["q"] for item in read if isinstance(item, Record)] == [2, 3]
    assert [item.place for item in read if isinstance(item, Dropped)] == [f"{file}:3"]
    first = list(read_records(Source(path=str(file), where={"half": "sealed"}, max_samples=1), 10_000))
    assert [item.fields["q"] for item in first if isinstance(item, Record)] == [2]
