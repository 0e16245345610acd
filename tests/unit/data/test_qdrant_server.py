"""A collection on a server: pages over HTTP through the real client, one that fails, a download that was cut off."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import qdrant
from tunesmith.data.collect import Wanted, collect
from tunesmith.data.qdrant import open_collection, parse_address
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks import get_word

pytest.importorskip("qdrant_client")

COUNT, PAGE = 90, 16


def payload(i: int) -> dict[str, Any]:
    a, b = 11 + i, 3 + i % 7
    return {
        "question": f"Lan có {a} hộp, mỗi hộp có {b} cái bút, rồi có thêm {i} cái. Hỏi Lan có bao nhiêu cái bút?",
        "solution": f"{a} x {b} = {a * b}\n{a * b} + {i} = {a * b + i}\nĐáp số: {a * b + i} cái bút",
        "type": "exam" if i < 80 else "theory",
        "grade": 5 + i % 2,
        "link": f"page-{i}",
    }


@pytest.fixture
def server() -> Iterator[Any]:
    from qdrant_client import models
    from qdrant_server import QdrantServer

    points = [
        models.PointStruct(
            id=i if i % 2 else str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))), vector=[1, i], payload=payload(i)
        )
        for i in range(COUNT)
    ]
    with QdrantServer("exams", points).running() as running:
        yield running


@pytest.fixture(autouse=True)
def small_pages_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = qdrant.Collection.pages
    monkeypatch.setattr(qdrant.Collection, "pages", lambda self, start=None, size=PAGE: whole(self, start, size))
    monkeypatch.setattr(qdrant.time, "sleep", lambda seconds: None)


def test_every_point_comes_once_over_http_and_each_page_begins_where_the_last_one_said(server: Any) -> None:
    with open_collection(parse_address(server.address), {"type": "exam"}) as collection:
        pages = list(collection.pages())
        assert collection.count() == 80
    ids = [id_ for page in pages for id_, _ in page.points]
    assert len(ids) == len(set(ids)) == 80
    assert {fields["type"] for page in pages for _, fields in page.points} == {"exam"}
    assert server.offsets == [None, *(page.next for page in pages[:-1])]


@pytest.mark.parametrize("fault", [500, 503, 429, 0])
def test_a_page_that_fails_is_asked_for_again_and_nothing_is_lost(server: Any, fault: int) -> None:
    server.faults.extend([200, fault, fault, 200])
    with open_collection(parse_address(server.address)) as collection:
        ids = [id_ for page in collection.pages() for id_, _ in page.points]
    assert len(ids) == len(set(ids)) == COUNT
    assert server.offsets[1] == server.offsets[2] == server.offsets[3]


def test_a_server_that_goes_away_stops_the_download_and_the_same_command_goes_on_with_the_next_page(
    server: Any, tmp_path: Path
) -> None:
    wanted = Wanted(server.address, "maths", type="exam")
    task = get_word("maths")
    server.faults.extend([200, 200, *[503] * 5])
    with pytest.raises(DataError, match="the same command continues"):
        collect(wanted, task, tmp_path / "set")
    stopped_at = server.offsets[-1]
    server.offsets.clear()
    collect(wanted, task, tmp_path / "set")
    assert server.offsets[0] == stopped_at
    assert len(server.offsets) == 3  # of five pages the two that had come are not asked for again

    whole = collect(wanted, task, tmp_path / "whole")
    assert whole.ledger.figures() == json.loads((tmp_path / "set" / "build.json").read_text())["ledger"]
    for name in ("train", "validation", "test"):
        assert (tmp_path / "set" / f"{name}.jsonl").read_bytes() == (tmp_path / "whole" / f"{name}.jsonl").read_bytes()


def test_a_key_is_sent_and_a_wrong_one_is_said(server: Any) -> None:
    server.key = "right"
    address = parse_address(server.address)
    with open_collection(address, environ={"QDRANT_API_KEY": "right"}) as collection:
        assert collection.count() == COUNT
    refused = pytest.raises(ConfigError, match="refuses the key")
    with refused, open_collection(address, environ={"QDRANT_API_KEY": "wrong"}):
        pass
