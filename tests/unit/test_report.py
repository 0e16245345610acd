from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import shutil
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.report import embedded, write_report
from tunesmith.report.charts import Comparison, Estimate, Series, accuracy_chart, curve_chart, thin
from tunesmith.rundir import RunDir

SCHEMA = """boats(id integer pk, name text, pier_id integer -> piers.id, built date, seats integer, status text)
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
                "accuracy": share,
                "low": max(0, share - half),
                "high": min(1, share + half),
                "n": len(values),
                "unscored": n - len(values),
                "exact_match": share * 0.9,
                "stop_rate": 0.97,
            }
        gap = scores["tuned"][name]["accuracy"] - scores["base"][name]["accuracy"]
        paired[name] = {
            "difference": gap,
            "low": gap - 0.06,
            "high": gap + 0.06,
            "p_value": 1e-20,
            "gained": int(gap * n) + 2,
            "lost": 2,
        }
    with run.events.open("w") as events:
        for step in range(1, steps + 1):
            loss = 0.12 + 2.6 * math.exp(-step / 40) * (1 + 0.1 * rng.gauss(0, 1))
            rate = 2e-3 * min(1, step / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            line = {
                "time": 1.7e9 + step,
                "event": "log",
                "step": step,
                "loss": abs(loss),
                "learning_rate": rate,
                "tokens_per_second": 5200 + rng.gauss(0, 150),
                "grad_norm": 0.6 + rng.random() * 0.5,
            }
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
        "schema_version": 1,
        "name": "harbour-sql",
        "seed": 0,
        "task": {"name": "sql", "server": "embedded", "schema_style": "compact", "timeout_seconds": 5.0},
        "model": {"name": "demo", "dtype": "auto", "quantization": None},
        "lora": {"r": 32, "lora_alpha": 64, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "train": {"method": "sft", "num_train_epochs": 3.0, "batch_size": 16, "learning_rate": 0.002},
        "evaluate": {"base": True, "confidence": 0.95},
        "exports": [{"format": "adapter"}, {"format": "merged", "dtype": "bfloat16"}],
    }
    run.config.write_text(yaml.safe_dump(settings, sort_keys=False))
    run.origins.write_text(
        json.dumps(
            {
                "name": "recipe harbour.yaml:1",
                "lora.r": "recipe harbour.yaml:14",
                "seed": "default",
                "train.learning_rate": "override train.learning_rate=0.002",
                "model.name": "recipe harbour.yaml:9",
                "exports.1.format": "recipe harbour.yaml:30",
                "train.method": "default",
                "lora.lora_alpha": "default",
            }
        )
    )
    summary = {
        "name": "harbour-sql",
        "created": "2026-11-21T07:05:53+00:00",
        "status": "complete",
        "seconds": 318.4,
        "peak_rss_mb": 2214.6,
        "scores": scores,
        "paired": paired,
        "training": {
            "steps": steps,
            "final_train_loss": 0.1231,
            "validation_loss": 0.1634,
            "perplexity": 1.1775,
            "seconds": 182.2,
            "tokens": 948_120,
            "label_tokens": 71_410,
            "tokens_per_second": 5204.0,
            "best_step": 300,
            "parameters": {"total": 6_120_448, "trainable": 221_184, "share": 0.0361},
            "peak_memory_mb": 2214.6,
        },
        "data": {
            "rows": 2000,
            "trained": 1894,
            "validation": 100,
            "test": 0,
            "dropped": 6,
            "reasons": {"duplicate": 4, "too long": 2},
            "notes": {"prompt shortened": 3},
        },
        "exports": [
            {
                "format": "adapter",
                "path": "exports/adapter",
                "verified": {
                    "dtype": "float32",
                    "prompts": 12,
                    "same_text": 12,
                    "max_logit_difference": 0.0,
                    "mean_kl": 0.0,
                },
            },
            {
                "format": "merged",
                "path": "exports/merged",
                "verified": {
                    "dtype": "bfloat16",
                    "prompts": 12,
                    "same_text": 12,
                    "max_logit_difference": 0.04112,
                    "mean_kl": 1.2e-05,
                },
            },
        ],
        "environment": {
            "tunesmith": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0+cpu",
            "machine": {"cpu": "2 cores", "gpu": None},
        },
        "stages": {"build": 21.0, "prepare": 3.2, "train": 182.2, "evaluate": 96.1, "export": 9.3, "report": 0.4},
    }
    run.summary.write_text(json.dumps(summary))
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return write_run(tmp_path / "harbour", built=40, handwritten=20, steps=60)


class Page(HTMLParser):
    """The page as a browser takes it apart: elements with their attributes, and the text of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self.said = ""
        self._in = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag in ("script", "style"):
            self.raw.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style"):
            self.raw[-1] += data
        else:
            self.said += data

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]

    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.raw[1]))


