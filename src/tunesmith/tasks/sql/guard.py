"""One untrusted statement on one connection: read-only, one only, with limits on time, rows and bytes."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.types import datetime as pgtime

from tunesmith.errors import DataError
from tunesmith.tasks.sql.script import split_statements

FAILURES = (
    "syntax",
    "unknown_column",
    "unknown_table",
    "unknown_function",
    "ambiguous",
    "type",
    "grouping",
    "timeout",
    "write_attempt",
    "forbidden",
    "too_large",
    "empty_answer",
    "several_statements",
    "other_error",
)
"""Why a query gave no rows to compare."""

MAX_QUERY = 100_000
"""Characters of a query we send: no person and no sane model writes more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one statement may cost."""

    seconds: float
    """On the server; the client waits half a second more and then ends the connection."""
    rows: int
    bytes: int
    """Of the result as it travels: text, plus a few bytes per value."""


@dataclass(frozen=True, slots=True)
class SqlError:
    """Why a statement gave no result."""

    sqlstate: str
    """PostgreSQL's five characters; empty where we refused the statement ourselves."""
    message: str
    failure: str
    """One of `FAILURES`."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement returned."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    error: SqlError | None = None
    seconds: float = 0.0
    truncated: bool = False
    """The result was larger than the limits; `rows` holds its beginning and `error` is `too_large`."""


def run_guarded(
    connection: psycopg.Connection[Any], sql: str, limits: Limits, *, writes: bool = False, trusted: bool = False
) -> Result:
    """Run one statement that nobody vouches for, and leave the connection as it was, or closed.

    The extended protocol takes exactly one statement, so nothing can end our transaction and go on; that, and the
    rights of the connection's role, are the protection. READ ONLY is a second belt. The session is discarded
    afterwards, so no setting, prepared statement or lock reaches the next query.

    Args:
        connection: in autocommit mode, logged in as a role without rights to write.
        sql: the statement, however hostile.
        limits: of this statement. `statement_timeout` must have been set on the connection to match.
        trusted: the role may not call what would change the session from within a SELECT (`set_config`, advisory
            locks): after one, there is nothing to discard.
        writes: let it change rows, and keep what it did; the connection must be one to a copy made for it.
    """
    started = time.perf_counter()
    refused = _refuse(sql)
    if refused is None:
        try:
            result = _in_transaction(connection, sql, limits, started, writes)
            if not connection.closed:
                ending = b"COMMIT" if result.error is None else b"ROLLBACK"
                if writes and (refusal := _plainly(connection, ending)):
                    result = Result(error=refusal)
                if not (trusted and _ONLY_READS.match(sql)):
                    _plainly(connection, b"DISCARD ALL")
        except psycopg.OperationalError as error:
            connection.close()
            result = _failed("08006", f"the connection was lost: {_first_line(str(error))}", "other_error")
    else:
        result = Result(error=refused)
    return Result(result.columns, result.rows, result.error, time.perf_counter() - started, result.truncated)


_ONLY_READS = re.compile(r"[\s(]*(select|with|values|table|explain)\b", re.IGNORECASE)


def _plainly(connection: psycopg.Connection[Any], statement: bytes) -> SqlError | None:
    """A statement of our own that returns at once: straight to libpq, which is several times faster than a cursor.

    Raises:
        psycopg.OperationalError: the connection is lost.
    """
    result = connection.pgconn.exec_(statement)
    if result.status == pq.ExecStatus.FATAL_ERROR:
        if connection.pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        return _error_of(result, "")
    return None


def plainly(connection: psycopg.Connection[Any], statements: str) -> None:
    """Run statements of our own, in one transaction and one round trip; raises psycopg's errors."""
    result = connection.pgconn.exec_(statements.encode())
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)


def failure_class(sqlstate: str) -> str:
    """The class of failure that a SQLSTATE stands for."""
    return _BY_STATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2], "other_error")


_BY_STATE = {
    "42601": "syntax",
    "42703": "unknown_column",
    "42P01": "unknown_table",
    "3F000": "unknown_table",
    "42883": "type",
    "42702": "ambiguous",
    "42725": "ambiguous",
    "42P09": "ambiguous",
    "42803": "grouping",
    "42P20": "grouping",
    "42P10": "grouping",
    "42804": "type",
    "42846": "type",
    "42P18": "type",
    "42809": "type",
    "42P08": "type",
    "42P22": "type",
    "22P02": "type",
    "22007": "type",
    "22008": "type",
    "57014": "timeout",
    "55P03": "timeout",
    "25006": "write_attempt",
    "42501": "forbidden",
    "53400": "too_large",
}
_BY_CLASS = {"53": "too_large", "54": "too_large"}


