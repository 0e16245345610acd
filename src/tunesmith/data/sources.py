"""A source -> records, one at a time, in bounded memory. What cannot be read becomes a `Dropped` with its line."""

from __future__ import annotations

import codecs
import csv
import errno
import glob
import gzip
import hashlib
import importlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from tunesmith.config.schema import Source
from tunesmith.data import fast_json
from tunesmith.data.ledger import Dropped
from tunesmith.data.qdrant import is_qdrant, read_points
from tunesmith.errors import DataError
from tunesmith.types import Record

CHUNK = 1 << 20
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_ARCHIVES = (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zX")
_FUNCTION = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_GAP = re.compile(r"[\s,]*")
_REMEDIES = {
    errno.ENOENT: "check the path; relative paths are resolved against the recipe",
    errno.EACCES: "give yourself permission to read it",
    errno.ELOOP: "the link points to itself; replace it with the file",
    errno.EISDIR: f"name a file, or a folder that holds {', '.join(SUFFIXES)} files",
}


def read_records(source: Source, max_record_bytes: int) -> Iterator[Record | Dropped]:
    """Read a file, folder, glob, Hub data set or function, in a fixed order.

    Args:
        source: where; `source.where` leaves out records silently, because they are another set's; `source.max_samples`
            stops after that many of the others.
        max_record_bytes: a larger record is reported by its size and not parsed.

    Raises:
        DataError: nothing can be read at all (missing, no permission, empty, not a data file), or a file breaks off
            at a point from which reading cannot go on.
    """
    records = (item for item in _records(source, max_record_bytes) if _is_asked_for(item, source))
    return records if source.max_samples is None else islice(records, source.max_samples)


def read_whole(source: Source, max_record_bytes: int) -> list[Record]:
    """The records of a source of which none may be missing.

    Raises:
        DataError: as `read_records`, and where a record cannot be read.
    """
    found: list[Record] = []
    for item in read_records(source, max_record_bytes):
        if isinstance(item, Dropped):
            raise DataError(f"{item.reason}: {item.detail}", place=item.place, remedy="mend it, or take it out")
        found.append(item)
    return found


def source_files(source: Source) -> list[Path] | None:
    """The files of a source in reading order, or None when it is a function, a Hub data set or a Qdrant collection.

    Raises:
        DataError: the path, folder or glob holds no data file.
    """
    path = source.path
    if path.startswith("hf://") or is_qdrant(path) or (_FUNCTION.match(path) and not Path(path).exists()):
        return None
    if _ADDRESS.match(path):
        raise DataError(
            "data is not read from addresses of this kind",
            place=path,
            remedy="download it and name the file, or use hf://owner/name, qdrant://host/collection or module:function",
        )
    place = Path(path)
    try:
        if place.is_dir():
            found = sorted(item for item in place.rglob("*") if item.suffix in SUFFIXES and item.is_file())
        elif glob.has_magic(path) and not place.exists():
            found = sorted(Path(item) for item in glob.glob(path, recursive=True) if Path(item).is_file())
        else:
            place.stat()
            found = [place]
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise DataError(f"no data file here ({', '.join(SUFFIXES)})", place=path, remedy=_REMEDIES[errno.ENOENT])
    return found


def _is_asked_for(item: Record | Dropped, source: Source) -> bool:
    """Whether the record has the wanted values; one that cannot be read is for the ledger to tell."""
    return (
        isinstance(item, Dropped)
        or is_qdrant(source.path)  # asked of the server, which knows nested fields
        or all(item.fields.get(key) == value for key, value in source.where.items())
    )


def _records(source: Source, limit: int) -> Iterator[Record | Dropped]:
    files = source_files(source)
    if files is None:
        if is_qdrant(source.path):
            rows: Iterator[Mapping[str, Any]] = read_points(source.path, source.where)
        else:
            rows = _hub(source) if source.path.startswith("hf://") else _function(source.path)
        yield from _from_rows(rows, source.path, limit)
        return
    for file in files:
        yield from _read_file(file, limit)


def _read_file(file: Path, limit: int) -> Iterator[Record | Dropped]:
    found = False
    try:
        before = file.stat()
        if file.suffix == ".parquet":
            items = _from_rows(_parquet(file), str(file), limit)
        elif file.suffix in (".csv", ".tsv"):
            items = _csv(file, limit)
        else:
            items = _json(file, limit)
        for item in items:
            found = True
            yield item
        after = file.stat()
    except OSError as error:
        raise _unreadable(str(file), error) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError("the file changed while it was read", place=str(file), remedy="run again when it is complete")
    if not found:
        raise DataError("the file holds no records", place=str(file), remedy="check that it was written completely")


def _unreadable(path: str, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the path")
    return DataError(f"cannot be read: {reason}", place=path, remedy=remedy)


# --- bytes ------------------------------------------------------------------------------------------------------------


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked when they are gzip whatever its name says."""
    with file.open("rb") as raw:
        head = _head(raw, 4)
        if head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(BinaryIO, unpacked)
            return
        if head in _ARCHIVES:
            raise DataError("this is an archive, not a data file", place=str(file), remedy="unpack it first")
        if head == b"PAR1":
            raise DataError("this is Parquet under another name", place=str(file), remedy="rename it to .parquet")
        yield raw


def _head(raw: BinaryIO, size: int) -> bytes:
    head = raw.read(size)
    raw.seek(0)
    return head


def _chunks(raw: BinaryIO) -> Iterator[bytes]:
    """UTF-8 chunks. UTF-16 is recognised by its BOM, or by the zero bytes beside ASCII at the start."""
    head = _head(raw, 4)
    encoding = None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(head) == 4 and head[1] == head[3] == 0 and head[0] and head[2]:
        encoding = "utf-16-le"
    elif len(head) == 4 and head[0] == head[2] == 0 and head[1] and head[3]:
        encoding = "utf-16-be"
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass") if encoding else None
    first = True
    while chunk := raw.read(CHUNK):
        if decoder:
            chunk = decoder.decode(chunk).encode("utf-8", errors="surrogatepass")
        if first:
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
            first = False
        yield chunk


def _lines(chunks: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes | int, bool]]:
    """(number, the line or its size when over the limit, whether it ended), holding no more than limit + a chunk."""
    number, pending, skipped = 1, b"", 0
    newline = b""
    for chunk in chunks:
        if not newline:
            newline = b"\r" if b"\r" in chunk and b"\n" not in chunk else b"\n"
        start = 0
        while (stop := chunk.find(newline, start)) >= 0:
            size = skipped + len(pending) + stop - start
            yield number, (size if size > limit else pending + chunk[start:stop]), True
            number, pending, skipped, start = number + 1, b"", 0, stop + 1
        if skipped or len(pending) + len(chunk) - start > limit:
            skipped += len(pending) + len(chunk) - start
            pending = b""
        else:
            pending += chunk[start:]
    if skipped or pending:
        yield number, skipped or pending, False


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(file: Path, limit: int) -> Iterator[Record | Dropped]:
    try:
        with _open(file) as raw:
            head = b"".join(islice(_chunks(raw), 1))
            raw.seek(0)
            if _is_document(head, file.suffix):
                yield from _json_values(_chunks(raw), str(file), limit)
            else:
                yield from _json_lines(_chunks(raw), str(file), limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the gzip file is broken: {error}", place=str(file), remedy="copy it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"broken UTF-16: {error.reason}", place=str(file), remedy="save it as UTF-8") from error


def _is_document(head: bytes, suffix: str) -> bool:
    """Whether the values span lines: an array, or a `.json` whose first line is not a whole object."""
    text = head.lstrip()
    if text.startswith(b"["):
        return True
    if suffix != ".json" or not text.startswith(b"{"):
        return False
    try:
        json.loads(text.splitlines()[0])
    except (ValueError, RecursionError):
        return True
    return False


def _json_lines(chunks: Iterable[bytes], path: str, limit: int) -> Iterator[Record | Dropped]:
    for number, line, ended in _lines(chunks, limit):
        place = f"{path}:{number}"
        if isinstance(line, int):
            yield _too_large(place, line, limit)
        elif line.strip():
            yield _parse(line, path, number, ended)


def _parse(line: bytes, path: str, number: int, ended: bool) -> Record | Dropped:
    place = f"{path}:{number}"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Dropped(place, "invalid UTF-8", f"byte {error.start} of the line is not UTF-8; save the file as UTF-8")
    try:
        fields = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not ended and error.pos >= len(text.rstrip()) - 1 or (not ended and error.msg.startswith("Unterminated")):
            return Dropped(place, "cut off", "the file ends inside this record")
        return Dropped(place, "broken JSON", f"{error.msg} at column {error.colno}{_hint(text, error)}")
    except ValueError as error:
        return Dropped(place, "broken JSON", str(error))
    except RecursionError:
        return Dropped(place, "nested too deeply", "arrays or objects inside each other beyond any use")
    return _record(fields, path, number)


def _hint(text: str, error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Extra data"):
        return ": two values on one line; write one object a line"
    if re.match(r"\s*\{\s*'", text):
        return ": JSON needs double quotes"
    if re.search(r",\s*[}\]]", text[max(0, error.pos - 20) : error.pos + 2]):
        return ": there is a comma before the closing bracket"
    return ""


def _json_values(chunks: Iterator[bytes], path: str, limit: int) -> Iterator[Record | Dropped]:
    """The objects of an array or a run of objects, holding no more than one of them and a chunk."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, at, line, in_array, ended = "", 0, 1, False, False

    def more() -> None:
        nonlocal text, at, ended
        chunk = next(chunks, None)
        try:
            text, at = text[at:] + decoder.decode(chunk or b"", final=chunk is None), 0
        except UnicodeDecodeError as error:
            raise DataError("invalid UTF-8", place=f"{path}:{line}", remedy="save the file as UTF-8") from error
        ended = chunk is None

    while True:
        gap = _GAP.match(text, at)
        stop = gap.end() if gap else at
        line, at = line + text.count("\n", at, stop), stop
        if at == len(text):
            if ended:
                break
            more()
            continue
        if text[at] == ("]" if in_array else "["):
            in_array = not in_array
            at += 1
            continue
        place = f"{path}:{line}"
        try:
            fields, stop = _DECODER.raw_decode(text, at)
        except RecursionError as error:
            raise DataError("nested too deeply to read", place=place, remedy="flatten the record") from error
        except ValueError as error:
            if not ended and len(text) - at <= limit:
                more()
                continue
            if not ended:
                raise DataError(
                    f"a record of this document is broken, or larger than data.max_record_bytes ({limit:,})",
                    place=place,
                    remedy="write the file as JSON lines, so that the others can be read",
                ) from error
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(
                f"broken JSON: {reason}", place=place, remedy="repair it, or write the file as JSON lines"
            ) from error
        if not ended and stop == len(text):
            more()  # a number may go on in the next chunk
            continue
        yield _record(fields, path, line)
        line, at = line + text.count("\n", at, stop), stop
    if in_array:
        raise DataError("the array is not closed: the file is cut off", place=f"{path}:{line}", remedy="copy it again")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value; write null or leave the key out")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} appears twice in one object")
            seen.add(key)
    return fields


def _integer(digits: str) -> int:
    if len(digits) > 1000:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys, parse_int=_integer)


