from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.report import embedded, write_report
from tunesmith.report.charts import Comparison, Estimate, Series, accuracy_chart, curve_chart, thin
from tunesmith.rundir import RunDir

SCHEMA = """boats(id integer pk, name text, pier_id integer -> piers.id, built date, seats integer, status text: 'afloat', 'in repair')
piers(id integer pk, name text, town text, depth numeric)
trips(id integer pk, boat_id integer -> boats.id, skipper_id integer -> people.id, left_at timestamp, fare numeric)
people(id integer pk, full_name text, role text: 'skipper', 'mechanic', hired date)"""
PAIRS = [
    ("How many boats are afloat?", "SELECT COUNT(*) FROM boats WHERE status = 'afloat'", "count", ["count"], [[14]]),
    (
        "Names of the three boats with the most seats",
        "SELECT name FROM boats ORDER BY seats DESC LIMIT 3",
        "top",
        ["name"],
        [["Grauer Reiher"], ["Móða"], ["Tern II"]],
    ),
    (
        "What did each skipper take in fares last year?",
        "SELECT people.full_name, SUM(trips.fare) FROM trips JOIN people ON trips.skipper_id = people.id "
        "WHERE trips.left_at >= '2024-01-01' AND trips.left_at < '2025-01-01' GROUP BY people.full_name",
        "group",
        ["full_name", "sum"],
        [["Ida Brandt", 18420.5], ["Quân Lê", 22014.0], ["R. Osei", None]],
    ),
    (
        "which town has the deepest pier",
        "SELECT town FROM piers ORDER BY depth DESC LIMIT 1",
        "top",
        ["town"],
        [["Eastwick"]],
    ),
]
WRONG = {
    "wrong_filter": lambda sql: sql.replace("afloat", "in repair").replace("2024", "2023"),
    "unknown_column": lambda sql: sql.replace("seats", "capacity").replace("full_name", "surname"),
    "wrong_order": lambda sql: sql.replace(" DESC", ""),
    "syntax": lambda sql: sql.replace("FROM", "FORM"),
}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'`{{ 7*7 }} <!-- ]]> \u2028 &amp; \ud800"


