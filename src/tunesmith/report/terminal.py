"""The end of a run as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunesmith.report.wording import duration, interval, percent, points


def summary_text(summary: Mapping[str, Any], root: Path) -> str:
    """What a run came to: accuracy before and after, what it cost, where things are, what to do next.

    Args:
        summary: what `run.json` holds.
        root: the run's folder.
    """
    lines = ["", *_scores(summary), *_cost(summary), "", *_places(summary, root)]
    if summary.get("status") == "complete" and summary.get("scores"):
        lines += ["", *_NEXT.get(_task(root), [])]
    return "\n".join(lines)


def _scores(summary: Mapping[str, Any]) -> list[str]:
    scores = summary.get("scores") or {}
    base, tuned = scores.get("base") or {}, scores.get("tuned") or {}
    if not tuned:
        return []
    width = max(len(name) for name in tuned) + 2
    lines = [f"  {'accuracy':<{width}}{'base':>8}    {'tuned':>8}   95 % interval      questions"]
    for name, after in tuned.items():
        before = percent((base.get(name) or {}).get("accuracy"))
        span = interval(after.get("low"), after.get("high"))
        line = f"  {name:<{width}}{before:>8} -> {percent(after.get('accuracy')):>8}   {span:<18} {after.get('n')}"
        paired = (summary.get("paired") or {}).get(name)
        if paired:
            line += f"   ({points(paired.get('difference'))}; {paired.get('gained')} gained, {paired.get('lost')} lost)"
        lines.append(line)
    return lines + _alone(tuned) + _others(summary)


def _alone(tuned: Mapping[str, Any]) -> list[str]:
    parts = {
        name: ((scores.get("parts") or {}).get("model_alone") or {}).get("value") for name, scores in tuned.items()
    }
    said = ", ".join(f"{name} {percent(value)}" for name, value in parts.items() if value is not None)
    return [f"  the tuned model without the lexicon: {said}"] if said else []


def _others(summary: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for test_set, found in ((summary.get("contest") or {}).get("sets") or {}).items():
        for name, paired in found.items():
            scores = ((summary.get("scores") or {}).get(name) or {}).get(test_set) or {}
            span = interval(paired.get("low"), paired.get("high"), signed=True)
            lines.append(
                f"  {test_set}: {name} {percent(scores.get('accuracy'))}; tuned is better by "
                f"{points(paired.get('difference'))} points ({span}), p = {paired.get('p_adjusted'):.3g}"
            )
    return ["", *lines] if lines else []


def _cost(summary: Mapping[str, Any]) -> list[str]:
    parts = [f"{duration(summary['seconds'])} in all"] if summary.get("seconds") else []
    training = summary.get("training") or {}
    if training.get("seconds"):
        parts.append(f"training {duration(training['seconds'])}")
    if training.get("tokens_per_second"):
        parts.append(f"{training['tokens_per_second']:,.0f} tokens/s")
    if summary.get("peak_rss_mb"):
        parts.append(f"{summary['peak_rss_mb'] / 1024:.1f} GB of memory at most")
    return ["", "  " + ", ".join(parts)] if parts else []


def _places(summary: Mapping[str, Any], root: Path) -> list[str]:
    found = [("report", root / "report.html"), ("adapter", root / "adapter"), ("settings", root / "config.yaml")]
    found += [
        (item["format"], Path(item["path"])) for item in summary.get("exports") or () if item.get("format") != "adapter"
    ]
    return [f"  {name:<9} {_relative(path)}" for name, path in found if path.exists()]


_NEXT = {
    "sql": [
        "  The same on a database of your own, on this CPU and then on Mistral-7B with a GPU:",
        "    export TUNESMITH_POSTGRES_URL=postgresql://you@host:5432/  TUNESMITH_DATABASE=yours",
        "    tunesmith run recipes/sql/own-database.yaml",
        "    tunesmith run recipes/sql/mistral-7b.yaml",
    ],
    "maths": [
        "  The same on problems of your own (JSON Lines, or a Qdrant collection), with Gemma 3n and a GPU:",
        "    tunesmith data build maths --from qdrant://host:6333#exams -o data/exams",
        "    tunesmith run recipes/maths/gemma-3n.yaml",
    ],
    "chat": [
        "  The same on conversations of your own, with Llama 3.2 and a GPU:",
        "    tunesmith data build chat --from transcripts.jsonl -o data/support",
        "    tunesmith run recipes/chat/llama-3.2-3b.yaml",
    ],
}


def _task(root: Path) -> str:
    try:
        settings = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
        return str(settings["task"]["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return ""


def _relative(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
