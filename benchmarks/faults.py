"""Faults seeded into healthy set-ups, one at a time: is each caught before a run, and named rightly?

Label faults change the finished rows as other tools have been seen to do (padding that is the end, markers of another
model family, a cut at the wrong side); template faults change the chat template; record faults change the data. Every
kind is seeded into every data set. The healthy set-ups themselves, with many templates, must give no alarm.

    python benchmarks/faults.py [--data FOLDER] [--quick] [--json FILE]

Data sets are made here; `--data` adds the real chat templates of `FOLDER/templates` to the healthy set-ups.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from faults_seeded import LABEL_FAULTS, RECORD_FAULTS, SETTING_FAULTS, TEMPLATE_FAULTS, Row
from faults_sets import (
    CHATML,
    CONFIG,
    EOS,
    PLAIN,
    ROWS,
    SETS,
    SPECIAL,
    Records,
    examples_of,
    records_of,
    same,
    sql,
    tokenizer_of,
    with_turns,
)
from tunesmith.check import check
from tunesmith.check.template import first_shapes, template_findings
from tunesmith.config.load import load_config
from tunesmith.data.cache import TokensDataset, write_tokens
from tunesmith.data.prove import prove_labels
from tunesmith.data.render import Renderer
from tunesmith.types import Example, Message, Tokens


def prove(records: Records, tok: Any, folder: Path, fault: Callable[[Row, Any], None] | None = None) -> set[str]:
    """Names of what the proof finds in these records, one row of which has the fault."""
    renderer = Renderer(tok)
    examples = examples_of(records)
    rows = [renderer.render(example) for example in examples]
    if fault is not None:
        row = (rows[7].input_ids.tolist(), rows[7].labels.tolist())
        fault(row, tok)
        rows[7] = Tokens(rows[7].id, np.array(row[0], np.int32), np.array(row[1], np.int32))
    write_tokens(folder, "train", rows, examples)
    return {f.check for f in prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG).findings}


def look(records: Records, tok_dir: Path, folder: Path, fault: Callable[[dict[str, Any]], Any] | None) -> set[str]:
    """Names of what `check` finds in a recipe with these records, one of which has the fault."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    if fault is not None:
        changed = fault(deepcopy(records[7]))
        lines[7] = changed if isinstance(changed, str) else json.dumps(changed, ensure_ascii=False)
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "name": "x", "task": "chat", "output_dir": str(folder / "runs"), "model": {"name": str(tok_dir)},
        "data": {"train": "train.jsonl", "max_record_bytes": 8000, "max_length": 700, "validation_share": 0},
    }  # fmt: skip
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    result = check(load_config(folder / "r.yaml", environ={}), families=["template", "data", "labels"])
    return {f.check for f in result.findings if f.level != "info"}


