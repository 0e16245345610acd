from __future__ import annotations

import datetime as dt
import logging
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tunesmith.config.schema import SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.sql.embedded import GOLD, GUEST, Embedded
from tunesmith.tasks.sql.guard import FAILURES
from tunesmith.tasks.sql.postgres import Server, open_server

STATE = "SELECT count(*), sum(total), (SELECT count(*) FROM customers), (SELECT count(*) FROM pg_class) FROM orders"

# What a model could write by mistake or malice, and the class of failure it must get.
HOSTILE = [
    ("SELECT 1; DELETE FROM orders", "several_statements"),
    ("COMMIT; DROP TABLE orders", "several_statements"),
    ("COMMIT; BEGIN READ WRITE; DELETE FROM orders; SELECT 1", "several_statements"),
    ("SET statement_timeout = 0; SELECT 1", "several_statements"),
    ("DELETE FROM orders", "write_attempt"),
    ("DELETE FROM orders RETURNING *", "write_attempt"),
    ("UPDATE orders SET total = 0", "write_attempt"),
    ("INSERT INTO customers VALUES (9, 'x')", "write_attempt"),
    ("MERGE INTO orders o USING customers c ON o.customer_id = c.id WHEN MATCHED THEN DELETE", "write_attempt"),
    ("WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone", "write_attempt"),
    ("SELECT * INTO stolen FROM orders", "write_attempt"),
    ("CREATE TABLE t AS SELECT 1 AS one", "write_attempt"),
    ("CREATE TEMP TABLE orders (id int)", "write_attempt"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "write_attempt"),
    ("DROP TABLE orders", "write_attempt"),
    ("TRUNCATE orders", "write_attempt"),
    ("ALTER TABLE orders ADD x int", "write_attempt"),
    ("GRANT ALL ON orders TO PUBLIC", "write_attempt"),
    ("SELECT * FROM orders FOR UPDATE", "write_attempt"),
    ("EXPLAIN ANALYZE DELETE FROM orders", "write_attempt"),
    ("LOCK TABLE orders", None),
    ("VACUUM orders", None),
    ("COPY orders TO PROGRAM 'touch /tmp/tunesmith_hostile'", "forbidden"),
    ("COPY orders TO '/tmp/tunesmith_hostile'", "forbidden"),
    ("COPY orders TO STDOUT", "write_attempt"),
    ("COPY orders FROM STDIN", "forbidden"),
    ("SELECT pg_read_file('/etc/passwd')", "forbidden"),
    ("SELECT pg_ls_dir('/')", "forbidden"),
    ("SELECT lo_create(0)", "forbidden"),
    ("SELECT lo_import('/etc/passwd')", "forbidden"),
    ("SELECT pg_sleep(60)", "forbidden"),
    ("SELECT pg_advisory_lock(1)", "forbidden"),
    ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", "forbidden"),
    ("SELECT query FROM pg_stat_activity", "forbidden"),
    ("SELECT * FROM pg_stat_get_activity(NULL)", "forbidden"),
    ("SELECT pg_notify('a', 'b')", "forbidden"),
    ("SELECT set_config('statement_timeout', '0', false)", "forbidden"),
    ("SELECT query_to_xml('DELETE FROM orders', true, true, '')", "forbidden"),
    ("SELECT rolpassword FROM pg_authid", "forbidden"),
    ("DO $$ BEGIN DELETE FROM orders; END $$", "forbidden"),
    ("SET ROLE postgres", "forbidden"),
    ("SET SESSION AUTHORIZATION postgres", "forbidden"),
    ("RESET ROLE", "write_attempt"),
    ("SET statement_timeout = 0", "write_attempt"),
    ("SET TRANSACTION READ WRITE", "write_attempt"),
    ("COMMIT", "write_attempt"),
    ("ROLLBACK", "write_attempt"),
    ("BEGIN READ WRITE", "write_attempt"),
    ("PREPARE p AS DELETE FROM orders", "write_attempt"),
    ("LISTEN channel", "write_attempt"),
    ("LOAD 'dblink'", None),
    ("CREATE EXTENSION dblink", "write_attempt"),
    ("ALTER SYSTEM SET fsync = off", None),
    ("DISCARD ALL", None),
    ("SELECT * FROM generate_series(1, 1000000000)", None),
    ("SELECT count(*) FROM generate_series(1, 1000000000)", None),
    ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r", None),
    ("SELECT a.id FROM orders a, orders b, orders c, orders d, orders e, orders f, orders g", "too_large"),
    ("SELECT repeat('x', 300000)", "too_large"),
    ("SELECT repeat('x', 2000000000)", "too_large"),
    ("SELECT 'x' || '\0' || 'y'", "syntax"),
    ("SELECT '\ud800'", "syntax"),
    ("SELECT '" + "x" * 1_000_000 + "'", "too_large"),
    ("", "empty_answer"),
    ("   ;  ", "empty_answer"),
    ("-- nothing", "empty_answer"),
    ("/* nothing */", "empty_answer"),
    ("SELECT", "empty_answer"),
    ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, None),
    ("I cannot answer that.", "syntax"),
]


