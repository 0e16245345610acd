"""A run and its mirror: restored from there on an empty machine, copied there as it goes, settled at its end."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from tunesmith.checkpoints import inputs
from tunesmith.checkpoints.commit import MANIFEST, PREFIX
from tunesmith.checkpoints.names import Unsafe, plain_files
from tunesmith.checkpoints.replicate import FIRST_WAIT, Pending, Replicator, Status, Tell
from tunesmith.checkpoints.resume import CORRUPT, verify
from tunesmith.checkpoints.snapshot import Snapshot, download, snapshots
from tunesmith.config.load import Loaded, load_saved
from tunesmith.config.read import decode, parse
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config, write_value
from tunesmith.errors import ConfigError, NoCheckpointError, StoppedError, StorageError
from tunesmith.rundir import RunDir
from tunesmith.storage import Store, UnreachableError, get, open_store, take_lease

log = logging.getLogger(__name__)

T = TypeVar("T")

START_PATIENCE = 60.0
"""Most seconds that a run waits for an answer before it starts."""
STOP_PATIENCE = 20.0
"""Most seconds that a run which was asked to stop waits for its last copy: a machine that is taken away gives 30."""
_WHERE = ("output_dir", "name", "tracking", "limits", "data.cache_dir", "checkpoints.mirror", "checkpoints.mirror_wait")
"""Settings that may differ between the machine that wrote a mirror and the one that continues from it."""


class Mirror:
    """The mirror of one run, while we are its writer."""

    def __init__(self, run: RunDir, name: str, url: str, replicator: Replicator, patience: float) -> None:
        self.url = url
        self._run, self._name, self._replicator, self._patience = run, name, replicator, patience
        self._inputs: dict[str, bytes | Path] = {}
        self._summary: Callable[..., None] = lambda **_: None

    @property
    def status(self) -> Status:
        """Where it stands."""
        return self._replicator.status

    @property
    def pinned(self) -> frozenset[str]:
        """Names of checkpoints that must not be deleted here yet."""
        return self._replicator.pinned

    def attach(self, config: RunConfig, event: Tell, summary: Callable[..., None]) -> None:
        """Have what happens written down, and copy the run as it begins: settings, and what was here already.

        Args:
            config: names the data files, which are copied too.
            event: told of every confirmation, outage and recovery.
            summary: takes `mirror={...}` for `run.json`.
        """
        self._replicator.tell = event
        self._summary = summary
        found = inputs.gather(config)
        self._inputs = {inputs.LIST: inputs.to_bytes(found, config), **inputs.contents(found)}
        self.copy()

    def follow(self, trainer: Any) -> None:
        """Have every checkpoint of a trainer copied, and none deleted here while it is being copied."""
        trainer.on_commit.append(lambda path, manifest: self.copy())
        trainer.may_go = lambda path: path.name not in self.pinned

    def copy(self, *, complete: bool = False) -> bool:
        """Have the run as it is now copied in the background; False where it cannot be read, and training goes on."""
        try:
            pending = _pending(self._run, complete, self._inputs)
        except (OSError, ValueError) as error:  # `Unsafe` is one: somebody put a link or a pickle into the run's folder
            self.status.error = str(error)
            log.error("the run cannot be copied to its mirror: %s", error)
            return False
        self._replicator.enqueue(pending)
        return True

    def settle(self, *, complete: bool, seconds: float | None = None) -> bool:
        """Copy the run as it is and wait until that is safe; False when it took longer than `seconds`."""
        taken = self.copy(complete=complete)
        safe = self._replicator.flush(self._patience if seconds is None else seconds) and taken
        with suppress(OSError):
            self._summary(mirror={"url": self.url, **self.status.figures()})
        return safe

    def unsafe(self) -> str:
        """What is not safe, as a sentence."""
        status = self.status
        have = "nothing" if status.confirmed_step is None else f"the run up to step {status.confirmed_step}"
        why = f": {status.error}" if status.error else ", which is slower than the run"
        return f"only {have} is safe in the mirror {self.url}/{self._name}{why}"


@contextmanager
def mirrored(
    config: RunConfig, run: RunDir, *, fresh: bool, announce: Callable[[str, str], None], store: Store | None = None
) -> Iterator[Mirror | None]:
    """Keep a run's mirror while the run goes on; None where the recipe names none.

    On entering, the run is restored from the mirror where that is ahead of this machine. On leaving, whatever way, what
    there is is copied and waited for: to its end for `checkpoints.mirror_wait`, shorter when asked to stop.

    Args:
        config: the run.
        run: its folder here, which need not exist.
        fresh: begin anew: what the mirror has of this name is not looked at, and deleted once there is something newer.
        announce: told what was restored and what is safe.
        store: instead of the one the recipe names.

    Raises:
        StorageError: the mirror does not answer, somebody else writes there, or not everything was safe at the end.
        NoCheckpointError: the mirror has snapshots of this run and none of them verifies.
        ConfigError: the mirror's run of this name has other settings.
    """
    if config.checkpoints.mirror is None or os.environ.get("RANK", "0") != "0":  # of several processes the first copies
        yield None
        return
    store = store or open_store(config.checkpoints.mirror)
    if not fresh and _has_nothing_to_do(store, run, config):
        yield None
        return
    patience = config.checkpoints.mirror_wait
    told = lambda said: announce("mirror", said)  # noqa: E731
    lease = _patiently(lambda: take_lease(store, f"{config.name}/lease", told=told), min(START_PATIENCE, patience))
    try:
        since, restored = (
            (lease.token, None)
            if fresh
            else _patiently(lambda: _restore(store, run, config, lease.token), min(START_PATIENCE, patience))
        )
        if restored:
            announce("mirror", restored)
        replicator = Replicator(store, config.name, lease, since, config.checkpoints.keep_last)
        mirror = Mirror(run, config.name, store.url, replicator, patience)
        try:
            yield mirror
        except BaseException as error:
            _stopped(mirror, error)
            raise
        else:
            _ended(mirror, announce)
        finally:
            replicator.close()
    finally:
        lease.release()


def _ended(mirror: Mirror, announce: Callable[[str, str], None]) -> None:
    complete = _is_complete(mirror._run)
    if not mirror.settle(complete=complete):
        raise StorageError(
            f"the run is {'complete' if complete else 'whole'} on this machine, but {mirror.unsafe()}",
            place=str(mirror._run.root),
            remedy="keep this machine; given again when the mirror answers, the same command copies what is missing",
        )
    announce("mirror", f"everything is safe at {mirror.url}/{mirror._name}")


def _stopped(mirror: Mirror, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception):
        return  # asked a second time: at once
    seconds = min(STOP_PATIENCE, mirror._patience)
    if mirror.settle(complete=False, seconds=seconds):
        said = f"step {mirror.status.confirmed_step} is safe in the mirror"
    else:
        said = mirror.unsafe()
    log.warning("%s", said)
    if isinstance(error, StoppedError):
        error.message = f"{error.message}; {said}"


# --- what is copied ---------------------------------------------------------------------------------------------------


def _pending(run: RunDir, complete: bool, read: Mapping[str, bytes | Path]) -> Pending:
    """The run as it is, and what it reads: what changes is taken into memory now, what does not by its path."""
    contents: dict[str, bytes | Path] = dict(read)
    expected: dict[str, str] = {}
    step, pinned = 0, ""
    for path in [*run.root.glob("*.json*"), *run.root.glob("*.yaml"), *run.root.glob("*.html"), run.log]:
        if path.is_file() and path.name not in read and not path.name.endswith(".tmp"):
            contents[path.name] = path.read_bytes()
    for path in (run.root / "scores").glob("*.jsonl"):
        contents[f"scores/{path.name}"] = path.read_bytes()
    for folder in (run.data, run.adapter):
        contents |= {f"{folder.name}/{name}": path for name, path in _files(folder).items()}
    newest = max((p for p in run.checkpoints.glob(f"{PREFIX}*") if (p / MANIFEST).exists()), key=_step, default=None)
    if newest is not None:
        step, pinned = _step(newest), newest.name
        prefix = newest.relative_to(run.root).as_posix()
        contents |= {f"{prefix}/{name}": path for name, path in _files(newest).items()}
        said = json.loads((newest / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {f"{prefix}/{name}": sha for name, (_, sha) in said.items() if f"{prefix}/{name}" in contents}
    return Pending(step, complete, contents, pinned, expected)


def _files(folder: Path) -> dict[str, Path]:
    return plain_files(folder) if folder.is_dir() else {}


def _step(path: Path) -> int:
    tail = path.name.removeprefix(PREFIX)
    return int(tail) if tail.isdecimal() and tail.isascii() else -1


def _is_complete(run: RunDir) -> bool:
    return bool(_summary(run).get("status") == "complete")


def _summary(run: RunDir) -> dict[str, Any]:
    return dict(json.loads(run.summary.read_text(encoding="utf-8"))) if run.summary.exists() else {}


# --- what is restored -------------------------------------------------------------------------------------------------


def _has_nothing_to_do(store: Store, run: RunDir, config: RunConfig) -> bool:
    """Whether the run is complete here and in the mirror."""
    if not _is_complete(run):
        return False
    newest = _patiently(lambda: next(snapshots(store, config.name), None), START_PATIENCE)
    return newest is not None and newest[1] is not None and newest[1].complete


def _restore(store: Store, run: RunDir, config: RunConfig, writer: int) -> tuple[int, str | None]:
    """Bring this machine up to the mirror; returns the writer with which the run began, and what was done."""
    empty = not run.config.exists() and not any(run.checkpoints.glob(f"{PREFIX}*"))
    local = -1 if empty else _newest_here(run)
    since, reasons = writer, []
    for key, snapshot, reason in snapshots(store, config.name):
        if snapshot is None:
            reasons.append(f"{key}: {reason}")
            continue
        since = min(since, snapshot.since)
        try:
            _require_same(store, snapshot, config)
            # A snapshot of step 0 was taken before there was a checkpoint: it has none to give.
            if not empty and (snapshot.step <= max(local, 0) or run.adapter.exists()):
                return since, None
            if empty:
                _take_over(store, snapshot, run)
                done = f"the run was restored from step {snapshot.step} of {store.url}/{config.name}"
            else:
                _take_checkpoint(store, snapshot, run)
                done = f"checkpoint {snapshot.step} came from the mirror; the newest whole one here was " + (
                    f"{local}" if local >= 0 else "none"
                )
        except UnreachableError:
            raise
        except (StorageError, Unsafe) as error:
            reasons.append(f"{key}: {error}")
            log.warning("the copy %s is not used: %s", key, error)
            continue
        return since, done
    if empty and reasons:
        raise NoCheckpointError(
            "no copy of this run verifies: " + "; ".join(reasons),
            place=f"{store.url}/{config.name}",
            remedy="restore one from a backup of the bucket, or start anew with --fresh",
        )
    return since, None


def _newest_here(run: RunDir) -> int:
    whole = (path for path in sorted(run.checkpoints.glob(f"{PREFIX}*"), key=_step, reverse=True))
    return next((_step(path) for path in whole if path.is_dir() and verify(path)[0] is not None), -1)


def _take_over(store: Store, snapshot: Snapshot, run: RunDir) -> None:
    """Fetch a whole run into its place. The settings are written by whoever runs it: paths differ between machines."""
    wanted = [path for path in snapshot.files if path not in (run.config.name, run.origins.name, run.log.name)]
    with _staging(run) as folder:
        download(store, snapshot, folder, wanted)
        _require_whole(folder, snapshot)
        run.root.mkdir(parents=True, exist_ok=True)
        # The record last: without it the next start sees an empty machine, and restores again.
        for child in sorted(folder.iterdir(), key=lambda path: path.name == run.summary.name):
            target = run.root / child.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            child.replace(target)


def _take_checkpoint(store: Store, snapshot: Snapshot, run: RunDir) -> None:
    """Fetch the newest checkpoint alone, and put what had its name aside."""
    prefix = f"{run.checkpoints.name}/"
    with _staging(run) as folder:
        download(store, snapshot, folder, [path for path in snapshot.files if path.startswith(prefix)])
        _require_whole(folder, snapshot)
        fetched = folder / run.checkpoints.name / f"{PREFIX}{snapshot.step}"
        target = run.checkpoints / fetched.name
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        if target.exists() or target.is_symlink():
            target.rename(target.with_name(f"{CORRUPT}{target.name}-{secrets.token_hex(3)}"))
        fetched.rename(target)


def _require_whole(folder: Path, snapshot: Snapshot) -> None:
    """Raise `Unsafe` when the checkpoint in a fetched folder does not verify, or its step is not the snapshot's."""
    found = sorted((folder / "checkpoints").glob("*"))
    steps = [_step(path) for path in found]
    if steps != ([snapshot.step] if snapshot.step else steps[:0]):
        raise Unsafe(f"it holds checkpoints {steps} and says that it is of step {snapshot.step}")
    for path in found:
        manifest, reason = verify(path)
        if manifest is None:
            raise Unsafe(f"{path.name}: {reason}")