def test_the_page_holds_every_section_and_every_graded_example(run: RunDir) -> None:
    page = Page(write_report(run))
    for section in ("result", "training", "failures", "examples", "mask", "data", "exports", "settings", "environment"):
        assert section in page.ids()
    examples = page.data()["examples"]
    assert len(examples) == 60
    assert {"base", "tuned"} == set(examples[0]["answers"])
    assert len(page.data()["texts"]) == 1 + len(PAIRS), "a schema shared by all examples is kept once"
    assert "2,000 rows read = 1,894 trained" in page.said
    assert re.search(r"21 of \d+ tokens trained", page.said)
    assert "override train.learning_rate=0.002" in page.said
    assert "recipe harbour.yaml:30" in page.said, "the origin of a setting in a list"


def test_no_two_elements_share_an_id(run: RunDir) -> None:
    ids = Page(write_report(run)).ids()
    assert len(ids) == len(set(ids))


def test_the_page_asks_nothing_of_the_network(run: RunDir) -> None:
    path = write_report(run)
    page = Page(path)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        target = str(attributes.get("href", ""))
        assert not re.match(r"[a-z]+:|//", target), target
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", path.read_text("utf-8"))


def test_the_security_policy_allows_only_the_script_of_the_page(run: RunDir) -> None:
    page = Page(write_report(run))
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.raw[2].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)


def test_hostile_text_anywhere_in_a_run_stays_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "hostile", built=8, handwritten=8, steps=5)
    usual = [tag for tag, _ in Page(write_report(run)).elements]

    def poison(value: Any) -> Any:
        if isinstance(value, str):
            return value + HOSTILE
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        return [poison(inner) for inner in value] if isinstance(value, list) else value

    for path in [*(run.root / "scores").iterdir(), run.events, run.ledger]:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        path.write_text("".join(json.dumps(poison(line)) + "\n" for line in lines), "utf-8")
    for path in (run.summary, run.mask, run.origins):
        path.write_text(json.dumps(poison(json.loads(path.read_text("utf-8")))), "utf-8")
    settings = poison(yaml.safe_load(run.config.read_text("utf-8")))
    run.config.write_text(yaml.safe_dump(settings), "utf-8")
    (run.root / '"><script>alert(3)<').write_text("")
    page = Page(write_report(run))
    assert [tag for tag, _ in page.elements].count("script") == usual.count("script") == 2
    assert not any(tag == "img" or name.startswith("on") for tag, a in page.elements for name in a)
    assert HOSTILE in page.data()["examples"][0]["question"]
    assert "{{ 7*7 }}" in page.said and "alert(1)" in page.said