# --- other forms ------------------------------------------------------------------------------------------------------


def _csv(file: Path, limit: int) -> Iterator[Record | Dropped]:
    delimiter = "\t" if file.suffix == ".tsv" else ","
    path = str(file)
    with _open(file) as raw:
        lines = (_text_line(line, path, number) for number, line, _ in _lines(_chunks(raw), limit))
        before = csv.field_size_limit(limit)
        try:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if header is None:
                return
            if len(set(header)) < len(header):
                raise DataError("two columns have the same name", place=f"{path}:1", remedy="rename one of them")
            number = reader.line_num + 1
            for cells in reader:
                if len(cells) == len(header):
                    yield _record(dict(zip(header, cells, strict=True)), path, number)
                elif cells:
                    detail = f"{len(cells)} cells under {len(header)} columns; quote cells that hold {delimiter!r}"
                    yield Dropped(f"{path}:{number}", "wrong number of cells", detail)
                number = reader.line_num + 1
        except csv.Error as error:
            place = f"{path}:{reader.line_num}"
            raise DataError(
                f"broken CSV: {error}", place=place, remedy="quote cells with line ends or quotes"
            ) from error
        finally:
            csv.field_size_limit(before)


def _text_line(line: bytes | int, path: str, number: int) -> str:
    place = f"{path}:{number}"
    if isinstance(line, int):
        remedy = "an unclosed quote, or a cell above data.max_record_bytes"
        raise DataError(f"a line of {line:,} bytes", place=place, remedy=remedy)
    try:
        return line.decode("utf-8") + "\n"
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start} is not UTF-8", place=place, remedy="save the file as UTF-8") from error


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with file.open("rb") as raw:
            for batch in parquet.ParquetFile(raw).iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        raise DataError(f"not a Parquet file we can read: {first}", place=str(file), remedy="write it again") from error