def _refuse(sql: str) -> SqlError | None:
    """What need not, or must not, reach the server."""
    if "\0" in sql:  # libpq would send only what stands before it
        return SqlError("", "the query contains a NUL character", "syntax")
    if len(sql) > MAX_QUERY:
        return SqlError("", f"the query has {len(sql):,} characters, more than {MAX_QUERY:,}", "too_large")
    try:
        sql.encode()
    except UnicodeEncodeError:
        return SqlError("", "the query is not valid Unicode", "syntax")
    return None


class _Abandoned(Exception):
    """The statement exceeded a limit that only we watch."""

    def __init__(self, sqlstate: str, message: str, failure: str) -> None:
        super().__init__(message)
        self.error = SqlError(sqlstate, message, failure)
        self.is_large = failure == "too_large"
        self.columns: tuple[str, ...] = ()
        """Of what had arrived."""
        self.rows: tuple[tuple[Any, ...], ...] = ()


def _in_transaction(
    connection: psycopg.Connection[Any], sql: str, limits: Limits, started: float, writes: bool
) -> Result:
    """Begin, run the statement and, where nothing of it is to stay, roll back: all sent at once, in one round trip.

    A pipeline skips what follows an error up to the next sync, so the ROLLBACK stands behind a sync of its own.
    """
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    pgconn.send_query_params(b"BEGIN TRANSACTION READ WRITE" if writes else b"BEGIN TRANSACTION READ ONLY", None)
    pgconn.send_query_params(sql.encode(), None)
    pgconn.pipeline_sync()
    if not writes:
        pgconn.send_query_params(b"ROLLBACK", None)
        pgconn.pipeline_sync()
    arrivals = _Arrivals(pgconn, limits, started + limits.seconds + 0.5)
    try:
        begun = arrivals.next()
        if begun is None or begun.status != pq.ExecStatus.COMMAND_OK or arrivals.next() is not None:
            raise psycopg.OperationalError("no transaction could be begun")
        result = _rows_of(connection, arrivals, sql, limits, writes)
        for _ in range(1 if writes else 4):  # the sync; what ROLLBACK says, the end of that, and its sync
            arrivals.next()
        pgconn.exit_pipeline_mode()
    except _Abandoned as abandoned:
        _abandon(connection)
        return Result(abandoned.columns, abandoned.rows, abandoned.error, truncated=abandoned.is_large)
    return result


def _rows_of(
    connection: psycopg.Connection[Any], arrivals: _Arrivals, sql: str, limits: Limits, writes: bool
) -> Result:
    """What the statement gives, row by row as it arrives."""
    if pq.version() >= 170000:
        connection.pgconn.set_chunked_rows_mode(256)
    else:
        connection.pgconn.set_single_row_mode()
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    error: SqlError | None = None
    transformer = Transformer(connection)
    try:
        while (result := arrivals.next()) is not None:
            status = result.status
            if status in _ROWS:
                if not columns and result.nfields:
                    columns = tuple([(result.fname(i) or b"").decode() for i in range(result.nfields)])
                if result.ntuples:
                    transformer.set_pgresult(result)
                    rows += transformer.load_rows(0, result.ntuples, tuple)
                if len(rows) > limits.rows:
                    raise _Abandoned("", f"the result has more than {limits.rows:,} rows", "too_large")
                if not result.nfields:
                    error = SqlError("", "the query selects no column", "empty_answer")
            elif status == pq.ExecStatus.FATAL_ERROR:
                error = _error_of(result, sql)
            elif status == pq.ExecStatus.EMPTY_QUERY:
                error = SqlError("", "there is no statement in the answer", "empty_answer")
            elif status == pq.ExecStatus.COMMAND_OK:
                tag = (result.command_status or b"").decode()
                if writes and tag.split(" ")[0] in ("INSERT", "UPDATE", "DELETE", "MERGE"):
                    continue
                error = SqlError("", f"{tag} is not a query: it returns no rows", "write_attempt")
            else:  # COPY ... TO STDOUT; the connection now speaks another protocol
                raise _Abandoned("", "COPY is not a query", "write_attempt")
    except _Abandoned as abandoned:
        abandoned.columns, abandoned.rows = columns, tuple(rows[: limits.rows])
        raise
    return Result(() if error else columns, () if error else tuple(rows), error)