@pytest.mark.parametrize(("sql", "failure"), HOSTILE, ids=[sql[:40] for sql, _ in HOSTILE])
def test_a_hostile_statement_fails_within_its_limits_and_changes_nothing(
    server: Server, sql: str, failure: str | None
) -> None:
    before = server.trusted("shop", psycopg.sql.SQL(STATE))
    start = time.perf_counter()
    result = server.run("shop", sql)
    # The limit is one second; the rest is for machines that do other things at the same time.
    assert time.perf_counter() - start < 8
    assert result.error is not None
    assert result.error.failure in FAILURES
    if failure is not None:
        assert result.error.failure == failure, result.error
    assert server.trusted("shop", psycopg.sql.SQL(STATE)) == before
    assert server.run("shop", "SELECT current_user::text, current_setting('statement_timeout')").rows == (
        (GUEST, "1s"),
    )
    assert not Path("/tmp/tunesmith_hostile").exists()


@pytest.mark.parametrize(
    ("sql", "failure"),
    [
        ("SELEC 1", "syntax"),
        ("SELECT nme FROM customers", "unknown_column"),
        ("SELECT 1 FROM nowhere", "unknown_table"),
        ("SELECT 1 FROM nowhere.customers", "unknown_table"),
        ("SELECT nofunction(1)", "unknown_function"),
        ("SELECT id FROM customers JOIN orders ON customer_id = customers.id", "ambiguous"),
        ("SELECT 1 FROM customers WHERE name = 1", "type"),
        ("SELECT 'x'::integer", "type"),
        ("SELECT city, count(*) FROM customers", "grouping"),
        ("SELECT 1 / 0", "other_error"),
        ("SELECT (SELECT id FROM customers)", "other_error"),
    ],
)
def test_a_failing_query_is_classed_by_its_sqlstate(server: Server, sql: str, failure: str) -> None:
    error = server.run("shop", sql).error
    assert error is not None
    assert error.failure == failure
    assert len(error.sqlstate) == 5


def test_rows_arrive_as_python_values_with_the_names_of_their_columns(server: Server) -> None:
    result = server.run(
        "shop", "SELECT id, total, placed_at, status IS NULL AS gone FROM orders WHERE id IN (2, 5) ORDER BY 1"
    )
    assert result.columns == ("id", "total", "placed_at", "gone")
    assert result.rows == ((2, Decimal("250.50"), dt.datetime(2024, 2, 5, 11), False), (5, None, None, False))
    assert result.error is None
    assert not result.truncated


def test_dates_beyond_python_arrive_as_text(server: Server) -> None:
    result = server.run("shop", "SELECT 'infinity'::date, '44-03-15 BC'::date, '-infinity'::timestamptz")
    assert result.rows == (("infinity", "0044-03-15 BC", "-infinity"),)


def test_percent_signs_and_colons_are_not_placeholders(server: Server) -> None:
    result = server.run("shop", "SELECT name FROM customers WHERE name LIKE '%d%' AND ':name' <> '%s' AND 7 % 4 = 3")
    assert result.rows == (("Ada",),)


def test_a_result_over_the_limit_is_cut_off_and_an_error(server: Server) -> None:
    result = server.run("shop", "SELECT generate_series(1, 5000)")
    assert result.truncated
    assert len(result.rows) == 1000
    assert result.error is not None
    assert result.error.failure == "too_large"


def test_a_query_that_takes_too_long_is_stopped_on_the_server(server: Server) -> None:
    result = server.run(
        "shop", "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b WHERE a <> b"
    )
    assert result.error is not None
    assert result.error.failure in ("timeout", "too_large")
    assert result.seconds < 8


