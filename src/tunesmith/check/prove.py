"""`tunesmith prove`: the user's own run on a slice, from data to a graded answer of its export, killed in between.

    interrupted    the run, killed while it writes a checkpoint
    continued      the same command again: resumes, finishes, grades, merges, exports, reports
    uninterrupted  the same run without the kill: what the other must be equal to
    reloaded       every export in a process of its own: questions, answers, grades

Each is the ordinary command in a process of its own; there is no second trainer. What they left is then looked at.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.check.rehearsal import (
    Ended,
    Late,
    Launch,
    Process,
    end,
    finish,
    kill_in_a_save,
    room_for_two,
    share_data,
    slice_of,
    spawn,
)
from tunesmith.checkpoints.commit import digest
from tunesmith.config.load import Loaded
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config
from tunesmith.rundir import RunDir
from tunesmith.tracking import environment
from tunesmith.types import Finding

FOLDER = ".rehearsals"
_KILLS = 4
"""Attempts to hit a save; one of a tiny model takes a hundredth of a second."""
_COST = "the run itself would end like this, after its hours"
_GPU_LOSS = 2e-2
"""Relative difference of losses that kernels in another order may make on a GPU."""


@dataclass(frozen=True)
class Shown:
    """One thing that was held against what it ought to be."""

    name: str
    passed: bool
    text: str
    """What was seen, with figures."""


@dataclass
class Proof:
    """What a rehearsal came to."""

    run: str
    steps: int
    at: int
    folder: Path
    settings: str
    """Digest of the recipe's resolved settings."""
    shown: list[Shown] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    created: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    judges: bool = False
    """Whether the task judged some answer of the run."""

    @property
    def passed(self) -> bool:
        """Whether everything was as it ought to be."""
        return not self.findings and bool(self.shown) and all(one.passed for one in self.shown)

    def figures(self) -> dict[str, Any]:
        """As `proof.json` holds it; `signature` is the digest of everything else, so that a change shows."""
        said = {
            "run": self.run, "passed": self.passed, "steps": self.steps, "killed_at": self.at,
            "settings": self.settings, "created": self.created, "machine": self.machine,
            "shown": [asdict(one) for one in self.shown],
            "findings": [asdict(one) for one in self.findings],
            "seconds": {name: round(took, 1) for name, took in self.seconds.items()},
        }  # fmt: skip
        return {**said, "signature": signature(said)}

    def text(self) -> str:
        """For a terminal."""
        lines = [f"  {'ok  ' if one.passed else 'FAIL'}  {one.name:<14} {one.text}" for one in self.shown]
        for one in self.findings:
            lines += [f"  FAIL  {one.check.removeprefix('prove.'):<14} {one.message}", f"        place: {one.place}"]
            lines += [f"        cost: {one.cost}"] if one.cost else []
            lines += [f"        mend: {one.remedy}"] if one.remedy else []
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        verdict = "proved" if self.passed else "NOT proved"
        total = sum(self.seconds.values())
        return "\n".join(
            [f"{self.run}: {verdict} on {self.steps} steps in {total:.0f} s ({took})", *lines,
             f"  signed  {self.figures()['signature'][:16]}  {self.created}"]
        )  # fmt: skip