# --- counting ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="folder that holds templates/*.jinja")
    parser.add_argument("--quick", action="store_true", help="one data set, a few templates")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    arguments = parser.parse_args()
    conditions = f"{ROWS} rows a set, one row at fault, {platform.machine()}, Python {platform.python_version()}"
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float, unit: str, goal: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<58} {value:>10} {unit:<10} {f'goal: {goal}' if goal else ''}", flush=True)

    names = ["sql"] if arguments.quick else list(SETS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        missed: list[str] = []
        count: dict[str, int] = defaultdict(int)
        kinds: dict[str, int] = {}
        families = {"label": labels(names, folder), "template": templates(names), "record": data(names, folder)}
        for family, trials in families.items():
            seen = set()
            for kind, on, right, found in trials:
                seen.add(kind)
                count[family] += 1
                if right not in found:
                    missed.append(f"{family}: {kind} on {on}: due is {right}, found {sorted(found) or 'nothing'}")
            kinds[family] = len(seen)
            figure(f"kinds of {family} faults", kinds[family], "kinds")
        total = sum(count.values())
        figure("kinds of label, template and record faults", sum(kinds.values()), "kinds", "at least 40")
        figure("data sets", len(names), "sets", "5")
        figure("faults seeded", total, "faults")
        figure("caught with the right name", total - len(missed), "faults", f"{total}")
        alarms, combinations = healthy(names, folder, arguments.data, arguments.quick)
        figure("healthy combinations of data, template and recipe", combinations, "runs", "at least 60")
        figure("false alarms", len(alarms), "runs", "0")
        wall, cpu = proof_speed(folder)
        figure("label proof", wall, "rows/min", "at least 20000")
        figure("label proof, by processor time", cpu, "rows/min")
        for line in [*missed, *alarms]:
            print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


Trial = tuple[str, str, str, set[str]]
"""(kind, data set, due name, names found)."""


def labels(names: list[str], folder: Path) -> Iterator[Trial]:
    tok = tokenizer_of(CHATML)
    for name in names:
        healthy_turns = {shape: prove(shape(records_of(name)), tok, folder) for shape in (same, with_turns)}
        for fault, right, shape in LABEL_FAULTS:
            # What the healthy rows give already does not count as caught.
            yield fault.__name__, name, right, prove(shape(records_of(name)), tok, folder, fault) - healthy_turns[shape]


def templates(names: list[str]) -> Iterator[Trial]:
    for name in names:
        for kind, change, right, shape in TEMPLATE_FAULTS:
            shapes = first_shapes(examples_of(shape(records_of(name))))
            before = {f.check for f in template_findings(tokenizer_of(CHATML), shapes)}
            after = {f.check for f in template_findings(tokenizer_of(change(CHATML)), shapes) if f.level != "info"}
            yield kind, name, right, after - before
        shapes = first_shapes(examples_of(records_of(name)))
        for kind, (right, change) in SETTING_FAULTS.items():
            tok = tokenizer_of(CHATML)
            tok.pad_token = change.get("pad", tok.pad_token)
            yield kind, name, right, {f.check for f in template_findings(tok, shapes, change.get("end"))}


def data(names: list[str], folder: Path) -> Iterator[Trial]:
    model = folder / "model"
    tokenizer_of(CHATML).save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    for at, name in enumerate(names):
        before = look(records_of(name), model, folder / f"healthy-{at}", None)
        for number, (kind, change, right) in enumerate(RECORD_FAULTS):
            yield kind, name, right, look(records_of(name), model, folder / f"r{at}-{number}", change) - before


def healthy(names: list[str], folder: Path, data_folder: Path | None, quick: bool) -> tuple[list[str], int]:
    """Alarms of set-ups that are fine, and how many set-ups there are."""
    alarms, combinations = [], 0
    plain = [name for name in names if name not in ("reasoning", "tools")]
    chosen = [(name, template, PLAIN[template]) for name in plain for template in list(PLAIN)[: 2 if quick else None]]
    chosen += [(name, "chatml-full", CHATML) for name in names]
    chosen += [(f"{name}+turns", template, PLAIN[template]) for name in plain for template in PLAIN if not quick]
    for file in sorted((data_folder / "templates").glob("trl__*.jinja")) if data_folder else []:
        text = file.read_text(encoding="utf-8")
        if "training" not in file.name and "raise_exception" not in text:
            chosen += [(name, file.stem, text) for name in plain]
    for name, template, text in chosen:
        base, _, more = name.partition("+")
        records = with_turns(records_of(base)) if more else records_of(base)
        words = set(re.findall(r"<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_turn>", text))
        ends = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
        eos = EOS.get(template) or next((word for word in ends if word in text), "</s>")
        tok = tokenizer_of(text, eos, special=dict.fromkeys([*SPECIAL, *sorted(words)]))
        for train_turns in ("all", "last") if not quick else ("all",):
            combinations += 1
            examples = [one if train_turns == "all" else last_trained(one) for one in examples_of(records)]
            found = {f.check for f in template_findings(tok, first_shapes(examples)) if f.level != "info"}
            renderer = Renderer(tok, thinks=base == "reasoning")
            write_tokens(folder, "train", [renderer.render(e) for e in examples], examples)
            found |= {f.check for f in prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG).findings}
            if found:
                alarms.append(f"false alarm: {name}, {template}, {train_turns}: {sorted(found)}")
    return alarms, combinations


def last_trained(example: Example) -> Example:
    """The same with only its last turn trained."""
    earlier = (Message(m.role, m.content, False, m.extra) for m in example.messages[:-1])
    return replace(example, messages=(*earlier, example.messages[-1]))


def proof_speed(folder: Path) -> tuple[int, int]:
    """Rows per minute of the proof on 3,000 rows of SQL with a schema: by the clock, and by this process's own time."""
    tok = tokenizer_of(CHATML)
    renderer = Renderer(tok)
    examples = examples_of([sql(n) for n in range(3000)])
    write_tokens(folder, "train", [renderer.render(e) for e in examples], examples)
    start, own = time.perf_counter(), time.process_time()
    proof = prove_labels(TokensDataset(folder, "train"), tok, renderer, CONFIG)
    return round(60 * proof.rows / (time.perf_counter() - start)), round(60 * proof.rows / (time.process_time() - own))


if __name__ == "__main__":
    main()