def test_text_that_would_end_the_data_script_is_written_otherwise() -> None:
    text = str(embedded({"a": HOSTILE}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": HOSTILE}


FILES = ["run.json", "events.jsonl", "config.yaml", "scores", "ledger.jsonl", "mask.json", "origins.json"]


@pytest.mark.parametrize("missing", FILES)
def test_a_run_without_one_of_its_files_has_a_report_that_says_so(run: RunDir, missing: str) -> None:
    path = run.root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(write_report(run))
    # Settings without their origins are whole settings.
    assert (f"{missing} is missing" in page.said) == (missing != "origins.json")


@pytest.mark.parametrize("torn", [name for name in FILES if name != "scores"])
@pytest.mark.parametrize("rest", [b"", b'{"a": [1, ', b"\xff\xfe\x00", b"[[[]]]", b"null", b"3", b"{}", b"[" * 1500])
def test_a_torn_or_strange_file_does_not_stop_the_report(run: RunDir, torn: str, rest: bytes) -> None:
    (run.root / torn).write_bytes(rest)
    assert "Every graded example" in Page(write_report(run)).said


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    page = Page(write_report(RunDir(tmp_path)))
    assert "Nothing has been graded yet" in page.said
    assert "run.json is missing" in page.said


def test_figures_of_another_type_than_expected_do_not_stop_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "small", built=2, handwritten=2, steps=2)
    run.ledger.unlink()
    known = json.loads(run.summary.read_text())
    for key in known:
        for value in (None, [], {}, "x", 3, {"built": None}, {"tuned": 3}, [{"a": 1}], [1]):
            run.summary.write_text(json.dumps({**known, key: value}))
            assert "Every graded example" in Page(write_report(run)).said, (key, value)


def test_a_torn_last_line_is_named_and_the_others_are_shown(run: RunDir) -> None:
    with run.events.open("a") as events:
        events.write('{"event": "log", "step": 61, "lo')
    page = Page(write_report(run))
    assert "events.jsonl: 1 torn line left out (line 62)" in page.said
    assert len(page.data()["charts"][0]["series"][0]["points"]) == 60


def test_a_run_that_stopped_early_counts_from_its_graded_examples(run: RunDir) -> None:
    run.summary.unlink()
    for path in (run.root / "scores").glob("tuned-*"):
        path.unlink()
    page = Page(write_report(run))
    assert "were not compared example by example" in page.said
    right = [json.loads(line)["value"] for line in run.scores("base", "built").read_text().splitlines()]
    judged = [value for value in right if value is not None]
    assert f"{100 * sum(judged) / len(judged):.1f}" in page.said


def test_rows_that_do_not_add_up_are_called_out(run: RunDir) -> None:
    known = json.loads(run.summary.read_text())
    known["data"]["trained"] -= 3
    run.summary.write_text(json.dumps(known))
    assert "The ledger does not add up: 3 rows are unaccounted for" in Page(write_report(run)).said


def test_a_difference_within_chance_is_not_called_better(run: RunDir) -> None:
    known = json.loads(run.summary.read_text())
    known["paired"]["handwritten"] |= {"difference": 0.02, "low": -0.04, "high": 0.08}
    run.summary.write_text(json.dumps(known))
    assert "better than its base on built, and not distinguishable from its base on handwritten" in " ".join(
        Page(write_report(run)).said.split()
    )


def test_answers_that_no_grader_judged_are_not_compared(run: RunDir) -> None:
    known = json.loads(run.summary.read_text())
    for model in ("base", "tuned"):
        known["scores"][model] = {"held": {"accuracy": None, "low": 0.0, "high": 1.0, "n": 0, "unscored": 16}}
    known["paired"] = {"held": {"difference": None, "low": -1.0, "high": 1.0, "p_value": 1.0, "gained": 0, "lost": 0}}
    run.summary.write_text(json.dumps(known))
    shutil.rmtree(run.root / "scores")
    page = Page(write_report(run))
    assert "no difference is claimed" in page.said
    assert "16 could not be judged" in page.said


def test_a_secret_in_the_run_is_masked_on_the_page(run: RunDir) -> None:
    for path in (run.config, run.events, run.scores("base", "built")):
        text = (
            path.read_text().replace("harbour", "hf_abcdefghijklmnop").replace("log", "postgresql://u:pass99@host/db")
        )
        path.write_text(text)
    page = write_report(run).read_text("utf-8")
    assert "hf_abcdefgh" not in page and "pass99" not in page


def test_numbers_that_are_not_finite_leave_a_gap_and_valid_json(run: RunDir) -> None:
    with run.events.open("a") as events:
        events.write('{"event": "log", "step": 61, "loss": NaN}\n{"event": "log", "step": 62, "loss": Infinity}\n')
    assert len(Page(write_report(run)).data()["charts"][0]["series"][0]["points"]) == 60


def test_a_thousand_examples_stay_a_small_page(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "large", built=1000, handwritten=10, steps=5))
    assert path.stat().st_size < 1_500_000