def signature(said: Mapping[str, Any]) -> str:
    """Digest of a proof's content."""
    content = {key: value for key, value in said.items() if key != "signature"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def prove(
    loaded: Loaded,
    *,
    steps: int = 20,
    at: int = 10,
    minutes: float = 60.0,
    launch: Launch = spawn,
    announce: Callable[[str, str], None] = lambda stage, outcome: None,
) -> Proof:
    """Rehearse a run: train, be killed in a save, resume, finish, merge, export, reload, answer, be graded.

    The proof is written to `proof.json` in the rehearsal's folder, and kept beside the runs for the run's report.

    Args:
        loaded: settings with the origin of each.
        steps: optimizer steps of the rehearsal.
        at: the step whose save is interrupted.
        minutes: longest that a part may take.
        launch: starts a program; `spawn` in a Python of its own.
        announce: told what each part came to.

    Raises:
        ConfigError: `at` is no step in the middle.
    """
    config = loaded.config
    folder = config.output_dir / FOLDER / config.name
    main = slice_of(config, folder, "rehearsal", steps, at)
    reference = slice_of(config, folder, "uninterrupted", steps, at)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    proof = Proof(
        config.name, steps, at, folder, settings_digest(config),
        created=datetime.now(UTC).isoformat(timespec="seconds"), machine=environment(),
    )  # fmt: skip
    parts = _Parts(proof, folder, launch, 60 * minutes, announce)
    run, plain = RunDir(folder / main.name), RunDir(folder / reference.name)
    for part in (main, reference):
        (folder / f"{part.name}.yaml").write_text(dump_config(part), encoding="utf-8")
    if parts.interrupt(run, at):
        share_data(run, plain)
        # Both compute the same from here on, and neither knows of the other: where nothing is scarce, at once.
        beside = parts.begin("uninterrupted", "train", reference.name) if room_for_two() else None
        went_on = parts.whole("continued", "run", main.name, beside)
        if went_on and parts.whole("uninterrupted", "train", reference.name, started=beside):
            parts.reload(run)
            for look in (_resumed, _same_bits, _learned, _graded, _exported, _reported):
                for one in look(run, plain, proof):
                    proof.shown.append(one)
                    parts.announce("prove", f"{'ok' if one.passed else 'FAIL'}: {one.name}: {one.text}")
    _write(proof)
    return proof


def settings_digest(config: RunConfig) -> str:
    """Digest of the recipe's resolved settings, its place left out."""
    lines = dump_config(config.model_copy(update={"output_dir": Path("runs"), "limits": type(config.limits)()}))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


class _Parts:
    """The processes of a rehearsal, one after the other; what goes wrong becomes a finding."""

    def __init__(
        self, proof: Proof, folder: Path, launch: Launch, seconds: float, announce: Callable[[str, str], None]
    ) -> None:
        self._proof, self._folder, self._launch, self._seconds = proof, folder, launch, seconds
        self.announce = announce

    def _part(self, name: str, work: Callable[[Path], None]) -> bool:
        """Do a part, which is given its log; whether it ended well."""
        start = time.perf_counter()
        log = self._folder / f"{name}.log"
        try:
            work(log)
        except Ended as error:
            self._proof.findings.append(Finding(f"prove.{name}", "error", error.message, str(log), error.remedy, _COST))
            self.announce("prove", f"FAIL: {name}: {error.message}")
            return False
        finally:
            self._proof.seconds[name] = time.perf_counter() - start
        return True

    def interrupt(self, run: RunDir, at: int) -> bool:
        """Start the run and kill it in the save of a step."""

        def work(log: Path) -> None:
            for _ in range(_KILLS):
                shutil.rmtree(run.root, ignore_errors=True)
                process = self._launch("tunesmith", ["train", str(self._folder / f"{run.root.name}.yaml")], log)
                try:
                    text = kill_in_a_save(process, run, at, log, self._seconds)
                except Late:
                    continue
                if run.events.exists():  # a resume forgets the steps that it takes again
                    shutil.copyfile(run.events, self._folder / "interrupted.jsonl")
                self._proof.shown.append(Shown("kill", True, text))
                self.announce("prove", f"ok: kill: {text}")
                return
            raise Ended(f"{_KILLS} saves of step {at} were each complete before the kill arrived", remedy="try again")

        return self._part("interrupted", work)

    def begin(self, name: str, verb: str, recipe: str) -> Process:
        """Start a verb on a recipe."""
        return self._launch("tunesmith", [verb, str(self._folder / f"{recipe}.yaml")], self._folder / f"{name}.log")

    def whole(
        self, name: str, verb: str, recipe: str, beside: Process | None = None, *, started: Process | None = None
    ) -> bool:
        """Run a verb on a recipe to its end, or wait for the one that was started; where it fails, `beside` ends too."""

        def work(log: Path) -> None:
            try:
                finish(started or self.begin(name, verb, recipe), log, self._seconds)
            except BaseException:
                if beside is not None:
                    end(beside)
                raise

        return self._part(name, work)

    def reload(self, run: RunDir) -> bool:
        """Meet the exports in a process of their own."""
        out = self._folder / "reloaded.json"

        def work(log: Path) -> None:
            finish(self._launch("reload", [str(run.root), str(out)], log), log, self._seconds)
            if not out.exists():
                raise Ended("it ended well and said nothing", remedy="see its log")

        return self._part("reloaded", work)


# --- what is looked at ------------------------------------------------------------------------------------------------


def _losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of every log line, in the order in which they were written."""
    return [
        (int(event["step"]), float(event["loss"]) if event.get("loss") is not None else math.nan)
        for event in _lines(path)
        if event.get("event") == "log" and "loss" in event
    ]


def _resumed(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """It went on from the checkpoint before the torn one, and took every step after it."""
    saved = proof.at // 2
    said = re.findall(r"continuing from step (\d+)", run.log.read_text("utf-8")) if run.log.exists() else []
    text = f"continued from step {said[-1]}" if said else "began again: nothing was resumed"
    steps = [step for step, _ in _losses(run.events)]
    yield Shown(
        "resume",
        [int(step) for step in said] == [saved] and steps == list(range(1, proof.steps + 1)),
        f"{text}, {saved} was expected; {len(steps)} of {proof.steps} steps in the log",
    )


def _same_bits(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """The interrupted run is the uninterrupted one: its examples, its losses, its weights."""
    exact = proof.machine.get("gpu") is None
    rows, other = (_batches(one) for one in (run, plain))
    yield Shown(
        "same examples",
        bool(rows) and rows == other,
        f"the examples of {len(rows)} steps have the digests of the uninterrupted run"
        if rows == other
        else f"steps {_differing(rows, other)} were trained on other examples",
    )
    before, theirs = _losses(proof.folder / "interrupted.jsonl"), dict(_losses(plain.events))
    mine = before + _losses(run.events)
    gaps = [abs(loss - theirs.get(step, math.nan)) / max(abs(theirs.get(step, math.nan)), 1e-9) for step, loss in mine]
    worst = max((math.inf if math.isnan(gap) else gap for gap in gaps), default=math.inf)
    yield Shown(
        "same losses",
        worst <= (0.0 if exact else _GPU_LOSS),
        f"largest relative difference over {len(mine)} log lines, repeated steps included: {worst:.2g}",
    )
    ours, alone = (_weights(one) for one in (run, plain))
    if exact:
        yield Shown(
            "same weights",
            bool(ours) and ours == alone,
            "resumed and uninterrupted weights have the same sha256"
            if ours == alone
            else f"sha256 of the trained weights differs: {_short(ours)} after the resume, {_short(alone)} without",
        )


def _learned(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """Losses are numbers and fall; every trained layer moved."""
    losses = [loss for _, loss in _losses(plain.events)]
    few = max(1, len(losses) // 4)
    finite = bool(losses) and all(math.isfinite(loss) for loss in losses)
    first, last = (statistics.mean(part) if part else math.nan for part in (losses[:few], losses[-few:]))
    yield Shown(
        "loss falls", finite and last < first, f"{first:.4f} over the first {few} steps, {last:.4f} over the last {few}"
    )
    still = _unmoved(run)
    yield Shown(
        "all layers",
        not still,
        "every adapter left its zeros" if not still else f"{len(still)} layers did not move, among them {still[0]}",
    )


def _graded(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """The tuned model answered, and its answers were judged."""
    lines = [line for path in sorted((run.root / "scores").glob("tuned-*.jsonl")) for line in _lines(path)]
    if not lines:
        return
    judged = [line for line in lines if line.get("value") is not None]
    spoken = [line for line in lines if str(line.get("completion", "")).strip()]
    proof.judges = bool(judged)
    yield Shown(
        "answers",
        bool(spoken) and bool(judged),
        f"{len(lines)} questions, {len(spoken)} answered with text, {len(judged)} judged, "
        f"{sum(float(line['value']) for line in judged):g} points",
    )


def _exported(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """Every export agrees with the trained model, twice: when it was written, and from disk in a new process."""
    summary = _json(run.summary)
    written = {Path(one["path"]).name: one for one in summary.get("exports") or [] if isinstance(one, Mapping)}
    reloaded = _json(proof.folder / "reloaded.json").get("exports", {})
    yield Shown(
        "exports", bool(written) and set(written) <= set(reloaded),
        f"written: {', '.join(sorted(written)) or 'none'}; met again: {', '.join(sorted(reloaded)) or 'none'}",
    )  # fmt: skip
    for name, found in sorted(reloaded.items()):
        verified = found["verified"]
        again = written.get(name, {}).get("verified") or {}
        same = again.get("same_choice") is not None and verified["same_tokens"] == verified["prompts"]
        yield Shown(f"export {name}", bool(same), str(found["sentence"]))
        if "answers" in found:
            spoken = sum(bool(str(text).strip()) for text in found["answers"])
            judged = [score for score in found["scores"] if score is not None]
            yield Shown(
                f"ask {name}",
                spoken > 0 and bool(judged) >= proof.judges,
                f"{spoken} of {len(found['answers'])} questions answered with text, {found['stopped']} ended by "
                + (f"themselves, {sum(judged):g} points" if judged else "themselves; the task judges no answers"),
            )


def _reported(run: RunDir, plain: RunDir, proof: Proof) -> Iterator[Shown]:
    """The run says that it is complete, and its page is there."""
    status = _json(run.summary).get("status")
    there = run.report.exists() and run.report.stat().st_size > 10_000
    yield Shown("report", status == "complete" and there, f"status {status}, page {'written' if there else 'missing'}")


# --- small things -----------------------------------------------------------------------------------------------------


def _weights(run: RunDir) -> dict[str, str]:
    return {path.name: digest(path) for path in sorted(run.adapter.glob("*.safetensors"))}


def _short(weights: Mapping[str, str]) -> str:
    return ", ".join(value[:12] for value in weights.values()) or "none"


def _unmoved(run: RunDir) -> list[str]:
    """Adapter matrices that begin as zeros and still are, or are no numbers."""
    from safetensors.torch import load_file

    found = []
    for path in sorted(run.adapter.glob("adapter_model*.safetensors")):
        for name, tensor in load_file(path).items():
            if "lora_B" in name and not (bool(tensor.isfinite().all()) and bool(tensor.any())):
                found.append(name)
    return found


def _batches(run: RunDir) -> dict[int, str]:
    return {int(line["step"]): str(line["rows"]) for line in _lines(run.batches)}


def _differing(rows: Mapping[int, str], other: Mapping[int, str]) -> str:
    steps = sorted(step for step in {*rows, *other} if rows.get(step) != other.get(step))
    return ", ".join(map(str, steps[:5])) + (", ..." if len(steps) > 5 else "")


def _lines(path: Path) -> list[Mapping[str, Any]]:
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if isinstance(one, dict)]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(proof: Proof) -> None:
    text = json.dumps(proof.figures(), indent=1, ensure_ascii=False, default=str)
    (proof.folder / "proof.json").write_text(text, encoding="utf-8")
    (proof.folder / "proof.txt").write_text(proof.text() + "\n", encoding="utf-8")


def read_proof(path: Path) -> dict[str, Any]:
    """A proof, with `intact` saying whether it is as it was signed; empty where there is none."""
    said = _json(path)
    return {**said, "intact": said.get("signature") == signature(said)} if said else {}
