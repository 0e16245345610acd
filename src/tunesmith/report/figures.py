"""From the files of a run to what the page says: figures, sentences, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.report import wording
from tunesmith.report.charts import Chart, Comparison, Estimate, Series, curve_chart
from tunesmith.report.read import RunFiles

Table = Mapping[str, Any]


class TestSet(NamedTuple):
    """The figures of one test set."""

    name: str
    base: Table
    tuned: Table
    paired: Table

    @property
    def comparison(self) -> Comparison:
        return Comparison(self.name, _estimate(self.base), _estimate(self.tuned))

    @property
    def n(self) -> float | None:
        return number(self.tuned or self.base, "n")

    @property
    def verdict(self) -> str:
        """See `verdict_of`."""
        return verdict_of(self.paired)


class Failures(NamedTuple):
    """How often one class of failure occurred in one test set."""

    failure: str
    base: int
    tuned: int


class Stage(NamedTuple):
    """A part of the run and its share of the time."""

    name: str
    seconds: float
    share: float


class Outcome(NamedTuple):
    """What became of a part of the rows read."""

    name: str
    rows: int
    share: float


class Rows(NamedTuple):
    """The data ledger in figures."""

    read: int
    outcomes: tuple[Outcome, ...]
    reasons: tuple[tuple[str, int], ...]
    notes: tuple[tuple[str, int], ...]
    """Rows kept but changed, by what was done to them."""
    difference: int
    """Rows read less rows accounted for: 0, or the ledger does not add up."""
    dropped: tuple[Table, ...]
    """The dropped rows themselves, each with place and reason."""


class Export(NamedTuple):
    """An exported artifact and what loading it back showed."""

    format: str
    verified: bool
    facts: tuple[tuple[str, str], ...]


class Setting(NamedTuple):
    """One setting, its value as text, and where the value came from."""

    key: str
    value: str
    origin: str


def verdict_of(paired: Table) -> str:
    """`better`, `worse`, `even` (the interval of the difference includes 0), or empty when not compared."""
    low, high = number(paired, "low"), number(paired, "high")
    if number(paired, "difference") is None or low is None or high is None:
        return ""
    return "better" if low > 0 else "worse" if high < 0 else "even"


def number(table: Table, *path: str) -> float | None:
    """The number at a path of keys, or None when there is none."""
    value: Any = table
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def section(table: Table, *path: str) -> Table:
    """The object at a path of keys, empty when there is none."""
    value: Any = table
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _estimate(scores: Table) -> Estimate | None:
    value = number(scores, "accuracy")
    return None if value is None else Estimate(value, number(scores, "low"), number(scores, "high"))


def test_sets(files: RunFiles) -> tuple[TestSet, ...]:
    """Every test set that was graded, in the order of the summary; sets that only have score files follow."""
    scores = section(files.summary, "scores")
    names = dict.fromkeys([*section(scores, "tuned"), *section(scores, "base"), *files.scores])
    return tuple(
        TestSet(
            name,
            section(scores, "base", name) or _counted(files.scores.get(name, {}).get("base", ())),
            section(scores, "tuned", name) or _counted(files.scores.get(name, {}).get("tuned", ())),
            section(files.summary, "paired", name),
        )
        for name in names
    )


def _counted(graded: Sequence[Table]) -> Table:
    """Accuracy counted from graded examples, for a run that stopped before its summary; it has no interval."""
    values = [value for example in graded if (value := number(example, "value")) is not None]
    if not values:
        return {}
    return {"accuracy": sum(values) / len(values), "n": len(values), "unscored": len(graded) - len(values)}


def lead(sets: Sequence[TestSet]) -> str:
    """The finding, in one sentence that claims no more than the intervals allow."""
    compared = [one for one in sets if one.verdict]
    if not compared:
        one_sided = [one for one in sets if one.tuned or one.base]
        return (
            "The two models were not compared example by example, so no difference is claimed."
            if one_sided
            else "Nothing has been graded yet, so there is no result to report."
        )
    by_verdict = {word: [one for one in compared if one.verdict == word] for word in ("better", "even", "worse")}
    if len(by_verdict["better"]) == len(compared):
        each = {1: "the test set", 2: "both test sets"}.get(len(compared), f"all {len(compared)} test sets")
        return f"The tuned model is better than its base on {each}, beyond what chance explains."
    parts = {
        "better": "better than its base on {}",
        "even": "not distinguishable from its base on {}",
        "worse": "worse than its base on {}",
    }
    said = [
        parts[word].format(" and ".join(wording.words(one.name) for one in found))
        for word, found in by_verdict.items()
        if found
    ]
    return "The tuned model is " + ", and ".join(said) + "."


def failures(files: RunFiles, name: str) -> tuple[Failures, ...]:
    """Failure classes of one test set, most frequent first."""
    models = files.scores.get(name, {})
    counts = {
        model: Counter(str(example["failure"]) for example in models.get(model, ()) if example.get("failure"))
        for model in ("base", "tuned")
    }
    classes = counts["base"] + counts["tuned"]
    found = [Failures(failure, counts["base"][failure], counts["tuned"][failure]) for failure in classes]
    return tuple(sorted(found, key=lambda one: (-one.tuned - one.base, one.failure)))


def charts(files: RunFiles) -> tuple[Chart, ...]:
    """Loss (training and validation), learning rate, gradient norm and speed over the optimizer steps."""
    drawn = (
        curve_chart(
            "Loss",
            [
                Series("training loss", "train", _points(files.events, "loss")),
                Series("validation loss", "validation", _points(files.events, "validation_loss")),
            ],
        ),
        curve_chart(
            "Task score of validation answers",
            [Series("task score", "validation", _points(files.events, "task_score"))],
            log=False,
        ),
        curve_chart(
            "Learning rate", [Series("learning rate", "train", _points(files.events, "learning_rate"))], log=False
        ),
        curve_chart("Gradient norm", [Series("gradient norm", "train", _points(files.events, "grad_norm"))]),
        curve_chart(
            "Tokens per second",
            [Series("tokens per second", "train", _points(files.events, "tokens_per_second"))],
            log=False,
            zero=True,
        ),
        curve_chart(
            "Waiting for data, share of the time",
            [Series("waiting", "train", _points(files.events, "waiting_share"))],
            log=False,
            zero=True,
        ),
        curve_chart("Memory, MB", [Series("resident", "train", _points(files.events, "rss_mb"))], log=False, zero=True),
        curve_chart(
            "GPU load", [Series("GPU load", "train", _points(files.events, "gpu_utilization"))], log=False, zero=True
        ),
        curve_chart(
            "GPU memory, MB", [Series("GPU memory", "train", _points(files.events, "gpu_memory_mb"))],
            log=False, zero=True,
        ),
    )  # fmt: skip
    return tuple(chart for chart in drawn if chart is not None)


def _points(events: Sequence[Table], key: str) -> list[tuple[float, float]]:
    """(step, value) in order of step. A resumed run repeats steps: the later line stands."""
    found: dict[float, float] = {}
    for event in events:
        step, value = number(event, "step"), number(event, key)
        if step is not None and value is not None:
            found[step] = value
    return sorted(found.items())


def stages(summary: Table) -> tuple[Stage, ...]:
    """The parts of the run that were timed, in order."""
    found = {name: number(section(summary, "stages"), name) or 0.0 for name in section(summary, "stages")}
    total = sum(found.values())
    return tuple(Stage(name, seconds, seconds / total) for name, seconds in found.items() if total > 0)


class Held(NamedTuple):
    """One figure of a plan beside what happened."""

    name: str
    low: str
    expected: str
    high: str
    measured: str
    inside: bool | None


def forecast(files: RunFiles) -> tuple[Held, ...]:
    """The plan against reality, or the plan alone where the run was not held against it."""
    scored = section(files.summary, "forecast")
    found = []
    for name, words, unit, path in (
        ("memory", "Most memory", wording.size, ("memory", "peak")),
        ("seconds", "Whole run", wording.duration, ("time", "seconds")),
    ):
        known = section(scored, name) or section(files.plan, "here", *path)
        if number(known, "expected") is None:
            continue
        low, expected, high, measured = (unit(number(known, key)) for key in ("low", "expected", "high", "measured"))
        inside = known.get("inside")
        found.append(Held(words, low, expected, high, measured, inside if isinstance(inside, bool) else None))
    return tuple(found)


def components(files: RunFiles) -> tuple[tuple[str, str], ...]:
    """What the plan's largest stage holds, by component, the largest first."""
    stages = section(files.plan, "here", "memory", "stages")
    sums = {name: sum(number(section(stages, name), part) or 0.0 for part in section(stages, name)) for name in stages}
    if not sums:
        return ()
    largest = section(stages, max(sums, key=lambda name: sums[name]))
    sizes = {str(part): number(largest, part) or 0.0 for part in largest}
    return tuple((part, wording.size(size)) for part, size in sorted(sizes.items(), key=lambda one: -one[1]) if size)


