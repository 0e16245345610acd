"""Documents somebody stored -> a data set: `tunesmith data build maths --from qdrant://...`.

    download (page by page, resumable) -> fields -> checks -> splits by document -> files and ledger

Every document is in the ledger once: in a split, or dropped with its reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.config.schema import Source
from tunesmith.data.formats import RowRefused, to_messages
from tunesmith.data.ledger import Dropped, Ledger, LedgerSummary
from tunesmith.data.payload import filter_key, key_of, lookup, problem_fields, turns_of
from tunesmith.data.qdrant import Address, is_qdrant, open_collection, parse_address, require_all
from tunesmith.data.quality import masked, needs_image, unreadable
from tunesmith.data.similar import Index, plain
from tunesmith.data.sources import read_records
from tunesmith.data.splits import assign_split
from tunesmith.errors import ConfigError, DataError
from tunesmith.types import Record, Split, Task

Announce = Callable[[str, str], None]
Value = str | int | bool | list[str | int]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_POINTS, _STATE = "points.jsonl", "points.state.json"
_ALIKE = 0.8
"""From which similarity two questions with the same values are one."""
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to collect, and how to judge it."""

    source: str
    """`qdrant://...`, or any source that `data.train` may name."""
    kind: str
    """`maths` or `chat`."""
    collection: str = ""
    type: str = ""
    """Only documents of this type, by whatever field says it."""
    grade: str = ""
    """Only documents of this grade (`5` also finds `grade_5` and `lớp 5`)."""
    where: Mapping[str, Value] = field(default_factory=dict)
    """Further fields with the value they must have."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Which field holds the question, solution, answer, text, messages, document, type or grade."""
    validation_share: float = 0.05
    test_share: float = 0.1
    mask: bool = True
    """Replace e-mail addresses, phone and card numbers in chats."""
    seed: int = 0


class Collected(NamedTuple):
    """A data set that was made."""

    files: dict[str, Path]
    counts: dict[str, int]
    ledger: LedgerSummary
    masked: int


