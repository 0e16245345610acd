"""Faults that real pipelines had and did not notice; each must be caught before a run is paid for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.check import CheckResult, check
from tunesmith.check.template import Shape, Turn, template_findings
from tunesmith.config.load import Loaded, load_config

DDL = "CREATE TABLE clinic (id int, city text);"
NO_MORE = ["recipe", "model", "sources", "template", "data", "labels", "leakage"]


def record(n: int, **changes: Any) -> dict[str, Any]:
    made = {"question": f"How many clinics in town {n}?", "sql": f"SELECT count(*) FROM clinic WHERE id > {n};"}
    return {**made, "schema": DDL, "database": "shop", **changes}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> Callable[..., Loaded]:
    """`recipe(rows, **sections)`: a recipe of the SQL task on these records, or of another task."""

    def make(rows: list[Any], test: list[Any] | None = None, **sections: Any) -> Loaded:
        data: dict[str, Any] = {"train": "train.jsonl", "validation_share": 0, **sections.pop("data", {})}
        for name, records in (("train", rows), ("test", test)):
            if records is not None:
                (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        if test is not None:
            data["test"] = {"mine": "test.jsonl"}
        settings = {
            "name": "x", "task": {"name": "sql", "databases": {"shop": "shop.sql"}},
            "output_dir": str(tmp_path / "runs"),
            "model": {"name": str(tiny_model_dir("llama"))}, "data": data, "tracking": {"report_to": []}, **sections,
        }  # fmt: skip
        (tmp_path / "shop.sql").write_text(DDL)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
        return load_config(tmp_path / "recipe.yaml", environ={})

    return make


def errors(result: CheckResult) -> set[str]:
    return {finding.check for finding in result.errors}


def found(result: CheckResult, check_name: str) -> Any:
    return next(finding for finding in result.findings if finding.check == check_name)


def test_s1_an_answer_beyond_max_length_blocks_with_its_rows_and_the_way_out(recipe: Any) -> None:
    rows = [record(n, schema=DDL * (40 if n in (3, 5) else 1)) for n in range(20)]
    result = check(recipe(rows, data={"max_length": 300}), families=NO_MORE)
    assert errors(result) == {"data.too_long"}
    finding = found(result, "data.too_long")
    assert finding.place.endswith("train.jsonl:4") and "train.jsonl:6" in finding.message
    assert "DDL" in finding.remedy and "data.max_length" in finding.remedy


def test_s2_padding_that_is_the_end_token_is_named(tiny_tokenizer: Any) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    shape = Shape((Turn("user", False, "", False, False), Turn("assistant", True, "", False, False)), False)
    assert [f.check for f in template_findings(tokenizer, [shape])] == ["template.pad_is_end"]


def test_s3_a_beginning_token_in_the_text_beside_the_templates_own_is_found(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{{ '<s>' }}{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    recipe([record(n, question=f"<s> {n}?" if n == 4 else f"{n}?") for n in range(20)])
    loaded = load_config(tmp_path / "recipe.yaml", [f"model.chat_template={tmp_path / 't.jinja'}"], environ={})
    assert errors(check(loaded, families=NO_MORE)) == {"data.special_token_in_content"}


def test_s4_and_s21_a_data_dump_in_a_prompt_is_found_by_its_size_before_it_is_parsed(recipe: Any) -> None:
    dump = DDL + "INSERT INTO clinic VALUES (1, 'Cork');\n" * 60_000
    result = check(recipe([record(0, schema=dump), *(record(n) for n in range(1, 9))]), quick=True)
    finding = found(result, "sources.record_too_large")
    assert finding.level == "error" and "without INSERTs" in finding.remedy and "waits" in finding.cost


def test_s5_rows_that_would_vanish_stop_the_run_with_their_number_and_reason(recipe: Any) -> None:
    rows = [record(n) if n % 3 else {"question": "?"} for n in range(30)]
    result = check(recipe(rows), families=NO_MORE)
    finding = found(result, "data.the_task_refuses")
    assert finding.level == "error" and "10 of 30 rows" in finding.message


def test_s6_a_question_that_is_also_a_test_question_is_told(recipe: Any) -> None:
    rows = [record(n) for n in range(20)]
    result = check(recipe(rows, test=rows[:5]), families=NO_MORE)
    assert "5 rows" in found(result, "leakage.same_question").message


def test_s6_one_file_on_both_sides_is_an_error(recipe: Any, tmp_path: Path) -> None:
    recipe([record(n) for n in range(9)])
    loaded = load_config(tmp_path / "recipe.yaml", [f"data.test={{mine: {tmp_path / 'train.jsonl'}}}"], environ={})
    assert "sources.same_file" in errors(check(loaded, quick=True))


def test_s7_an_end_token_of_another_model_family_is_found(recipe: Any) -> None:
    shape = Shape((Turn("user", False, "", False, False), Turn("assistant", True, "", False, False)), False)
    from tunesmith.check import examine

    with examine(recipe([record(n) for n in range(9)])) as subject:
        wrong = template_findings(subject.tokenizer, [shape], end_token="<end_of_turn>")
    assert [finding.check for finding in wrong] == ["template.other_end_token"]


def test_s8_a_template_that_puts_the_answer_into_the_thoughts_is_found(tiny_tokenizer: Any) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    # The content is overwritten by what follows the thought before the thought is taken out of it.
    tokenizer.chat_template = (
        "{% for m in messages %}{% set content = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% set thought = content.split('</think>')[0] %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
        "{{ content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    shape = Shape((Turn("user", False, "", False, False), Turn("assistant", True, "inline", False, False)), False)
    names = {finding.check for finding in template_findings(tokenizer, [shape]) if finding.level == "error"}
    assert names & {"template.drops_reasoning", "template.writes_twice", "template.swaps_reasoning"}


def test_s9_tool_calls_that_nobody_could_parse_are_dropped_with_their_reason(recipe: Any) -> None:
    def call(n: int) -> dict[str, Any]:
        value = "f({'place': 'Cork'})" if n % 2 else '{"name": "f", "arguments": {"place": "Cork"}}'
        return {"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "function_call", "value": value}]}

    result = check(recipe([call(n) for n in range(20)], task="chat"), families=["sources", "data"])
    finding = found(result, "data.broken_tool_call")
    assert finding.level == "error" and "10 of 20" in finding.message and "JSON" in finding.remedy


def test_s11_a_key_that_is_never_applied_stops_the_run(recipe: Any) -> None:
    loaded = recipe([record(n) for n in range(9)], train={"dataloader_prefetch_factor": 2})
    assert errors(check(loaded, quick=True)) == {"recipe.ignored"}


def test_s16_a_grader_that_accepts_what_is_wrong_is_found_before_training(recipe: Any, tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"{n} digits", "match": "contains"} for n in range(20)]
    digits = (
        "from tunesmith.types import Example, Message, Score\n"
        "class Digits:\n    name, version = 'digits', '1'\n"
        "    def examples(self, record):\n"
        "        yield Example(record.id, (Message('user', record.fields['question']),"
        " Message('assistant', record.fields['answer'], train=True)), target=record.fields['answer'])\n"
        "    def grade(self, example, completion):\n        return Score(float(any(c.isdigit() for c in completion)))\n"
        "    def constraint(self, example):\n        return None\n    def close(self):\n        pass\n"
    )
    (tmp_path / "digits_task.py").write_text(digits)
    test = [{"question": f"test {n}?", "answer": f"{n}00 digits"} for n in range(20)]
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        result = check(recipe(rows, test=test, task="digits_task:Digits"))
    finally:
        sys.path.remove(str(tmp_path))
    assert "grader.self_test" in errors(result)


def test_s19_a_secret_of_the_environment_is_in_nothing_that_is_written(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.check.doctor import examine_machine

    canary = "hf_canarycanarycanary4711"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "COMET_API_KEY"):
        monkeypatch.setenv(name, canary)
    result = check(recipe([record(n) for n in range(9)]))
    result.save(tmp_path / "check.json")
    machine = examine_machine()
    told = result.text() + machine.text() + json.dumps(machine.figures()) + (tmp_path / "check.json").read_text()
    assert canary not in told
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes()
