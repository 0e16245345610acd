"""`tunesmith plan`: memory by component, time and money for every card, each with an interval; scored after the run."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.check.cards import Card, card_here
from tunesmith.check.footprint import Footprint, quiet, step_footprint
from tunesmith.check.memory import GIGA, Memory, Span, forecast_memory
from tunesmith.check.speed import Probed, Rates, Time, card_rates, cpu_rates, forecast_time, narrowed_time
from tunesmith.check.workload import Workload
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config
from tunesmith.errors import ModelError
from tunesmith.model.fused import multiplies

FOLDER = ".forecasts"
"""Beside the runs: a plan by the name of its run, and the scores of all."""
SCORED = "scored.jsonl"


@dataclass(frozen=True)
class Outlook:
    """A run on one device."""

    name: str
    memory: Memory
    time: Time
    card: Card | None = None
    """None for a CPU."""

    @property
    def fits(self) -> str:
        """`yes`, `perhaps` (the interval reaches beyond), `no`; empty for a CPU."""
        return self.memory.fits(self.card) if self.card is not None else ""

    @property
    def cost(self) -> Span | None:
        """US dollars; None where no price is known or the run does not fit."""
        if self.card is None or self.card.price_per_hour is None or self.fits == "no":
            return None
        return self.time.cost(self.card.price_per_hour.usd)

    def figures(self) -> dict[str, Any]:
        """For `plan.json`."""
        price = self.card.price_per_hour if self.card is not None else None
        return {
            "name": self.name, "fits": self.fits, "memory": self.memory.figures(), "time": self.time.figures(),
            "cost_usd": asdict(self.cost) if self.cost else None,
            "price": price.model_dump(mode="json") if price else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a run will take."""

    run: str
    settings: str
    """Digest of the resolved settings, so that only this run is held against it."""
    workload: Workload
    parameters: int
    trainable: int
    here: Outlook
    """On this machine."""
    cards: tuple[Outlook, ...]
    notes: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """As `plan.json` holds it."""
        w = self.workload
        return {
            "run": self.run, "settings": self.settings, "parameters": self.parameters, "trainable": self.trainable,
            "examples": w.examples, "steps": w.steps, "tokens_per_step": round(w.step_tokens),
            "rows_per_step": round(w.rows_per_step, 2),
            "worst_row": {"tokens": w.worst.tokens, "labels": w.worst.labels}, "validations": w.validations,
            "saves": w.saves, "prompts": w.prompts, "here": self.here.figures(),
            "cards": [outlook.figures() for outlook in self.cards], "notes": list(self.notes),
        }  # fmt: skip


def make_plan(
    config: RunConfig,
    workload: Workload,
    cards: Mapping[str, Card],
    *,
    baseline: int,
    device_name: str | None = None,
    probed: Probed | None = None,
    peak: int | None = None,
) -> Plan:
    """Forecast a run on this machine and on every card.

    Args:
        config: the run.
        workload: what it will compute.
        cards: the table.
        baseline: bytes that Python and the libraries hold here before anything is loaded.
        device_name: of this machine's GPU; None plans for its CPU.
        probed: seconds that a probe measured here.
        peak: bytes that it held.

    Raises:
        ModelError: the model's config cannot be found, built or computed without data.
    """
    import torch

    architecture = read_architecture(config)
    known: dict[Any, Footprint] = {}

    def footprint(which: str, gpu: bool, compute: str) -> Footprint:
        row = workload.worst if which == "worst" else workload.typical
        key = gpu, compute, row.tokens, row.labels
        if key not in known:
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[compute]
            known[key] = step_footprint(config, architecture, row, gpu=gpu, compute=dtype)
        return known[key]

    def outlook(name: str, rates: Rates, compute: str, card: Card | None) -> Outlook:
        gpu = card is not None
        memory = forecast_memory(
            config, architecture, workload, footprint("worst", gpu, compute), gpu=gpu, baseline=baseline
        )
        return Outlook(
            name, memory, forecast_time(config, workload, footprint("typical", gpu, compute), rates, gpu=gpu), card
        )

    precision = config.train.precision
    with quiet():
        found = [
            outlook(card.name, card_rates(card, precision), card.compute(precision), card) for card in cards.values()
        ]
        own = card_here(cards, device_name)
        if own is not None:
            here = next(one for one in found if one.card is own)
        else:
            compute = "bf16" if precision == "bf16" else "fp32"
            fast = compute == "bf16" and multiplies(torch.bfloat16)
            rates = cpu_rates(torch.bfloat16 if fast else torch.float32)
            here = outlook("this CPU" if device_name is None else device_name, rates, compute, None)
        if probed is not None and peak is not None:
            here = _narrowed(config, here, workload, probed, peak)
    any_footprint = next(iter(known.values()))
    notes = list(workload.notes)
    if device_name is not None and own is None:
        notes.append(f"{device_name} is not in the table of cards: add it to a file of your own (--cards)")
    return Plan(
        config.name, settings_digest(config), workload, any_footprint.parameters, any_footprint.trainable, here,
        tuple(found), tuple(notes),
    )  # fmt: skip


def _narrowed(config: RunConfig, here: Outlook, workload: Workload, probed: Probed, peak: int) -> Outlook:
    """What was measured is a lower bound: a run meets more rows than a probe, and memory has been seen to fragment."""
    span = Span(peak * 0.97, peak * 1.03, peak * 1.2)
    memory = replace(here.memory, peak=span, needed=span, measured=True)
    return replace(here, memory=memory, time=narrowed_time(config, workload, probed))