def write_run(root: Path, *, built: int = 240, handwritten: int = 80, steps: int = 300, seed: int = 0) -> RunDir:
    """A run as the pipeline leaves it, with invented figures that hang together."""
    rng, run = random.Random(seed), RunDir(root)
    run.scores("base", "x").parent.mkdir(parents=True)
    scores: dict[str, dict[str, Any]] = {"base": {}, "tuned": {}}
    paired: dict[str, Any] = {}
    for name, n, odds in (("built", built, (0.22, 0.88)), ("handwritten", handwritten, (0.09, 0.58))):
        graded = {"base": [], "tuned": []}
        for i in range(n):
            question, sql, kind, columns, cells = PAIRS[i % len(PAIRS)]
            for model, share in zip(graded, odds, strict=True):
                right = rng.random() < share
                failure = "" if right else rng.choice(list(WRONG))
                answer = sql if right else WRONG[failure](sql)
                graded[model].append(
                    {
                        "id": f"{name}-{i:04d}",
                        "question": question,
                        "prompt": [
                            {"role": "system", "content": f"Write one PostgreSQL query.\n\n{SCHEMA}"},
                            {"role": "user", "content": question},
                        ],
                        "gold": sql,
                        "completion": answer,
                        "value": None if i % 97 == 13 else float(right),
                        "parts": {"exact_match": float(right)},
                        "failure": failure,
                        "note": ""
                        if right
                        else 'column "capacity" does not exist'
                        if "col" in failure
                        else "4 rows, 3 expected",
                        "shown": {
                            "sql": answer,
                            "columns": columns,
                            "rows": cells if right else [] if failure in ("syntax", "unknown_column") else cells[::-1],
                            "gold_columns": columns,
                            "gold_rows": cells,
                        },
                        "stopped": rng.random() < 0.97,
                        "meta": {"kind": kind, "database": "harbour"},
                    }
                )
        for model, rows in graded.items():
            run.scores(model, name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            values = [row["value"] for row in rows if row["value"] is not None]
            share = sum(values) / len(values)
            half = 1.96 * math.sqrt(share * (1 - share) / len(values))
            scores[model][name] = {
                "accuracy": share, "low": max(0, share - half), "high": min(1, share + half), "n": len(values),
                "unscored": n - len(values), "exact_match": share * 0.9, "stop_rate": 0.97,
            }  # fmt: skip
        gap = scores["tuned"][name]["accuracy"] - scores["base"][name]["accuracy"]
        paired[name] = {
            "difference": gap, "low": gap - 0.06, "high": gap + 0.06, "p_value": 1e-20, "gained": int(gap * n) + 2, "lost": 2,
        }  # fmt: skip
    with run.events.open("w") as events:
        for step in range(1, steps + 1):
            loss = 0.12 + 2.6 * math.exp(-step / 40) * (1 + 0.1 * rng.gauss(0, 1))
            rate = 2e-3 * min(1, step / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            line = {"time": 1.7e9 + step, "event": "log", "step": step, "loss": abs(loss), "learning_rate": rate,
                    "tokens_per_second": 5200 + rng.gauss(0, 150), "grad_norm": 0.6 + rng.random() * 0.5}  # fmt: skip
            events.write(json.dumps(line) + "\n")
            if step % 50 == 0:
                validation = 0.16 + 2.2 * math.exp(-step / 45)
                events.write(json.dumps({"event": "evaluation", "step": step, "validation_loss": validation}) + "\n")
    ledger = [
        {"place": f"train.jsonl:{i + 1}", "id": f"r{i}", "split": "train", "outcome": "trained", "reason": ""}
        for i in range(1894)
    ]
    ledger += [
        {"place": f"train.jsonl:{i}", "id": f"v{i}", "split": "validation", "outcome": "validation", "reason": ""}
        for i in range(100)
    ]
    ledger += [
        {
            "place": f"train.jsonl:{2000 + i}",
            "id": f"d{i}",
            "split": "train",
            "outcome": "dropped",
            "reason": reason,
            "detail": detail,
        }
        for i, (reason, detail) in enumerate(
            [("duplicate", "the same as train.jsonl:12")] * 4 + [("too long", "2,301 tokens, at most 2,048")] * 2
        )
    ]
    run.ledger.write_text("".join(json.dumps(line) + "\n" for line in ledger))
    pieces = re.findall(r"\w+|\s+|[^\w\s]", f"[INST] Write one PostgreSQL query.\n\n{SCHEMA}\n\n{PAIRS[0][0]} [/INST] ")
    answer = [*re.findall(r"\w+|\s+|[^\w\s]", PAIRS[0][1]), "</s>"]
    tokens = [{"text": "<s>", "trained": False}, *({"text": t, "trained": False} for t in pieces)]
    tokens += [{"text": t, "trained": True} for t in answer]
    run.mask.write_text(json.dumps([{"id": f"{i:x}" * 16, "tokens": tokens} for i in (3, 10, 12)]))
    settings = {
        "schema_version": 1, "name": "harbour-sql", "seed": 0,
        "task": {"name": "sql", "server": "embedded", "schema_style": "compact", "timeout_seconds": 5.0},
        "model": {"name": "demo", "dtype": "auto", "quantization": None},
        "lora": {"r": 32, "lora_alpha": 64, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "train": {"method": "sft", "num_train_epochs": 3.0, "batch_size": 16, "learning_rate": 0.002},
        "evaluate": {"base": True, "confidence": 0.95},
        "exports": [{"format": "adapter"}, {"format": "merged", "dtype": "bfloat16"}],
    }  # fmt: skip
    run.config.write_text(yaml.safe_dump(settings, sort_keys=False))
    run.origins.write_text(
        json.dumps({"name": "recipe harbour.yaml:1", "lora.r": "recipe harbour.yaml:14", "seed": "default",
                    "train.learning_rate": "override train.learning_rate=0.002", "model.name": "recipe harbour.yaml:9",
                    "train.method": "default", "lora.lora_alpha": "default"})
    )  # fmt: skip
    summary = {
        "name": "harbour-sql", "created": "2026-11-21T07:05:53+00:00", "status": "complete", "seconds": 318.4, "peak_rss_mb": 2214.6,
        "scores": scores, "paired": paired,
        "training": {"steps": steps, "final_train_loss": 0.1231, "validation_loss": 0.1634, "perplexity": 1.1775, "seconds": 182.2,
                     "tokens": 948_120, "label_tokens": 71_410, "tokens_per_second": 5204.0, "best_step": 300,
                     "parameters": {"total": 6_120_448, "trainable": 221_184, "share": 0.0361}, "peak_memory_mb": 2214.6},
        "data": {"rows": 2000, "trained": 1894, "validation": 100, "test": 0, "dropped": 6,
                 "reasons": {"duplicate": 4, "too long": 2}, "notes": {"prompt shortened": 3}},
        "exports": [
            {"format": "adapter", "path": "exports/adapter", "verified": {"dtype": "float32", "prompts": 12, "same_text": 12, "max_logit_difference": 0.0, "mean_kl": 0.0}},
            {"format": "merged", "path": "exports/merged", "verified": {"dtype": "bfloat16", "prompts": 12, "same_text": 12, "max_logit_difference": 0.04112, "mean_kl": 1.2e-05}},
        ],
        "environment": {"tunesmith": "0.1.0", "python": "3.11.9", "torch": "2.13.0+cpu", "machine": {"cpu": "2 cores", "gpu": None}},
        "stages": {"build": 21.0, "prepare": 3.2, "train": 182.2, "evaluate": 96.1, "export": 9.3, "report": 0.4},
    }  # fmt: skip
    run.summary.write_text(json.dumps(summary))
    return run


if __name__ == "__main__":
    import sys

    folder = Path(sys.argv[1])
    print(write_report(write_run(folder, built=int(sys.argv[2]) if len(sys.argv) > 2 else 240)))