def _hub(source: Source) -> Iterator[Mapping[str, Any]]:
    import datasets

    name = source.path.removeprefix("hf://")
    try:
        yield from datasets.load_dataset(name, split=source.split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "check the name, the split and the network; a gated data set needs `hf auth login`"
        raise DataError(f"cannot be read: {first}", place=source.path, remedy=remedy) from error


def _function(path: str) -> Iterator[Mapping[str, Any]]:
    yield from load_function(path)()


def load_function(path: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        DataError: the module or the function does not exist.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        remedy = "write module:function of a module that Python can import; the recipe's folder is importable"
        raise DataError(f"no module named {error.name!r}", place=path, remedy=remedy) from error
    except AttributeError as error:
        raise DataError(f"{module} has no {name!r}", place=path, remedy="check the function's name") from error
    if not callable(found):
        raise DataError("is not a function", place=path, remedy="name a function")
    function: Callable[..., Any] = found
    return function


def _from_rows(rows: Iterable[Any], path: str, limit: int) -> Iterator[Record | Dropped]:
    for number, fields in enumerate(rows, 1):
        size = _size(fields)
        yield _too_large(f"{path}:{number}", size, limit) if size > limit else _record(fields, path, number)


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_size(item) for item in value)
    return 8


def _too_large(place: str, size: int, limit: int) -> Dropped:
    detail = f"{size:,} bytes; data.max_record_bytes is {limit:,}: usually a data dump pasted into a prompt"
    return Dropped(place, "record too large", detail)


def _record(fields: Any, path: str, number: int) -> Record | Dropped:
    place = f"{path}:{number}"
    if not isinstance(fields, dict | Mapping):  # dict first: asking an abstract class takes longer
        return Dropped(place, "not an object", f"a record is an object with named fields, this is {_kind(fields)}")
    try:
        canonical = fast_json.dumps(fields, default=str, option=orjson.OPT_SORT_KEYS)
    except UnicodeEncodeError:
        return Dropped(place, "lone surrogate", "half of a character pair (\\ud800-\\udfff) stands alone")
    except (TypeError, RecursionError) as error:
        return Dropped(place, "not a record", str(error))
    if b"\\u0000" in canonical and _holds_nul(fields):
        return Dropped(place, "NUL in text", "a text holds the character U+0000")
    return Record(hashlib.blake2b(canonical, digest_size=12).hexdigest(), fields, path, number)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(_holds_nul(item) for item in value.values())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