def test_nothing_of_one_query_is_left_for_the_next(server: Server) -> None:
    server.run("shop", "SET work_mem = '64kB'")
    server.run("shop", "PREPARE p AS SELECT 1")
    server.run("shop", "DECLARE c CURSOR WITH HOLD FOR SELECT 1")
    assert server.run("shop", "SELECT current_setting('work_mem')").rows == (("32MB",),)
    assert server.run("shop", "SELECT count(*) FROM pg_prepared_statements").rows == ((0,),)
    assert server.run("shop", "SELECT count(*) FROM pg_cursors WHERE name = 'c'").rows == ((0,),)


def test_gold_runs_as_another_role_and_is_remembered(server: Server) -> None:
    first = server.run("shop", "SELECT current_user::text, random()", gold=True)
    assert first.rows[0][0] == GOLD
    assert server.run("shop", "SELECT current_user::text, random()", gold=True) is first
    assert server.run("shop", "SELECT current_user::text").rows == ((GUEST,),)


def test_tables_outside_public_are_found_without_their_schema(server: Server) -> None:
    assert server.run("shop", "SELECT label FROM shelves ORDER BY 1").rows == (("A",), ("B",))


def test_a_function_of_the_file_can_be_used_in_a_query(server: Server) -> None:
    assert server.run("shop", "SELECT double(id) FROM shelves ORDER BY 1").rows == ((2,), (4,))


def test_hundreds_of_queries_run_in_a_second(server: Server) -> None:
    start = time.perf_counter()
    for _ in range(300):
        server.run("shop", "SELECT count(*) FROM orders")
    assert 300 / (time.perf_counter() - start) > 30  # thousands on an idle machine; CI machines are not