def rows(files: RunFiles) -> Rows | None:
    """The ledger in figures, from the summary or, failing that, counted from the ledger itself."""
    outcomes = Counter(str(line.get("outcome")) for line in files.ledger)
    data = section(files.summary, "data")
    names = {"trained": "trained", "validation": "set aside for validation", "test": "set aside for test",
             "dropped": "dropped"}  # fmt: skip
    if not data and not files.ledger:
        return None
    counts = {key: int(number(data, key) or 0) if data else outcomes[key] for key in names}
    read = int(number(data, "rows") or 0) if data else len(files.ledger)
    dropped = tuple(line for line in files.ledger if line.get("outcome") == "dropped")
    reasons = {str(key): int(number(section(data, "reasons"), key) or 0) for key in section(data, "reasons")}
    if not reasons:
        reasons = dict(Counter(str(line.get("reason") or "no reason given") for line in dropped))
    return Rows(
        read,
        tuple(Outcome(word, counts[key], counts[key] / read if read else 0.0) for key, word in names.items()),
        tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        tuple((str(key), int(number(data, "notes", key) or 0)) for key in section(data, "notes")),
        read - sum(counts.values()),
        dropped[:50],
    )


def exports(summary: Table) -> list[Export]:
    """What was exported, each with what its verification found."""
    listed = summary.get("exports")
    return [_export(one) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def _export(one: Table) -> Export:
    found = section(one, "verified")
    prompts = wording.count(number(found, "prompts"))
    facts = [("path", str(one.get("path") or "")), ("size", wording.size(number(one, "bytes")))]
    if found:
        facts += [
            ("compared with", str(found.get("reference") or "the trained model")),
            ("loaded back in", str(found.get("dtype") or wording.DASH)),
            ("same text", f"{wording.count(number(found, 'same_text'))} of {prompts} prompts"),
            ("same token ids", f"{wording.count(number(found, 'same_tokens'))} of {prompts} prompts"),
            ("same likeliest token", wording.percent(number(found, "same_choice"))),
            ("largest logit difference", wording.figure(number(found, "max_logit_difference"))),
            ("mean KL divergence", f"{wording.figure(number(found, 'mean_kl'))} nats"),
            ("allowed at most", f"{wording.figure(number(found, 'bound', 'mean_kl'))} nats"),
        ]
    return Export(str(one.get("format") or "export"), bool(found), tuple(facts))


def settings(files: RunFiles) -> dict[str, list[Setting]]:
    """Settings by section, in the order of config.yaml."""
    found: dict[str, list[Setting]] = {}
    for key, value in files.settings.items():
        head, _, rest = key.partition(".")
        found.setdefault(head if rest else "run", []).append(Setting(key, _shown(value), files.origins.get(key, "")))
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        joint = "\n" if any(isinstance(item, Mapping) for item in value) else ", "
        return joint.join(_shown(item) for item in value) if value else "none"
    if isinstance(value, Mapping) and value:
        return "; ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    return "none" if value == {} else str(value)


def flat(table: Table, prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (name, value), names joined by a space, for a two-column list."""
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{prefix} {wording.words(str(key))}".strip()
        if isinstance(value, Mapping):
            found += flat(value, name)
        else:
            found.append((name, _shown(value)))
    return found


def examples(files: RunFiles, names: Sequence[str]) -> dict[str, Any]:
    """Every graded example, base and tuned side by side, for the page's script; long repeated texts are kept once."""
    texts: dict[str, int] = {}

    def kept(text: Any) -> int:
        return texts.setdefault(str(text), len(texts))

    joined: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        models = files.scores.get(name, {})
        by_id: dict[str, dict[str, Table]] = {}
        for model, graded in models.items():
            for example in graded:
                by_id.setdefault(str(example.get("id")), {})[model] = example
        for id_, found in by_id.items():
            first = found.get("tuned") or found.get("base") or next(iter(found.values()))
            shown = section(first, "shown")
            turns = [turn for turn in first.get("prompt") or () if isinstance(turn, Mapping)]
            joined.append(
                {
                    "set": at,
                    "id": id_,
                    "question": first.get("question") or (turns[-1].get("content") if turns else ""),
                    "gold": first.get("gold") or "",
                    "kind": section(first, "meta").get("kind") or "",
                    "prompt": [[turn.get("role"), kept(turn.get("content"))] for turn in turns],
                    "columns": shown.get("gold_columns"),
                    "rows": shown.get("gold_rows"),
                    "answers": {model: _answer(found[model]) for model in ("base", "tuned") if model in found},
                }
            )
    return {"sets": [wording.words(name) for name in names], "texts": list(texts), "examples": joined}


def _answer(example: Table) -> dict[str, Any]:
    shown = section(example, "shown")
    known = {"sql", "columns", "rows", "gold_columns", "gold_rows"}
    return {
        "text": shown.get("sql") or example.get("completion") or "",
        "raw": example.get("completion") or "",
        "value": number(example, "value"),
        "failure": example.get("failure") or "",
        "note": example.get("note") or "",
        "stopped": example.get("stopped"),
        "columns": shown.get("columns"),
        "rows": shown.get("rows"),
        "more": [[wording.words(str(key)), _shown(value)] for key, value in shown.items() if key not in known],
    }