def test_writing_again_replaces_the_page_and_leaves_nothing_beside_it(run: RunDir) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert [path.name for path in run.root.glob("*report*")] == ["report.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_text_meet_wcag_aa(scheme: str) -> None:
    css = resources.files("tunesmith.report").joinpath("page.css").read_text("utf-8")
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours: dict[str, str] = {}
    for root in roots[: 1 if scheme == "light" else 2]:
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", root))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in ("ink", "soft", "base", "tuned", "validation", "good", "bad"):
        for ground in ("paper", "sheet", "wash", "warn", "sunk"):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
    for ground in ("mark", "extra"):
        light, dark = sorted((luminance(colours["ink"]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, ground


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    points = [(float(i), 1.0 + (i == 7777) * 9 - (i == 3333) * 0.9) for i in range(20_000)]
    kept = thin(points)
    assert len(kept) <= 600
    assert {points[7777], points[3333], points[0], points[-1]} <= set(kept)
    assert kept == sorted(kept)


@given(
    st.lists(
        st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: x if abs(x) > 1e-9 else 0.0), min_size=1, max_size=40
    )
)
def test_every_curve_stays_inside_its_frame(values: list[float]) -> None:
    chart = curve_chart("x", [Series("x", "train", [(float(i), value) for i, value in enumerate(values)])])
    assert chart is not None
    heights = [float(y) for y in re.findall(r"\d,(-?[\d.]+)", re.findall(r'points="([^"]*)"', chart.svg)[0])]
    assert len(heights) == len(values)
    assert all(-0.5 <= y <= 220.5 for y in heights)


def test_the_accuracy_chart_says_in_words_what_it_draws() -> None:
    svg = accuracy_chart([Comparison("a_b", Estimate(0.2, 0.1, 0.3), Estimate(0.9, None, None))])
    assert "a b: base 20.0" in svg and "(10.0 to 30.0" in svg and "tuned 90.0" in svg
    assert svg.count("whisker") == 1


if __name__ == "__main__":
    import sys

    folder = Path(sys.argv[1])
    print(write_report(write_run(folder, built=int(sys.argv[2]) if len(sys.argv) > 2 else 240)))


def test_the_page_holds_the_plan_against_what_happened_and_shows_the_rehearsal(run: RunDir) -> None:
    span = {"low": 1e9, "expected": 2e9, "high": 3e9}
    parts = {"weights": 4e8, "activations": 16e8}
    memory = {"peak": span, "stages": {"train": parts, "load": {"file": 1e8}}}
    run.plan.parent.mkdir(parents=True)
    run.plan.write_text(json.dumps({"here": {"memory": memory, "time": {"seconds": span}}}))
    run.proof.parent.mkdir(parents=True)
    shown = [{"name": "same weights", "passed": False, "text": "<b>sha256</b> of the trained weights differs"}]
    proof = {"passed": False, "steps": 20, "killed_at": 10, "created": "2026-11-25T16:00:00+00:00", "shown": shown}
    run.proof.write_text(json.dumps({**proof, "signature": "ab" * 32}))
    summary = json.loads(run.summary.read_text())
    summary["forecast"] = {"memory": {**span, "measured": 5e9, "error": -0.6, "inside": False}}
    run.summary.write_text(json.dumps(summary))
    page = write_report(run).read_text("utf-8")
    text = re.sub(r"<[^>]+>|\s+", " ", page[page.index('id="plan"') : page.index('id="exports"')])
    text = text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert re.search(r"Most memory +2.0 GB +1.0 GB +3.0 GB +5.0 GB +no", text), text
    assert "activations 1.6 GB" in re.sub(" +", " ", text) and "killed in the save of step 10" in text
    assert "&lt;b&gt;sha256&lt;/b&gt;" in page and "abababababababab" in text