def test_a_database_the_settings_do_not_name_is_an_error_that_lists_them(server: Server) -> None:
    with pytest.raises(DataError) as raised:
        server.run("warehouse", "SELECT 1")
    assert "shop" in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("sql", "line", "reason"),
    [
        ("CREATE TABLE a (i int);\n\nCREATE TABLE b (\n  i int,\n  j nosuchtype\n);\n", 5, "nosuchtype"),
        ("CREATE TABLE a (i int);\nCOPY a FROM stdin;\n1\n2\nx\n\\.\n", 5, "invalid input"),
        ("SELECT 1;\n\\i other.sql\n", 2, "psql"),
        ("SELECT 1;\nSELECT 'never closed;\n", 2, "never ends"),
        ("CREATE TABLE a (i int);\n/* never closed", 2, "never ends"),
        ("CREATE TABLE a (i int PRIMARY KEY);\nINSERT INTO a VALUES (1);\nINSERT INTO a VALUES (1);\n", 3, "duplicate"),
        ("COPY (SELECT 1) TO PROGRAM 'true';\n", 1, "permission"),
    ],
)
def test_a_file_that_does_not_load_is_named_with_its_line(
    server: Server, tmp_path: Path, sql: str, line: int, reason: str
) -> None:
    path = tmp_path / "broken.sql"
    path.write_text(sql, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        server.load("broken", path)
    assert raised.value.place == f"{path}:{line}"
    assert reason in raised.value.message
    assert raised.value.remedy


def test_a_missing_file_and_a_file_in_another_encoding_are_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        server.load("gone", tmp_path / "gone.sql")
    path = tmp_path / "latin.sql"
    path.write_bytes("SELECT 1;\nSELECT 'Chloë';".encode("latin-1"))
    with pytest.raises(DataError) as raised:
        server.load("latin", path)
    assert raised.value.place == f"{path}:2"


def test_a_changed_file_is_loaded_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "changing.sql"
    path.write_text("CREATE TABLE a AS SELECT 1 AS i;")
    server.load("changing", path)
    assert server.run("changing", "SELECT i FROM a", gold=True).rows == ((1,),)
    path.write_text("CREATE TABLE a AS SELECT 2 AS i;")
    server.load("changing", path)
    assert server.run("changing", "SELECT i FROM a", gold=True).rows == ((2,),)


def test_a_database_without_a_file_cannot_be_on_the_embedded_server(server: Server) -> None:
    with pytest.raises(ConfigError) as raised:
        server.load("elsewhere", None)
    assert raised.value.place == "task.databases.elsewhere"


@pytest.mark.parametrize(
    ("setting", "environ", "place"),
    [
        ("env:MY_SERVER", {}, "task.server"),
        ("postgresql://me:secret@host/db", {}, "task.server"),
        ("not a connection string", {}, "task.server"),
        ("embedded", {"TUNESMITH_POSTGRES_URL": "postgresql://me:secret@[bad"}, "TUNESMITH_POSTGRES_URL"),
        ("env:MY_SERVER", {"MY_SERVER": "host=/nowhere password=secret connect_timeout=1"}, "MY_SERVER"),
    ],
)
def test_a_server_that_cannot_be_used_is_an_error_without_its_password(
    setting: str, environ: dict[str, str], place: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        open_server(SqlTask(server=setting), environ)
    assert raised.value.place == place
    assert raised.value.remedy
    assert "secret" not in str(raised.value)


@pytest.fixture
def own(server: Server) -> Embedded:
    """The embedded server, in the part of a server of the user's own."""
    home = server._home
    assert isinstance(home._server, Embedded)
    return home._server


def test_a_superuser_is_refused_on_a_server_of_the_users_own(own: Embedded) -> None:
    with pytest.raises(ConfigError) as raised:
        open_server(SqlTask(), {"TUNESMITH_POSTGRES_URL": own.url("postgres", "postgres")})
    assert "superuser" in raised.value.message
    assert "CREATE ROLE" in raised.value.remedy


def test_a_database_of_the_users_own_is_read_and_what_is_not_guaranteed_is_said(
    server: Server, own: Embedded, caplog: pytest.LogCaptureFixture
) -> None:
    server.run("shop", "SELECT 1")
    settings = SqlTask(server="env:MINE", databases={"shop": None, "missing": None}, timeout_seconds=1)
    with caplog.at_level(logging.WARNING), open_server(settings, {"MINE": own.url("tunesmith_owner", "shop")}) as mine:
        assert mine.run("shop", "SELECT count(*) FROM orders").rows == ((5,),)
        error = mine.run("shop", "DELETE FROM orders").error
        assert error is not None
        assert error.failure == "write_attempt"
        error = mine.run("shop", "COMMIT; DELETE FROM orders").error
        assert error is not None
        assert error.failure == "several_statements"
        assert mine.run("shop", "SELECT count(*) FROM orders").rows == ((5,),)
        assert any("write" in finding.message for finding in mine.findings)
        with pytest.raises(ConfigError, match="no database 'missing'"):
            mine.run("missing", "SELECT 1")
    assert "write" in caplog.text


def test_a_file_is_not_loaded_over_a_database_of_the_users_own(server: Server, own: Embedded, shop_sql: Path) -> None:
    server.run("shop", "SELECT 1")
    settings = SqlTask(databases={"shop": shop_sql, "fresh": shop_sql})
    with open_server(settings, {"TUNESMITH_POSTGRES_URL": own.url("tunesmith_gold", "shop")}) as mine:
        with pytest.raises(ConfigError, match="not made from"):
            mine.run("shop", "SELECT 1")
        with pytest.raises(ConfigError, match="may not create"):
            mine.run("fresh", "SELECT 1")


def test_a_named_file_is_loaded_where_the_user_may_create_databases(own: Embedded, shop_sql: Path) -> None:
    with psycopg.connect(own.url("postgres", "postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE creator LOGIN CREATEDB")
        admin.execute("GRANT CONNECT ON DATABASE postgres TO creator")
    settings = SqlTask(databases={"created": shop_sql})
    for _ in range(2):  # the second time it is found, and known to come from this file
        with open_server(settings, {"TUNESMITH_POSTGRES_URL": own.url("creator", "postgres")}) as mine:
            assert mine.run("created", "SELECT count(*) FROM orders").rows == ((5,),)


def test_the_server_of_a_killed_run_is_removed_by_the_next(server: Server) -> None:
    code = (
        "import os, signal\n"
        "from tunesmith.tasks.sql.embedded import Embedded\n"
        "print(Embedded().folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    folder = Path(killed.stdout.strip())
    assert folder.exists(), killed.stderr
    pid = int((folder / "postmaster.pid").read_text().split()[0])
    from tunesmith.tasks.sql.embedded import _remove_orphans

    _remove_orphans()
    assert not folder.exists()
    until = time.monotonic() + 20
    while time.monotonic() < until and Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists() or "Z" in _state(pid)
    assert server.run("shop", "SELECT 1").rows == ((1,),), "a server in use was taken for an orphan"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_closing_removes_the_folder_also_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_server(SqlTask(), {}) as running:
        home = running._home
        folder = home._server.folder  # type: ignore[union-attr]
        assert folder.exists()
        raise RuntimeError
    assert not folder.exists()
    running.close()
