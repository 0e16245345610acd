"""Slices, other models and the grader's own test, as a reader of the page finds them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tunesmith.report import write_report
from tunesmith.report.compared import others, slices, trust
from tunesmith.report.read import read_run
from tunesmith.report.terminal import summary_text
from tunesmith.rundir import RunDir


def share(value: float | None, n: int = 40) -> dict[str, object]:
    return {"value": value, "low": 0.1, "high": 0.9, "n": n}


def scores(accuracy: float, **parts: float) -> dict[str, object]:
    return {
        "accuracy": accuracy, "low": 0.3, "high": 0.7, "n": 80, "unscored": 0, "stop_rate": 1.0, "run_on": 0.0625,
        "same_language": 0.975, "mean_tokens": 12.5, "slices": {"kind": {k: share(v) for k, v in parts.items()}},
    }  # fmt: skip


SUMMARY = {
    "name": "x",
    "status": "complete",
    "scores": {
        "base": {"mine": scores(0.4, count=0.25, top=0.5)},
        "tuned": {"mine": scores(0.6, count=0.875, top=0.375)},
        "gpt_<b>": {"mine": scores(0.55)},
    },
    "paired": {
        "mine": {
            "difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.001, "gained": 20, "lost": 4,
            "slices": {"kind": {
                "count": {"difference": 0.625, "low": 0.4, "high": 0.8, "p_value": 0.0002, "n": 40},
                "top": {"difference": -0.125, "low": -0.3, "high": 0.1, "p_value": 0.4, "n": 40},
            }},
        }
    },
    "contest": {
        "others": [{"name": "gpt_<b>", "kind": "endpoint", "where": "https://host/v1#gpt <b>"}],
        "sets": {"mine": {"gpt_<b>": {
            "difference": 0.05, "low": -0.05, "high": 0.15, "p_value": 0.2, "p_adjusted": 0.25, "n": 80,
        }}},
    },
    "trust": {
        "self_test": {"gold": 1.0, "gold_n": 50, "shuffled": 0.02, "shuffled_n": 50, "unscored": 3, "offences": []},
        "hack_gain": {"gain": 0.04, "policies": {"empty": 0.0, "echo": 0.04}, "offences": ["x:1: 'a' scores 1"]},
    },
}  # fmt: skip


def page(tmp_path: Path) -> str:
    (tmp_path / "run.json").write_text(json.dumps(SUMMARY))
    events = [{"event": "selection", "step": step, "task_score": 0.1 * step, "time": 1} for step in range(1, 6)]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    text = write_report(RunDir(tmp_path)).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", text.replace("\u202f", " "))


def test_the_page_shows_each_slice_with_its_difference(tmp_path: Path) -> None:
    text = page(tmp_path)
    row = text[text.index('<th scope="row">count</th>') :].split("</tr>")[0]
    assert "25.0 %" in row and "87.5 %" in row and "+62.5" in row and 'class="n gain better"' in row
    row = text[text.index('<th scope="row">top</th>') :].split("</tr>")[0]
    assert "12.5" in row and 'class="n gain "' in row  # not beyond chance


def test_the_page_shows_other_models_and_what_they_are_without_believing_their_names(tmp_path: Path) -> None:
    text = page(tmp_path)
    row = text[text.index("<td>gpt &lt;b&gt;</td>") :].split("</tr>")[0]
    assert "endpoint" in row and "55.0 %" in row and "+5.0" in row and "0.250" in row and "gain even" in row
    assert "gpt <b>" not in text


def test_the_page_says_how_the_grader_did_in_its_own_test(tmp_path: Path) -> None:
    text = page(tmp_path)
    section = text[text.index('id="trust"') :].split("</section>")[0]
    assert "50 right answers scored 100.0 %" in section and "3 could not be judged" in section
    assert section.index("echo") < section.index("empty")
    assert "x:1: &#39;a&#39; scores 1" in section


def test_run_on_language_and_the_score_while_training_are_there(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "6.2 %" in text and "97.5 %" in text and "Task score of validation answers" in text


def test_a_run_without_any_of_it_has_no_empty_sections(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"name": "x", "contest": None}))
    text = write_report(RunDir(tmp_path)).read_text(encoding="utf-8")
    files = read_run(RunDir(tmp_path))
    assert (slices(files), others(files), trust(files.summary)) == ((), (), None)
    assert 'id="slices"' not in text and 'id="others"' not in text and 'id="trust"' not in text


def test_the_terminal_says_it_in_a_line(tmp_path: Path) -> None:
    text = summary_text(SUMMARY, tmp_path).replace("\u202f", " ")
    assert "mine: gpt_<b> 55.0 %; tuned is better by +5.0 points" in text and "p = 0.25" in text
