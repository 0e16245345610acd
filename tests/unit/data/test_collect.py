"""A real Qdrant store becomes a data set: nothing lost, nothing twice, every document accounted for."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.config.schema import Source
from tunesmith.data import collect as module
from tunesmith.data import qdrant
from tunesmith.data.collect import Wanted, collect
from tunesmith.data.ledger import Dropped
from tunesmith.data.qdrant import Address, is_qdrant, open_collection, parse_address
from tunesmith.data.sources import read_records
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks import get_word
from tunesmith.types import Record

qdrant_client = pytest.importorskip("qdrant_client")

GOOD = 60
NAMES = "An Bình Chi Dũng Giang Hà Khánh Lan Minh Nga Oanh Phúc Quân Sơn Thảo".split()
THINGS = "cam táo bút vở kẹo bóng hoa sách ghế tem".split()


def problem(i: int) -> str:
    who, what = NAMES[i % len(NAMES)], THINGS[(i * 7) % len(THINGS)]
    a, b = 11 + i, 3 + i % 5
    story = ("mua", "được tặng", "đem bán", "chia đều")[i % 4]
    return (
        f"### QUESTION: {who} có {a} hộp, mỗi hộp có {b} {what}, sau đó {story} thêm {i} nữa. Hỏi có bao nhiêu?\n"
        f"#### SOLUTION: Số {what} trong các hộp là {a} x {b} = {a * b}\nTất cả có {a * b} + {i} = {a * b + i}\n"
        f"Đáp số: {a * b + i} {what}"
    )


BAD = {
    "needs an image": "### QUESTION: Quan sát hình vẽ bên, tính diện tích.\n#### SOLUTION: 3 x 4 = 12\nĐáp số: 12 cm",
    "unreadable": "### QUESTION: C\ufffd bao nhi\ufffdu?\n#### SOLUTION: 3\nĐáp số: 3",
    "no final answer": "### QUESTION: Vì sao trời xanh vậy hả cô giáo?\n#### SOLUTION: Vì ánh sáng tán xạ nhiều lắm.",
    "no question and answer": "Một đoạn văn không có câu hỏi.",
    "duplicate": problem(4).replace("Hỏi có", "Hỏi  CÓ"),
}


def points() -> list[dict[str, Any]]:
    good = [
        {"cleaned_content": problem(i), "type": "exam", "grade_id": f"grade_{5 + i % 2}", "link": f"page-{i // 3}"}
        for i in range(GOOD)
    ]
    bad = [{"cleaned_content": text, "type": "exam", "grade_id": "grade_5", "link": "x"} for text in BAD.values()]
    other = [{"cleaned_content": problem(900), "type": "theory", "grade_id": "grade_5", "link": "y"}]
    return good + bad + other


def store(folder: Path, payloads: list[dict[str, Any]], collection: str = "exams", *more: str) -> Path:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    for name in (collection, *more):
        client.create_collection(
            name, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT)
        )  # fmt: skip
    client.upsert(
        collection,
        [
            models.PointStruct(id=i if i % 2 else str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))), vector=[1, i], payload=p)
            for i, p in enumerate(payloads)
        ],
    )  # fmt: skip
    client.close()
    return folder


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield store(tmp_path_factory.mktemp("store") / "qdrant", points())


def maths() -> Any:
    return get_word("maths")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_verb_makes_a_data_set_with_filters_checks_and_splits_by_document(exams: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    done = CliRunner().invoke(
        app,
        ["data", "build", "maths", "--from", f"qdrant://{exams}", "--type", "exam", "--test-share", "0.3",
         "--validation-share", "0.1", "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made = {name: rows(out / f"{name}.jsonl") for name in ("train", "validation", "test")}
    assert sum(map(len, made.values())) == GOOD
    documents = {name: {row["group"] for row in found} for name, found in made.items()}
    assert documents["train"] and documents["test"]
    assert not documents["train"] & documents["test"] and not documents["train"] & documents["validation"]
    lines = rows(out / "ledger.jsonl")
    assert len(lines) == GOOD + len(BAD)  # `theory` was never asked for
    assert Counter(line.get("reason") for line in lines if line["outcome"] == "dropped") == Counter(BAD.keys())
    assert f"{GOOD + len(BAD)} rows in" in done.output
    first = made["train"][0]
    assert "QUESTION" not in first["question"] and "SOLUTION" not in first["solution"]
    assert first["source"].startswith("qdrant:") and first["grade"].startswith("grade_")
    # What was made is what the maths task reads, and each answer is graded right by it.
    task = maths()
    for item in read_records(Source(path=str(out / "train.jsonl")), 100_000):
        assert isinstance(item, Record)
        (example,) = task.examples(item)
        assert task.grade(example, example.messages[-1].content).value == 1.0
    assert not (out / "points.jsonl").exists()


def test_a_grade_is_found_however_it_is_written(exams: Path, tmp_path: Path) -> None:
    for grade in ("5", "grade_5", "lớp 5"):
        made = collect(Wanted(f"qdrant://{exams}", "maths", type="exam", grade=grade), maths(), tmp_path / "set")
        assert sum(made.counts.values()) == GOOD // 2
        assert made.ledger.dropped == len(BAD)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_pages_of_any_size_give_every_point_once(exams: Path, size: int) -> None:
    with open_collection(parse_address(f"qdrant://{exams}")) as collection:
        ids = [id_ for page in collection.pages(size=size) for id_, _ in page.points]
    assert len(ids) == len(set(ids)) == len(points())


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_download_that_is_cut_off_continues_and_comes_to_the_same(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    wanted = Wanted(f"qdrant://{exams}", "maths", type="exam")
    collect(wanted, maths(), tmp_path / "whole")
    asked: list[Any] = []
    original = qdrant.Collection.pages

    def breaking(self: Any, start: Any = None, size: int = 10) -> Iterator[Any]:
        for number, page in enumerate(original(self, start, size)):
            if number == after:
                raise KeyboardInterrupt
            asked.append(page)
            yield page

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(qdrant.Collection, "pages", breaking)
        with pytest.raises(KeyboardInterrupt):
            collect(wanted, maths(), out)
    if after:
        with (out / "points.jsonl").open("ab") as file:
            file.write(b'{"id": "half of a li')  # killed while it wrote
    counted: list[Any] = []

    def counting(self: Any, start: Any = None, size: int = 10) -> Iterator[Any]:
        for page in original(self, start, size):
            counted.append(page)
            yield page

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(qdrant.Collection, "pages", counting)
        collect(wanted, maths(), out, lambda stage, outcome: said.append(outcome))
    assert sum(len(p.points) for p in counted) == GOOD + len(BAD) - 10 * after  # nothing is read twice
    assert any(text.startswith("continuing after") for text in said) == bool(after)
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "ledger.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_filters_do_not_continue_anothers_download(exams: Path, tmp_path: Path) -> None:
    wanted = Wanted(f"qdrant://{exams}", "maths", type="exam")
    state = {"next": None, "came": 9, "bytes": 0, "expected": 9, "done": True, "identity": {"address": "else"}}
    (tmp_path / module._STATE).write_text(json.dumps(state))
    (tmp_path / module._POINTS).write_text("")
    assert collect(wanted, maths(), tmp_path).ledger.rows == GOOD + len(BAD)


def test_points_that_are_lost_on_the_way_are_noticed(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = qdrant.Collection.pages

    def lossy(self: Any, start: Any = None, size: int = 10) -> Iterator[Any]:
        for page in original(self, start, size):
            yield page._replace(points=page.points[1:])

    monkeypatch.setattr(qdrant.Collection, "pages", lossy)
    with pytest.raises(DataError, match="58 points came, and 65 are there"):
        collect(Wanted(f"qdrant://{exams}", "maths", type="exam"), maths(), tmp_path)


def test_a_collection_is_a_source_of_records_like_any_other(exams: Path) -> None:
    source = Source(path=f"qdrant://{exams}#exams", where={"type": "exam"}, max_samples=20)
    records = list(read_records(source, 100_000))
    assert len(records) == 20 and all(isinstance(one, Record) and one.fields["type"] == "exam" for one in records)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "qdrant://{store}#nowhere"], 3, "there are: exams"),
        (["--from", "qdrant:///no/such/folder"], 3, "no local Qdrant store"),
        (["--from", "qdrant://{store}", "--where", "type=none"], 3, "meets the filters"),
        (["--from", "qdrant://{store}", "--where", "type"], 2, "not NAME=VALUE"),
        (["--from", "qdrant://me:secret@host#x"], 2, "not the address"),
        (["--from", "qdrant://{store}", "--field", "grade=none", "--grade", "5"], 3, "meets the filters"),
    ],
)
def test_what_is_wrong_is_said_with_what_there_is(
    exams: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    from tunesmith.errors import TunesmithError

    filled = [part.replace("{store}", str(exams)) for part in arguments]
    done = CliRunner().invoke(app, ["data", "build", "maths", *filled, "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, TunesmithError), done.output
    assert done.exception.exit_code == code and said in str(done.exception)


def test_which_collection_is_asked_where_there_are_several(tmp_path: Path) -> None:
    folder = store(tmp_path / "two", points()[:2], "exams", "chats")
    with (
        pytest.raises(ConfigError, match=r"which collection\?; there are: chats, exams"),
        open_collection(parse_address(f"qdrant://{folder}")),
    ):
        pass
    with (
        open_collection(parse_address(f"qdrant://{folder}", "exams")) as collection,
        pytest.raises(DataError, match="has this store open"),
    ):
        assert collection.count() == 2
        with open_collection(parse_address(f"qdrant://{folder}", "chats")):
            pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("qdrant://host#c", Address("http://host:6333", False, "c")),
        ("qdrants://host:7000/c", Address("https://host:7000", False, "c")),
        ("qdrant://[::1]:6333#c", Address("http://[::1]:6333", False, "c")),
        ("qdrant:///a%20b/store#c", Address("/a b/store", True, "c")),
        ("qdrant://./store", Address("./store", True, "")),
        ("qdrant://", Address("qdrant", True, "")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert is_qdrant(text) and parse_address(text) == address


def test_a_key_never_travels_in_the_open() -> None:
    with (
        pytest.raises(ConfigError, match="unencrypted"),
        open_collection(parse_address("qdrant://far.example#c"), environ={"QDRANT_API_KEY": "k"}),
    ):
        pass


# --- chat -------------------------------------------------------------------------------------------------------------

TALK = """Khách: Đơn {i} của tôi đâu rồi?
Số của tôi là 0912 345 678.
Nhân viên: Dạ, đơn {i} đang trên đường ạ.
Khách: Cảm ơn."""


def test_transcripts_become_conversations_without_peoples_numbers(tmp_path: Path) -> None:
    call = '<tool_call>{"name": "look_up", "arguments": {"id": 7}}</tool_call>'
    transcripts: list[dict[str, Any]] = [{"transcript": TALK.format(i=i * 7919), "session": f"s{i}"} for i in range(30)]
    transcripts += [
        {"messages": [{"role": "assistant", "content": "Hello! I am the assistant of the shop."},
                      {"role": "user", "content": "Where is my parcel?"}, {"role": "user", "content": "It is late."},
                      {"role": "assistant", "content": call}, {"role": "tool", "content": '{"where": "Vinh"}'},
                      {"role": "assistant", "content": "It is in Vinh; write to a.b@shop.example."}]},
        {"messages": [{"role": "user", "content": "Cancel it please, now."},
                      {"role": "assistant", "content": "<tool_call>cancel({id: 7})</tool_call>"}]},
        {"messages": [{"role": "user", "content": "Anyone there at all?"}]},
        {"note": "nothing"},
        {"messages": [{"role": "assistant", "content": "Good morning to you all."}]},
    ]  # fmt: skip
    path = tmp_path / "raw.jsonl"
    path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in transcripts), encoding="utf-8")
    out = tmp_path / "set"
    made = collect(Wanted(str(path), "chat", test_share=0.3), get_word("chat"), out)  # type: ignore[arg-type]
    assert made.ledger.reasons == {
        "broken tool call": 1,
        "no messages": 1,
        "no transcript": 1,
        "no exchange": 1,
    }
    assert sum(made.counts.values()) == 31 and made.masked == 31
    assert made.ledger.notes == {"personal data masked": 31}
    found = [row for name in made.files for row in rows(made.files[name])]
    talk = next(row for row in found if row["group"] == "s3")
    assert [turn["role"] for turn in talk["messages"]] == ["user", "assistant"]  # the thanks got no answer
    assert "[phone]" in talk["messages"][0]["content"] and "0912" not in json.dumps(found)
    other = next(row for row in found if "Vinh" in json.dumps(row))
    assert [turn["role"] for turn in other["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert other["messages"][0]["content"] == "Where is my parcel?\nIt is late."
    assert other["messages"][-1]["content"].endswith("write to [email].")
    again = collect(Wanted(str(path), "chat", mask=False), get_word("chat"), tmp_path / "open")  # type: ignore[arg-type]
    assert again.masked == 0 and "0912 345 678" in (tmp_path / "open" / "train.jsonl").read_text(encoding="utf-8")
    records = list(read_records(Source(path=str(out / "train.jsonl")), 100_000))
    assert not any(isinstance(one, Dropped) for one in records)