def collect(wanted: Wanted, task: Task, out: Path, announce: Announce = lambda stage, outcome: None) -> Collected:
    """Make `train.jsonl`, `validation.jsonl`, `test.jsonl` and `ledger.jsonl` in a folder.

    Given again after it was stopped, it continues the download where it ended. Files of an earlier data set are
    replaced when the new ones are whole.

    Args:
        wanted: source, filters, shares.
        task: for `maths`: reads the fields, and must grade the right answer it finds in them as right.
        out: the folder.

    Raises:
        ConfigError: an address, filter or field that does not exist.
        DataError: the source cannot be read, or nothing in it is of use.
    """
    if wanted.kind not in ("maths", "chat"):
        raise ConfigError(
            f"the {wanted.kind} task collects no documents",
            place="--from",
            remedy="say maths or chat, or a recipe of one",
        )
    out.mkdir(parents=True, exist_ok=True)
    documents = _downloaded(wanted, out, announce) if is_qdrant(wanted.source) else _read(wanted)
    judge = _Judge(wanted, task)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    draft = out / "ledger.jsonl.tmp"
    with Ledger(draft) as ledger:
        for record in documents:
            ledger.admit(wanted.kind)
            made = record if isinstance(record, Dropped) else judge.made(record)
            if isinstance(made, Dropped):
                ledger.drop(made, wanted.kind)
                continue
            split = assign_split(
                made["group"] or made["id"],
                wanted.seed,
                {"validation": wanted.validation_share, "test": wanted.test_share},
            )
            rows[split].append(made)
            outcome: Any = {"train": "trained", "validation": "validation", "test": "test"}[split]
            note = "personal data masked" if made.pop("_masked", 0) else ""
            ledger.settle(made["place"], made["id"], wanted.kind, outcome, note)
    summary = ledger.summary()
    if not rows["train"]:
        raise DataError(
            "no document is fit to be trained on", place=wanted.source, remedy=f"see the reasons:\n{summary.text()}"
        )
    files: dict[str, Path] = {name: out / f"{name}.jsonl" for name in rows}
    for name, path in files.items():
        _write(path, rows[name])
    draft.replace(out / "ledger.jsonl")
    about = {
        "wanted": asdict(wanted),
        "counts": {name: len(found) for name, found in rows.items()},
        "documents": len({row["group"] for found in rows.values() for row in found}),
        "ledger": summary.figures(),
    }
    (out / "build.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    for name in (_STATE, _POINTS):
        (out / name).unlink(missing_ok=True)
    return Collected(files, {name: len(found) for name, found in rows.items()}, summary, judge.masked)


# --- download ---------------------------------------------------------------------------------------------------------


def _downloaded(wanted: Wanted, out: Path, announce: Announce) -> Iterator[Record | Dropped]:
    """The points of a collection, kept in a file as they come, so that an interruption costs at most a page."""
    address = parse_address(wanted.source, wanted.collection)
    with open_collection(address) as collection:
        address = collection.address
        where = _filters(wanted, collection.first_payload())
        collection.where = dict(where)
        identity = {"address": address.text, "where": where}
        state = _state(out, identity)
        expected = collection.count() if state["expected"] is None else state["expected"]
        if state["done"]:
            announce("download", f"{state['came']:,} points are here already")
        elif state["came"]:
            announce("download", f"continuing after {state['came']:,} of {expected:,} points")
        path = out / _POINTS
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(state["bytes"])  # what was written of a page that was never finished
            file.seek(state["bytes"])
            if not state["done"]:
                for page in collection.pages(state["next"]):
                    for id_, payload in page.points:
                        line = json.dumps({"id": id_, "payload": payload}, ensure_ascii=False, default=str)
                        file.write(line.encode("utf-8", errors="surrogatepass") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                    state |= {
                        "next": page.next,
                        "came": state["came"] + len(page.points),
                        "bytes": file.tell(),
                        "expected": expected,
                        "done": page.next is None,
                    }
                    _save(out / _STATE, {**state, "identity": identity})
                require_all(state["came"], expected, collection)
                announce("download", f"{state['came']:,} points of {address.text}")
    if not state["came"]:
        raise DataError(
            "no point of the collection meets the filters",
            place=address.text,
            remedy=f"check them: {json.dumps(where, ensure_ascii=False)}",
        )
    yield from _kept(out / _POINTS, address)


def _kept(path: Path, address: Address) -> Iterator[Record | Dropped]:
    with path.open("rb") as file:
        for line in file:
            point = json.loads(line.decode("utf-8", errors="surrogatepass"))
            place = f"{address.text}/{point['id']}"
            try:
                canonical = json.dumps(point["payload"], sort_keys=True, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                yield Dropped(place, "unreadable", "half of a character pair stands alone", str(point["id"]))
                continue
            yield Record(hashlib.blake2b(canonical, digest_size=12).hexdigest(), point["payload"], place)


def _filters(wanted: Wanted, fields: Mapping[str, Any]) -> dict[str, Value]:
    where: dict[str, Value] = dict(wanted.where)
    if not fields:
        return where
    if wanted.type:
        where[filter_key(fields, "type", wanted.fields)] = wanted.type
    if wanted.grade:
        where[filter_key(fields, "grade", wanted.fields)] = grades(wanted.grade)
    return where


def grades(grade: str) -> list[str | int]:
    """The ways a grade is written: `5` is 5, "5", "grade_5", "Grade 5", "lop_5", "lớp 5" and "Lớp 5"."""
    number = re.fullmatch(r"\D*(\d+)\D*", grade)
    if number is None:
        return [grade]
    n = int(number.group(1))
    written = [f"{word}{gap}{n}" for word in ("grade", "Grade", "lop", "lớp", "Lớp") for gap in ("_", " ", "-", "")]
    return list(dict.fromkeys([grade, str(n), n, *written]))


def _state(out: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    fresh: dict[str, Any] = {"next": None, "came": 0, "bytes": 0, "expected": None, "done": False}
    try:
        known = json.loads((out / _STATE).read_text(encoding="utf-8"))
        same = known["identity"] == json.loads(json.dumps(identity))
        size = (out / _POINTS).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return fresh
    # A shorter file than the state says lost what it held: begin again.
    return {key: known[key] for key in fresh} if same and size >= known["bytes"] else fresh


def _save(path: Path, state: Mapping[str, Any]) -> None:
    staged = path.with_suffix(".tmp")
    with staged.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _read(wanted: Wanted) -> Iterator[Record | Dropped]:
    """The records of a file, folder, Hub data set or function, filtered here."""
    grade, first = set(map(str, grades(wanted.grade))), True
    for record in read_records(Source(path=wanted.source), 10_000_000):
        if isinstance(record, Record):
            if first and wanted.type:
                filter_key(record.fields, "type", wanted.fields)
            if first and wanted.grade:
                filter_key(record.fields, "grade", wanted.fields)
            first = False
            if any(lookup(record.fields, key) != value for key, value in wanted.where.items()):
                continue
            if wanted.type and _value(record, "type", wanted) != wanted.type:
                continue
            if wanted.grade and _value(record, "grade", wanted) not in grade:
                continue
        yield record


def _value(record: Record, what: str, wanted: Wanted) -> str:
    key = key_of(record.fields, what, wanted.fields)
    value = lookup(record.fields, key) if key else None
    return "" if value is None else str(value)


# --- checks -----------------------------------------------------------------------------------------------------------


class _Judge:
    """Makes a row of a document, or says why not."""

    def __init__(self, wanted: Wanted, task: Task) -> None:
        self._wanted = wanted
        self._task = task
        self._index = Index()
        self._known: list[tuple[str, str, str]] = []
        """Place, question and answer of each kept row, by its number in the index."""
        self._same: dict[str, str] = {}
        self.masked = 0

    def made(self, record: Record) -> dict[str, Any] | Dropped:
        made = self._problem(record) if self._wanted.kind == "maths" else self._chat(record)
        if isinstance(made, Dropped):
            return made
        question, answer = made.pop("_question"), made.pop("_answer")
        if first := self._repeats(question, answer):
            return Dropped(record.place, "duplicate", f"nearly the same as {first}", record.id)
        self._index.add(question)
        self._known.append((record.place, question, answer))
        self._same.setdefault(plain(question), record.place)
        row = {"id": record.id, "place": record.place, "group": _value(record, "document", self._wanted), **made}
        for what in ("type", "grade"):
            if value := _value(record, what, self._wanted):
                row[what] = value
        return row

    def _problem(self, record: Record) -> dict[str, Any] | Dropped:
        fields = problem_fields(record.fields, self._wanted.fields)

        def drop(reason: str, detail: str) -> Dropped:
            return Dropped(record.place, reason, detail, record.id)

        if "question" not in fields or not fields.keys() & {"solution", "answer"}:
            have = ", ".join(sorted(record.fields)) or "nothing"
            return drop("no question and answer", f"the document has: {have}; say which is which with --field")
        texts = [str(fields[name]) for name in ("question", "solution", "answer") if name in fields]
        for text in texts:
            if why := unreadable(text):
                return drop("unreadable", why)
        if words := needs_image("\n".join(texts)):
            return drop("needs an image", f"it says {words!r}")
        try:
            examples = list(self._task.examples(Record(record.id, fields, record.place)))
        except DataError as error:
            return drop("the task refuses", error.message)
        for example in examples:
            if not example.target:
                return drop("no final answer", "the solution marks no answer that can be graded")
            score = self._task.grade(example, example.messages[-1].content)
            if score.value != 1.0:
                note = score.note or "no reason given"
                return drop("answer cannot be graded", f"its own solution scores {score.value}: {note}")
        return {**fields, "_question": str(fields["question"]), "_answer": examples[0].target if examples else ""}

    def _chat(self, record: Record) -> dict[str, Any] | Dropped:
        def drop(reason: str, detail: str) -> Dropped:
            return Dropped(record.place, reason, detail, record.id)

        turns = turns_of(record.fields, self._wanted.fields)
        if not turns:
            have = ", ".join(sorted(record.fields)) or "nothing"
            return drop("no transcript", f"the document has: {have}; say which with --field messages=NAME")
        turns = [dict(turn) if isinstance(turn, Mapping) else turn for turn in turns]
        while turns and isinstance(turns[-1], Mapping) and _role(turns[-1]) != "assistant":
            turns.pop()  # nobody answered it, so it teaches nothing
        try:
            (messages,) = to_messages({"messages": turns}, "messages", place=record.place)
        except RowRefused as refusal:
            return drop(refusal.reason, refusal.detail)
        said: list[dict[str, Any]] = []
        count = 0
        for message in messages:
            if message.content and (why := unreadable(message.content)):
                return drop("unreadable", why)
            for call in _CALL.findall(message.content):
                if not _is_call(call):
                    return drop("broken tool call", f"not JSON with a name: {call.strip()[:60]!r}")
            text, times = masked(message.content) if self._wanted.mask else (message.content, 0)
            count += times
            turn = {"role": message.role, "content": text, **message.extra}
            if (
                said
                and said[-1]["role"] == message.role
                and message.role in ("user", "assistant")
                and not message.extra
            ):
                said[-1]["content"] += f"\n{text}"  # one speaker, two bubbles
            else:
                said.append(turn)
        first = next((at for at, turn in enumerate(said) if turn["role"] != "system"), 0)
        while first < len(said) and said[first]["role"] == "assistant":
            del said[first]  # a greeting that answers nothing, which many chat templates refuse
        if not any(turn["role"] == "user" for turn in said) or said[-1]["role"] != "assistant":
            return drop("no exchange", "there is no question of a user with an answer after it")
        self.masked += count
        question = "\n".join(turn["content"] for turn in said if turn["role"] == "user")
        made: dict[str, Any] = {"messages": said, "_question": question, "_answer": said[-1]["content"]}
        if tools := lookup(record.fields, "tools"):
            made["tools"] = tools
        return {**made, "_masked": count}

    def _repeats(self, question: str, answer: str) -> str:
        """Place of a kept row that is the same, or nearly the same with the same answer or the same numbers."""
        if (first := self._same.get(plain(question))) is not None:
            return first
        for at, _ in self._index.nearest(question, _ALIKE):
            place, other, its_answer = self._known[at]
            if plain(answer) == plain(its_answer) or sorted(_NUMBERS.findall(question)) == sorted(
                _NUMBERS.findall(other)
            ):
                return place
        return ""


def _role(turn: Mapping[str, Any]) -> str:
    name = str(turn.get("role") or turn.get("from") or "").lower()
    return "assistant" if name in ("assistant", "gpt", "bot", "model", "agent", "function_call") else name


def _is_call(text: str) -> bool:
    try:
        call = json.loads(text)
    except ValueError:
        return False
    return isinstance(call, Mapping) and isinstance(call.get("name"), str)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    staged = path.with_suffix(".tmp")
    with staged.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            kept = {key: value for key, value in row.items() if key not in ("id", "place")}
            file.write(json.dumps({**kept, "source": row["place"]}, ensure_ascii=False, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


# --- the command line's words -----------------------------------------------------------------------------------------


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    """`["a=b"]` as a mapping.

    Raises:
        ConfigError: one has no `=`.
    """
    found: dict[str, str] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r} is not NAME=VALUE", place=option, remedy=f"write {option} field=value")
        found[key] = value
    return found


def typed(text: str) -> str | int | bool:
    """A value from the command line as the payload has it: whole numbers and true/false are no texts."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d{1,15}", text) else text
