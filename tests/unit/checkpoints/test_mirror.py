"""A run's folder and its mirror: what is copied, what is restored, and what is said when something is not safe."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tunesmith.checkpoints import inputs, replicate
from tunesmith.checkpoints import mirror as module
from tunesmith.checkpoints.commit import commit
from tunesmith.checkpoints.mirror import Address, Mirror, mirrored, read_address, restored_settings
from tunesmith.checkpoints.snapshot import list_snapshots, snapshots
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config
from tunesmith.errors import ConfigError, DivergedError, NoCheckpointError, StoppedError, StorageError
from tunesmith.rundir import RunDir
from tunesmith.storage import LeaseHeldError, UnreachableError, take_lease
from tunesmith.storage.memory import MemoryStore

RUN = "tiny"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(replicate, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(module, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(module, "START_PATIENCE", 0.2)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def settings(tmp_path: Path, machine: str = "one", **changes: Any) -> RunConfig:
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n')
    return RunConfig.model_validate(
        {
            "name": RUN,
            "output_dir": tmp_path / machine / "runs",
            "task": "chat",
            "data": {"train": str(tmp_path / "train.jsonl")},
            "model": {"name": "demo"},
            "checkpoints": {"mirror": "s3://bucket/runs", "mirror_wait": 5.0, "keep_last": 2},
            **changes,
        }
    )


def checkpoint(run: RunDir, step: int) -> None:
    staged = run.checkpoints / f".staging-{step}"
    staged.mkdir(parents=True)
    (staged / "adapter_model.safetensors").write_bytes(bytes([step]) * 1000)
    commit(staged, run.checkpoints / f"checkpoint-{step}", step, {"seed": 1})


class Machine:
    """A machine with a run on it, as the pipeline uses a mirror."""

    def __init__(self, tmp_path: Path, store: MemoryStore, name: str = "one", **changes: Any) -> None:
        self.config = settings(tmp_path, name, **changes)
        self.run = RunDir(self.config.output_dir / RUN)
        self.store = store
        self.said: list[str] = []
        self.events: list[tuple[int, str]] = []
        self.summary: dict[str, Any] = {}

    def work(self, act: Callable[[Mirror, RunDir], object] = lambda mirror, run: None, fresh: bool = False) -> None:
        """Open the run, do something, and leave it."""
        with ExitStack() as stack:
            mirror = stack.enter_context(
                mirrored(self.config, self.run, fresh=fresh, store=self.store,
                         announce=lambda stage, said: self.said.append(said))
            )  # fmt: skip
            if mirror is None:
                return
            self.run.root.mkdir(parents=True, exist_ok=True)
            self.run.config.write_text(dump_config(self.config))
            if not self.run.summary.exists():
                self.status("running")
            mirror.attach(
                self.config,
                lambda step, said: self.events.append((step, said["state"])),
                lambda **parts: self.summary.update(parts),
            )
            act(mirror, self.run)

    def status(self, status: str) -> None:
        self.run.summary.write_text(json.dumps({"status": status}))

    def train(self, *steps: int, end: str = "complete") -> Callable[[Mirror, RunDir], None]:
        """Steps that each leave a confirmed checkpoint, and then the end."""

        def act(mirror: Mirror, run: RunDir) -> None:
            for step in steps:
                checkpoint(run, step)
                mirror.copy()
                assert mirror._replicator.flush(10)
            self.status(end)

        return act


def away(store: MemoryStore) -> None:
    def refuse(operation: str, key: str) -> None:
        raise UnreachableError("it is away")

    store.hook = refuse


def test_a_run_is_copied_as_it_goes_and_whole_at_its_end(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4))
    newest = next(found for _, found, _ in snapshots(store, RUN) if found is not None)
    assert newest.complete and newest.step == 4
    names = set(newest.files)
    assert {"run.json", "config.yaml", "inputs/0/train.jsonl", "inputs.json"} <= names
    assert {f"checkpoints/checkpoint-4/{name}" for name in ("MANIFEST.json", "adapter_model.safetensors")} <= names
    assert machine.said == [f"everything is safe at memory:/{RUN}"]
    assert {(2, "confirmed"), (4, "confirmed")} <= set(machine.events)
    assert machine.summary["mirror"]["confirmed_step"] == 4 and machine.summary["mirror"]["url"] == "memory:"


def test_an_empty_machine_gets_the_newest_copy(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4, end="running"))
    other = Machine(tmp_path, store, "two")

    def look(mirror: Mirror, run: RunDir) -> None:
        assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-4"]
        assert json.loads(run.summary.read_text()) == {"status": "running"}

    other.work(look)
    assert "restored from step 4" in other.said[0]
    assert not list(other.run.root.parent.glob(".restoring-*"))


def test_a_finished_run_comes_back_whole_and_is_not_sent_again(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2))
    before = len(store.calls)
    machine.work(lambda *_: pytest.fail("there is nothing to do"))
    assert not [call for call in store.calls[before:] if call[0] == "put"]
    other = Machine(tmp_path, store, "two")
    other.work()
    assert json.loads(other.run.summary.read_text()) == {"status": "complete"}


def test_a_machine_that_is_ahead_keeps_what_it_has(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, end="running"))
    checkpoint(machine.run, 3)
    machine.work(lambda mirror, run: None)
    assert [found.step for _, found, _ in snapshots(store, RUN) if found][0] == 3
    assert not any("came from the mirror" in said for said in machine.said)


def test_where_no_checkpoint_here_verifies_the_mirror_has_one(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4, end="running"))
    for path in machine.run.checkpoints.glob("checkpoint-*/adapter_model.safetensors"):
        path.write_bytes(b"damaged")
    machine.work(lambda mirror, run: None)
    assert any("checkpoint 4 came from the mirror; the newest whole one here was none" in said for said in machine.said)
    names = sorted(path.name for path in machine.run.checkpoints.iterdir())
    assert names[:2] == ["checkpoint-2", "checkpoint-4"] and names[2].startswith("corrupt-checkpoint-4")
    assert (machine.run.checkpoints / "checkpoint-4" / "adapter_model.safetensors").read_bytes() == bytes([4]) * 1000


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap"])
def test_a_damaged_copy_is_passed_over_for_the_one_before(tmp_path: Path, store: MemoryStore, damage: str) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4, end="running"))
    newest, older = [found for _, found, _ in snapshots(store, RUN) if found is not None][:2]
    path = f"checkpoints/checkpoint-{newest.step}/adapter_model.safetensors"
    key = newest.object_key(newest.files[path][1])
    content = store.objects[key]
    if damage == "gone":
        del store.objects[key]
    else:
        other = older.object_key(older.files["run.json"][1])
        store.objects[key] = {"flip": b"\x00" + content[1:], "cut": content[:-1], "swap": store.objects[other]}[damage]
    other_machine = Machine(tmp_path, store, "two")
    other_machine.work(lambda mirror, run: None)
    assert "restored from step 2" in other_machine.said[0]


def test_where_no_copy_verifies_nothing_starts_over_in_silence(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4, end="running"))
    for key in store.objects:
        if "objects" in key and len(store.objects[key]) == 1000:
            store.objects[key] = bytes(1000)
    other = Machine(tmp_path, store, "two")
    with pytest.raises(NoCheckpointError, match="no copy of this run verifies") as refused:
        other.work()
    assert refused.value.exit_code == 6 and not other.run.root.exists()


def test_a_run_of_other_settings_under_this_name_is_refused(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, end="running"))
    other = Machine(tmp_path, store, "two", seed=7)
    with pytest.raises(ConfigError, match="seed: 0 there, 7 here"):
        other.work()
    other.work(other.train(1), fresh=True)  # unless it is begun anew


def test_what_is_begun_anew_never_falls_back_to_the_old_run(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, 4))
    shutil.rmtree(machine.run.root)
    with pytest.raises(DivergedError):
        machine.work(lambda mirror, run: (_ for _ in ()).throw(DivergedError("early")), fresh=True)
    shutil.rmtree(machine.run.root)

    def look(mirror: Mirror, run: RunDir) -> None:
        assert not run.checkpoints.exists()
        machine.train(1)(mirror, run)

    machine.work(look)
    assert {found.step for _, found, _ in snapshots(store, RUN) if found is not None} == {0, 1}
    assert len({key.split("/")[1] for key in list_snapshots(store, RUN)}) <= 2  # the old run's copies are gone


def test_at_its_end_a_run_says_what_is_not_safe(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)
    machine.config = machine.config.model_copy(
        update={"checkpoints": machine.config.checkpoints.model_copy(update={"mirror_wait": 0.1})}
    )

    def act(mirror: Mirror, run: RunDir) -> None:
        machine.train(2)(mirror, run)
        away(store)

    with pytest.raises(
        StorageError, match="only the run up to step 2 is safe in the mirror memory:/tiny: it is away"
    ) as e:
        machine.work(act)
    assert e.value.exit_code == 4 and "same command" in e.value.remedy
    store.hook = None
    machine.work(lambda mirror, run: None)  # the same command copies what is missing
    assert next(found for _, found, _ in snapshots(store, RUN) if found).complete


def test_a_run_that_is_stopped_says_how_far_it_is_safe(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)

    def act(mirror: Mirror, run: RunDir) -> None:
        checkpoint(run, 3)
        raise StoppedError("stopped at step 3")

    with pytest.raises(StoppedError, match="stopped at step 3; step 3 is safe in the mirror") as stopped:
        machine.work(act)
    assert stopped.value.exit_code == 75


def test_a_folder_that_cannot_be_copied_stops_no_training_and_is_not_called_safe(
    tmp_path: Path, store: MemoryStore
) -> None:
    machine = Machine(tmp_path, store)

    def act(mirror: Mirror, run: RunDir) -> None:
        run.data.mkdir()
        (run.data / "link").symlink_to("/etc/hostname")
        checkpoint(run, 1)
        mirror.copy()
        machine.status("complete")

    with pytest.raises(StorageError, match="link is a link"):
        machine.work(act)


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path, store: MemoryStore) -> None:
    machine = Machine(tmp_path, store)

    def act(mirror: Mirror, run: RunDir) -> None:
        away(store)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.work(act)


def test_a_mirror_that_does_not_answer_is_told_before_anything_is_paid_for(tmp_path: Path, store: MemoryStore) -> None:
    away(store)
    with pytest.raises(UnreachableError) as refused:
        Machine(tmp_path, store).work(lambda *_: pytest.fail("it began"))
    assert refused.value.exit_code == 4


def test_an_outage_at_the_start_that_passes_is_waited_for(tmp_path: Path, store: MemoryStore) -> None:
    away(store)
    threading.Timer(0.05, lambda: setattr(store, "hook", None)).start()
    machine = Machine(tmp_path, store)
    machine.work(machine.train(1))
    assert machine.said[-1].startswith("everything is safe")


def test_a_second_writer_is_told_who_is_first(tmp_path: Path, store: MemoryStore) -> None:
    lease = take_lease(store, f"{RUN}/lease")
    with pytest.raises(LeaseHeldError, match="writes there"):
        Machine(tmp_path, store).work(lambda *_: pytest.fail("it began"))
    lease.release()


def test_a_half_restored_run_is_restored_again(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, store)
    machine.work(machine.train(2, end="running"))
    other = Machine(tmp_path, store, "two")
    (other.run.root / "scores").mkdir(parents=True)  # as a process that died in between left it
    other.work(lambda mirror, run: None)
    assert "restored from step 2" in other.said[0] and (other.run.checkpoints / "checkpoint-2").is_dir()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gs://bucket/runs/tiny", Address("gs://bucket/runs", "tiny")),
        ("s3:/bucket/runs/deep/tiny", Address("s3://bucket/runs/deep", "tiny")),
        ("gs://bucket/tiny/", Address("gs://bucket", "tiny")),
        ("file:///mnt/runs/tiny", Address("file:///mnt/runs", "tiny")),
        ("runs/tiny", None),
        ("/mnt/runs/tiny", None),
    ],
)
def test_addresses_of_runs(text: str, expected: Address | None) -> None:
    assert read_address(text) == expected


def test_the_address_alone_gives_settings_that_find_their_data(tmp_path: Path) -> None:
    machine = Machine(tmp_path, MemoryStore())
    url = f"file://{tmp_path}/mirror"
    from tunesmith.storage import open_store

    machine.store = open_store(url)  # type: ignore[assignment]
    machine.work(machine.train(2, end="running"))
    expected = tmp_path / "two" / "runs" / RUN / "inputs" / "0" / "train.jsonl"
    again = restored_settings(Address(url, RUN), tmp_path / "two" / "runs").config
    assert str(again.data.train.path) == str(tmp_path / "train.jsonl")  # it is still there
    (tmp_path / "train.jsonl").unlink()
    again = restored_settings(Address(url, RUN), tmp_path / "two" / "runs").config
    assert again.data.train is not None and again.data.train.path == str(expected)
    assert again.output_dir == tmp_path / "two" / "runs" and again.checkpoints.mirror == url
    with pytest.raises(StorageError, match="no run 'other' in this mirror"):
        restored_settings(Address(url, "other"), tmp_path)


def test_what_a_recipe_reads_is_copied_under_its_own_name(tmp_path: Path) -> None:
    for name in ("data/a/one.jsonl", "data/b/two.jsonl", "test.jsonl", "template.jinja", "dump.sql"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("""
task: {name: sql, databases: {company: dump.sql, live: null}}
data: {train: data, test: {mine: "*.jsonl"}}
model: {name: demo, chat_template: template.jinja}
""")
    config = load_config(recipe, environ={}).config
    found = inputs.gather(config)
    copies = inputs.contents(found)
    assert {key: said for key, (said, _) in found.items()} == {
        "data.train.path": "inputs/0/data",
        "data.test.mine.path": "inputs/1/*.jsonl",
        "task.databases.company": "inputs/2/dump.sql",
        "model.chat_template": "inputs/3/template.jinja",
    }
    assert {"inputs/0/data/a/one.jsonl", "inputs/0/data/b/two.jsonl", "inputs/1/test.jsonl"} <= set(copies)
    shutil.copytree(tmp_path / "data", tmp_path / "else" / RUN / "inputs" / "0" / "data")
    listed = inputs.to_bytes(found, config)
    shutil.rmtree(tmp_path / "data")
    changes = inputs.overrides(listed, RunDir(tmp_path / "else" / RUN))
    moved = load_config(recipe, changes, environ={}).config
    assert moved.data.train is not None and moved.data.train.path.endswith("else/tiny/inputs/0/data")