def read_architecture(config: RunConfig) -> Any:
    """The text model's config: from the Hub, or from a folder that needs hold nothing but `config.json`.

    Raises:
        ModelError: there is none, or transformers does not know the architecture.
    """
    from transformers import AutoConfig

    from tunesmith.model.load import model_path

    try:
        found = AutoConfig.from_pretrained(model_path(config.model), revision=config.model.revision)
    except Exception as error:
        raise ModelError(
            f"the model's config cannot be read: {str(error).strip().splitlines()[0]}",
            place=f"model.name={config.model.name}",
            remedy="give a Hub name, or a folder that holds config.json",
        ) from error
    return found.get_text_config(decoder=True)


def settings_digest(config: RunConfig) -> str:
    """Digest of what decides the time and memory of a run: everything but its limits and its place."""
    lines = dump_config(config.model_copy(update={"limits": type(config.limits)(), "output_dir": Path("runs")}))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


# --- as text ----------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan, scored: Sequence[Mapping[str, Any]] = ()) -> str:
    """For a terminal."""
    w = plan.workload
    lines = [
        f"{plan.run}: {w.steps:,} steps over {w.examples:,} examples, {w.step_tokens:,.0f} tokens and "
        f"{w.rows_per_step:.1f} rows a step, longest row {w.worst.tokens:,} tokens ({w.worst.labels:,} trained)",
        f"{plan.trainable:,} of {plan.parameters:,} parameters trained",
        "",
        f"Memory on {plan.here.name}, {'measured by a probe' if plan.here.memory.measured else 'forecast'}: "
        f"{gigabytes(plan.here.memory.peak)}; most while it does `{plan.here.memory.largest}`",
        *_components(plan.here.memory),
    ]
    if plan.cards and plan.here.card is None:
        first = plan.cards[0]
        lines += ["", f"Memory on a GPU ({first.name}): {gigabytes(first.memory.peak)}, with fragmentation "
                  f"{gigabytes(first.memory.needed)}", *_components(first.memory)]  # fmt: skip
    lines += ["", f"{'':<16}{'fits':<9}{'needs, GB':<22}{'s/step':<8} {'hours':<24} {'US$':<20}price per hour"]
    for one in [*([plan.here] if plan.here.card is None else []), *plan.cards]:
        lines.append(_line(one))
    lines += ["", *(f"note: {note}" for note in plan.notes)]
    if scored:
        errors = [abs(one["memory"]["error"]) for one in scored if one.get("memory")]
        times = [abs(one["seconds"]["error"]) for one in scored if one.get("seconds")]
        lines.append(
            f"of {len(scored)} forecasts scored here: median error of memory {100 * statistics.median(errors):.0f} %"
            + (f", of time {100 * statistics.median(times):.0f} %" if times else "")
        )
    return "\n".join(lines).rstrip()


def gigabytes(span: Span) -> str:
    """`13.4 GB (11.2 to 15.1)`."""
    low, expected, high = (value / GIGA for value in (span.low, span.expected, span.high))
    return f"{expected:.2f} GB ({low:.2f} to {high:.2f})"


def _components(memory: Memory) -> list[str]:
    return [f"  {name:<16}{size / GIGA:>8.3f} GB" for name, size in memory.components.items() if size >= 0.0005 * GIGA]


def _line(one: Outlook) -> str:
    needs, hours = one.memory.needed.scaled(1 / GIGA), one.time.seconds.scaled(1 / 3600)
    price = one.card.price_per_hour if one.card is not None else None
    money = f"{one.cost.expected:.2f} ({one.cost.low:.2f}-{one.cost.high:.2f})" if one.cost else "-"
    known = f"{price.usd:.2f} on {price.date}, {price.source}" if price else "none known" if one.card else ""
    step, span = one.time.per_step.expected, f"{hours.expected:,.2f} ({hours.low:,.2f}-{hours.high:,.2f})"
    return (
        f"{one.name:<16}{one.fits:<9}{f'{needs.expected:.1f} ({needs.low:.1f}-{needs.high:.1f})':<22}"
        f"{f'{step:,.3g}' if step < 1000 else f'{step:,.0f}':<8} {span:<24} {money:<20}{known}"
    )


# --- kept and scored --------------------------------------------------------------------------------------------------


def keep_plan(plan: Plan, output_dir: Path) -> Path:
    """Keep a plan beside the runs, so that its run is held against it."""
    path = output_dir / FOLDER / f"{plan.run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(plan.figures(), indent=1), encoding="utf-8")
    draft.replace(path)
    return path


def score_plan(config: RunConfig, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Hold a finished run against its plan, and keep the score; None where no plan of these settings was made.

    Args:
        config: the run, as the recipe said it.
        summary: its `run.json`.
    """
    folder = config.output_dir / FOLDER
    try:
        plan = json.loads((folder / f"{config.name}.json").read_text(encoding="utf-8"))
        here = plan["here"]
        if plan["settings"] != settings_digest(config):
            return None
        measured = (
            summary["training"]["peak_memory_mb"] if here["memory"]["device"] == "gpu" else summary["peak_rss_mb"]
        )
        found = {
            "run": config.name,
            "memory": _scored(here["memory"]["peak"], measured * 2**20),
            "seconds": _scored(here["time"]["seconds"], float(summary["seconds"])),
            "probed": bool(here["time"]["measured"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with (folder / SCORED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    return found


def read_scored(output_dir: Path) -> list[dict[str, Any]]:
    """The scores of all plans made beside these runs."""
    path = output_dir / FOLDER / SCORED
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _scored(forecast: Mapping[str, float], measured: float) -> dict[str, Any]:
    return {
        **forecast,
        "measured": measured,
        "error": round(forecast["expected"] / measured - 1, 4) if measured else None,
        "inside": forecast["low"] <= measured <= forecast["high"],
    }