_ROWS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK)


class _Arrivals:
    """Results as they arrive. Bytes are counted on the socket, because one value alone may have a gigabyte."""

    def __init__(self, pgconn: pq.abc.PGconn, limits: Limits, deadline: float) -> None:
        self._pgconn, self._limits, self._deadline = pgconn, limits, deadline
        self._received = 0

    def next(self) -> pq.abc.PGresult | None:
        while self._pgconn.flush():
            self._wait(writing=True)
        while self._pgconn.is_busy():
            self._wait(writing=False)
            self._received += _waiting_bytes(self._pgconn.socket)
            if self._received > self._limits.bytes:
                raise _Abandoned("", f"the result has more than {self._limits.bytes:,} bytes", "too_large")
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _wait(self, *, writing: bool) -> None:
        if not _is_ready(self._pgconn.socket, writing, max(0.0, self._deadline - time.perf_counter())):
            raise _Abandoned("57014", f"no answer after {self._limits.seconds:g} s", "timeout")


if sys.platform == "win32":
    import select

    def _is_ready(socket: int, writing: bool, seconds: float) -> bool:
        ready = select.select([] if writing else [socket], [socket] if writing else [], [], seconds)
        return any(ready)

    def _waiting_bytes(socket: int) -> int:
        """Windows cannot say what waits on a socket; libpq reads at least this much at a time."""
        return 8192
else:
    import array
    import fcntl
    import select
    import termios

    def _is_ready(socket: int, writing: bool, seconds: float) -> bool:
        # `poll` opens no file of its own, as epoll does, and takes descriptors beyond 1023, as `select` does not.
        poll = select.poll()
        poll.register(socket, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def _waiting_bytes(socket: int) -> int:
        waiting = array.array("i", [0])
        fcntl.ioctl(socket, termios.FIONREAD, waiting)
        return int(waiting[0])


def _abandon(connection: psycopg.Connection[Any]) -> None:
    """Cancel on the server and drop the connection: reading a large result to its end would cost what we refuse."""
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=2)
    connection.close()


def _error_of(result: pq.abc.PGresult, sql: str) -> SqlError:
    def said(field: pq.DiagnosticField) -> str:
        return (result.error_field(field) or b"").decode(errors="replace")

    state = said(pq.DiagnosticField.SQLSTATE)
    message = said(pq.DiagnosticField.MESSAGE_PRIMARY) or _first_line(result.error_message.decode(errors="replace"))
    if hint := said(pq.DiagnosticField.MESSAGE_HINT):
        message += f" ({hint})"
    failure = failure_class(state)
    if failure == "syntax" and _is_several(sql):
        failure = "several_statements"
    elif state == "42883" and said(pq.DiagnosticField.SOURCE_FUNCTION) == "ParseFuncOrColumn":
        failure = "unknown_function"
    return SqlError(state, message, failure)


def _is_several(sql: str) -> bool:
    try:
        return sum(1 for _ in split_statements(sql)) > 1
    except DataError:
        return False


def _failed(sqlstate: str, message: str, failure: str) -> Result:
    return Result(error=SqlError(sqlstate, message, failure))


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"


def read_any_date(connection: psycopg.Connection[Any]) -> None:
    """Let dates that Python cannot hold (`infinity`, years BC or past 9999, long intervals) arrive as text."""
    for name, loader in (
        ("date", pgtime.DateLoader),
        ("timestamp", pgtime.TimestampLoader),
        ("timestamptz", pgtime.TimestamptzLoader),
        ("interval", pgtime.IntervalLoader),
        ("time", pgtime.TimeLoader),
        ("timetz", pgtime.TimetzLoader),
    ):
        connection.adapters.register_loader(name, _tolerant(loader))


def _tolerant(loader: type[Any]) -> type[Any]:
    def load(self: Any, data: Any) -> Any:
        try:
            return loader.load(self, data)
        except (psycopg.DataError, OverflowError):
            return bytes(data).decode()

    return type(f"Tolerant{loader.__name__}", (loader,), {"load": load})
