"""The model card: what the model is for, how well it does with which certainty, how to load it, where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.config.schema import Model, RunConfig
from tunesmith.config.secrets import redact
from tunesmith.export.artifact import public_name
from tunesmith.rundir import RunDir

_LOADING = {
    "adapter": """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
model.generation_config = GenerationConfig.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
""",
    "merged": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
""",
}
_LIMITS = {
    "sql": """\
- Accuracy means that the query returned the right rows on the database it was graded on; that can happen by luck.
- Graded on the databases named by the test sets; other schemas were not tried.
- Run its queries with a role that can only read, and with a time limit.""",
    "maths": "- The final answer was graded, not the reasoning that leads to it.",
    "chat": "- Answers were not checked for facts.",
}


_OUTCOMES = {"trained": "trained on", "validation": "for validation", "test": "for test", "dropped": "dropped"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card states."""

    name: str
    format: str
    task: str
    base: Model
    hub_base: bool
    """Whether `base` names a model on the Hub, rather than a folder."""
    dtype: str = ""
    """Type of the written weights, for a whole model."""
    license: str = "unknown"
    """A licence identifier of the Hub."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    """`run.json`, the only source of every measured number."""


def card_facts(config: RunConfig, run: RunDir, format_: str, dtype: str = "") -> CardFacts:
    """The facts of a run; figures that `run.json` lacks are left out of the card, never guessed."""
    train, lora = config.train, config.lora
    settings = {
        "method": f"{train.method.upper()}, {'LoRA' if lora else 'all weights'}",
        **({"rank, alpha": f"{lora.r}, {lora.lora_alpha:g}", "layers": lora.target_modules} if lora else {}),
        "base in": f"{config.model.quantization.bits} bits" if config.model.quantization else config.model.dtype,
        "learning rate": f"{train.learning_rate:g}, {train.lr_scheduler_type}",
        "batch": f"{train.batch_size} examples a step",
        "length": f"{train.max_steps} steps" if train.max_steps > 0 else f"{train.num_train_epochs:g} epochs",
        "longest example": f"{config.data.max_length} tokens",
        "seed": config.seed,
    }
    summary = json.loads(run.summary.read_text("utf-8")) if run.summary.exists() else {}
    return CardFacts(
        name=config.name,
        format=format_,
        task=config.task.name,
        base=config.model,
        hub_base=config.model.name != "demo" and not Path(config.model.name).exists(),
        dtype=dtype,
        settings=settings,
        summary=summary,
    )


def write_card(folder: Path, facts: CardFacts) -> Path:
    """Write `README.md` with the front matter that the Hub reads. Secrets are masked; no path of this machine appears.

    Returns:
        The card's path.
    """
    parts = (_front_matter(facts), _what(facts), _results(facts), _loading(facts), _training(facts), _limits(facts))
    card = folder / "README.md"
    card.write_text(redact("\n".join(part for part in parts if part)), "utf-8")
    return card


def _front_matter(facts: CardFacts) -> str:
    tags = ["tunesmith", facts.task, *(["lora"] if facts.format == "adapter" else [])]
    head: dict[str, Any] = {"license": facts.license, "library_name": "transformers", "pipeline_tag": "text-generation"}
    if facts.format == "adapter":
        head["library_name"] = "peft"
    if facts.hub_base:
        head["base_model"] = facts.base.name
        head["base_model_relation"] = "adapter" if facts.format == "adapter" else "finetune"
    return f"---\n{yaml.safe_dump({**head, 'tags': tags}, sort_keys=False, allow_unicode=True)}---\n"


def _what(facts: CardFacts) -> str:
    kind = "LoRA adapter" if facts.format == "adapter" else f"model ({facts.dtype}, adapter merged in)"
    base = (
        "the small base model that ships with tunesmith"
        if facts.base.name == "demo"
        else f"`{public_name(facts.base)}`"
    )
    revision = f" at revision `{facts.base.revision}`" if facts.base.revision else ""
    return f"# {facts.name}\n\nA {kind} for the task **{facts.task}**, tuned from {base}{revision}.\n"


def _results(facts: CardFacts) -> str:
    scores, paired = _part(facts.summary, "scores"), _part(facts.summary, "paired")
    tuned, base = _part(scores, "tuned"), _part(scores, "base")
    if not tuned:
        return "## Results\n\nThis model has not been graded.\n"
    lines = ["## Results", "", "| Test set | n | Base | Tuned | Difference |", "|---|---:|---:|---:|---:|"]
    for name in tuned:
        one = _part(tuned, name)
        cells = (
            name,
            one.get("n", "?"),
            _accuracy(_part(base, name)),
            _accuracy(one),
            _difference(_part(paired, name)),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "Share of examples answered right, with its interval; the difference is paired, example by example."]
    unscored = {name: n for name in tuned if (n := _part(tuned, name).get("unscored"))}
    if unscored:
        lines.append(
            "Not judged, and not counted: " + ", ".join(f"{n} of {name}" for name, n in unscored.items()) + "."
        )
    return "\n".join([*lines, ""])


def _accuracy(scores: Mapping[str, Any]) -> str:
    if scores.get("accuracy") is None:
        return "not graded"
    text = f"{100 * scores['accuracy']:.1f} %"
    if scores.get("low") is not None and scores.get("high") is not None:
        text += f" ({100 * scores['low']:.1f} to {100 * scores['high']:.1f})"
    return text


def _difference(compared: Mapping[str, Any]) -> str:
    if compared.get("difference") is None:
        return "not compared"
    p = compared.get("p_value")
    said = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
    low, high = compared.get("low"), compared.get("high")
    span = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f}{said})"
    return f"{100 * compared['difference']:+.1f} points{span}"


def _loading(facts: CardFacts) -> str:
    base = f'"{facts.base.name}"' if facts.hub_base else '"path/to/the/base/model"'
    if facts.base.revision and facts.hub_base:
        base += f', revision="{facts.base.revision}"'
    if facts.base.name == "demo":
        base = "DEMO"
    code = _LOADING[facts.format].format(base=base)
    if facts.base.name == "demo" and facts.format == "adapter":
        code = f"from tunesmith.model.load import DEMO\n{code}"
    told = "`verified.json` says how the files compare with the model as it was trained."
    return f"## How to load it\n\n```python\n{code}```\n\nAsk through the chat template. {told}\n"


def _training(facts: CardFacts) -> str:
    lines = ["## Training", ""]
    data = _part(facts.summary, "data")
    if data.get("rows") is not None:
        counts = [f"{data.get(key, 0):,} {word}" for key, word in _OUTCOMES.items()]
        lines.append(f"- data: {data['rows']:,} rows read = {' + '.join(counts)}")
    training = _part(facts.summary, "training")
    figures = (
        ("steps", "{:,}"), ("label_tokens", "{:,} tokens trained on"), ("validation_loss", "validation loss {:.4f}"),
        ("seconds", "{:,.0f} seconds"),
    )  # fmt: skip
    told = [
        (f"{training[key]:,} steps" if key == "steps" else form.format(training[key]))
        for key, form in figures
        if training.get(key) is not None
    ]
    if told:
        lines.append(f"- course: {', '.join(told)}")
    counted = _part(training, "parameters")
    if counted.get("trainable") is not None and counted.get("total"):
        share = 100 * counted["trainable"] / counted["total"]
        lines.append(f"- parameters trained: {counted['trainable']:,} of {counted['total']:,} ({share:.2f} %)")
    for key, value in facts.settings.items():
        lines.append(f"- {key}: {', '.join(value) if isinstance(value, list) else value}")
    versions = _part(_part(facts.summary, "environment"), "packages")
    if versions:
        lines.append("- made with " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return "\n".join([*lines, ""])


def _limits(facts: CardFacts) -> str:
    own = _LIMITS.get(facts.task, "")
    return f"## Limits\n\n{own + chr(10) if own else ''}- The base model's licence and limits apply as well.\n"


def _part(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key)
    return value if isinstance(value, Mapping) else {}