@contextmanager
def _staging(run: RunDir) -> Iterator[Path]:
    """A folder name beside the run's, on the same file system; what an earlier process left there is cleared away."""
    prefix = f".restoring-{run.root.name}-"
    for leftover in run.root.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = run.root.with_name(prefix + secrets.token_hex(4))
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_same(store: Store, snapshot: Snapshot, config: RunConfig) -> None:
    """Refuse to continue a run of other settings; where files lie may differ, what they are called may not."""
    said = snapshot.files.get("config.yaml")
    if said is None:
        return
    place = f"{store.url}/{snapshot.key}"
    written = decode(get(store, snapshot.object_key(said[1]), limit=4 * 1024 * 1024), place)
    then, now = (dict(_portable(parse(text, Path(place)).plain())) for text in (written, dump_config(config)))
    differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(f"{key}: {then.get(key)!r} there, {now.get(key)!r} here" for key in differing[:5])
        raise ConfigError(
            f"the mirror holds a run of this name with other settings: {shown}",
            place=f"{store.url}/{config.name}",
            remedy="give this run another name (name=... or --experiment-name), or --fresh to start anew there",
        )


def _portable(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if key in _WHERE:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _portable(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _portable(item, f"{key}.{index}")
    else:
        absolute = isinstance(value, str) and value.startswith("/")
        yield key, PurePosixPath(value).name if absolute else value


def _patiently(attempt: Callable[[], T], seconds: float) -> T:
    """Try until it answers or the time is over."""
    deadline, pause, shown = time.monotonic() + seconds, FIRST_WAIT, False
    while True:
        try:
            return attempt()
        except UnreachableError as error:
            if time.monotonic() + pause > deadline:
                raise
            if not shown:
                log.warning("the mirror does not answer (%s); trying for %.0f s", error.message, seconds)
            shown = True
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


class Address(NamedTuple):
    """A run in a mirror."""

    mirror: str
    name: str


def read_address(text: str) -> Address | None:
    """The run that `gs://bucket/folder/NAME` or `s3://bucket/folder/NAME` names; None for a folder of this machine."""
    match = re.fullmatch(r"(gs|s3|file):/+(.+)/([^/]+)/?", text)  # a path on the command line has lost one slash
    if match is None:
        return None
    kind, place, name = match.groups()
    return Address(f"file:///{place}" if kind == "file" else f"{kind}://{place}", name)


def restored_settings(address: Address, output_dir: Path, changed: Sequence[str] = ()) -> Loaded:
    """The settings of a run from its mirror's address alone, pointing at the copies of its data that come with it.

    Args:
        address: of the run, as its end shows it.
        output_dir: the folder for runs on this machine.
        changed: further settings, as `section.key=value`.

    Raises:
        StorageError: no such run there.
    """
    store = open_store(address.mirror)
    for _, snapshot, _ in snapshots(store, address.name):
        if snapshot is not None and "config.yaml" in snapshot.files:
            break
    else:
        raise StorageError(
            f"there is no run {address.name!r} in this mirror",
            place=address.mirror,
            remedy="give the address that its end showed: that of checkpoints.mirror, and the run's name",
        )
    here = {"output_dir": str(output_dir.absolute()), "checkpoints.mirror": address.mirror, "name": address.name}
    changes = [f"{key}={write_value(value)}" for key, value in here.items()]
    run = RunDir(output_dir / address.name)
    with _staging(run) as folder:
        download(
            store,
            snapshot,
            folder,
            [name for name in ("config.yaml", run.origins.name, inputs.LIST) if name in snapshot.files],
        )
        if inputs.LIST in snapshot.files:
            changes += inputs.overrides((folder / inputs.LIST).read_bytes(), run)
        return load_saved(folder / run.config.name, folder / run.origins.name, [*changes, *changed])
