"""Pairs of queries that give the same rows on the shipped data: the shop of this room, and one made to be blind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import psycopg
import pytest

from tunesmith.config.schema import SqlTask as Settings
from tunesmith.tasks.sql.catalogue import Field, read_catalogue
from tunesmith.tasks.sql.embedded import Embedded
from tunesmith.tasks.sql.focus import Compared, read_focus
from tunesmith.tasks.sql.grade import SqlGrader
from tunesmith.tasks.sql.instances import Instances, instance_of
from tunesmith.tasks.sql.near import values_near
from tunesmith.tasks.sql.postgres import Server, open_server
from tunesmith.tasks.sql.rows import RECIPES, make_rows

NOW = dt.datetime(2024, 6, 1, 12)
BLIND = """
CREATE TYPE grade AS ENUM ('low', 'mid', 'high');
CREATE TABLE teams (id integer PRIMARY KEY, name text NOT NULL UNIQUE, town text, founded date);
CREATE TABLE players (
  id integer PRIMARY KEY,
  team_id integer NOT NULL REFERENCES teams (id),
  name text NOT NULL,
  goals integer CHECK (goals >= 0),
  wage numeric(8,2),
  level grade,
  born date,
  CHECK (goals < 100 OR wage IS NOT NULL)
);
CREATE TABLE pairings (home integer REFERENCES teams (id), away integer REFERENCES teams (id), on_day timestamp,
  PRIMARY KEY (home, away), CHECK (home <> away));
CREATE VIEW scorers AS SELECT name, goals FROM players WHERE goals > 2;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END; $$;
INSERT INTO teams VALUES (1, 'Reds', 'Lyon', '2001-05-01'), (2, 'Blues', 'Oslo', '1999-01-01');
INSERT INTO players VALUES (1, 1, 'Ann', 5, 10.5, 'high', '2000-01-01'), (2, 2, 'Bea', 3, 20, 'mid', '2001-01-01'),
  (3, 1, 'Cid', 4, 30, 'low', '1999-09-09');
INSERT INTO pairings VALUES (1, 2, '2024-05-05 18:00');
CREATE TRIGGER guard BEFORE INSERT OR DELETE ON players FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    path = tmp_path_factory.mktemp("blind") / "blind.sql"
    path.write_text(BLIND, encoding="utf-8")
    return Settings(databases={"blind": path}, timeout_seconds=2)


@pytest.fixture(scope="module")
def blind(settings: Settings) -> Iterator[Server]:
    with open_server(settings, {}) as running:
        yield running


@pytest.fixture(scope="module")
def grader(blind: Server, settings: Settings) -> SqlGrader:
    return SqlGrader(blind, settings)


SAME_HERE_BUT_WRONG = [
    ("SELECT name FROM players WHERE goals > 2", "SELECT name FROM players WHERE goals >= 2"),
    ("SELECT name FROM players WHERE goals > 2", "SELECT name FROM players"),
    ("SELECT name FROM players", "SELECT DISTINCT name FROM players"),
    ("SELECT count(*) FROM players", "SELECT count(goals) FROM players"),
    ("SELECT count(town) FROM teams", "SELECT count(DISTINCT town) FROM teams"),
    (
        "SELECT t.name, count(p.id) FROM teams t JOIN players p ON p.team_id = t.id GROUP BY t.name",
        "SELECT t.name, count(p.id) FROM teams t LEFT JOIN players p ON p.team_id = t.id GROUP BY t.name",
    ),
    ("SELECT name FROM players WHERE level = 'high'", "SELECT name FROM players WHERE level = 'high' AND goals > 0"),
    ("SELECT town FROM teams WHERE founded < '2000-01-01'", "SELECT town FROM teams WHERE founded <= '2000-01-01'"),
    ("SELECT max(goals) FROM players", "SELECT 5"),
    ("SELECT name FROM teams WHERE name = 'Greens'", "SELECT name FROM teams WHERE name = 'Whites'"),
    (
        "SELECT team_id FROM players GROUP BY team_id HAVING count(*) > 1",
        "SELECT team_id FROM players GROUP BY team_id HAVING count(*) = 2",
    ),
    (
        "SELECT town FROM teams WHERE id IN (SELECT team_id FROM players WHERE goals > 3) AND founded > '2000-12-31'",
        "SELECT town FROM teams WHERE id IN (SELECT team_id FROM players WHERE goals > 3)",
    ),
    ("SELECT name FROM scorers", "SELECT name FROM scorers WHERE goals < 9"),
    (
        "SELECT name FROM players WHERE born < CURRENT_DATE - INTERVAL '18 years'",
        "SELECT name FROM players WHERE born < CURRENT_DATE - INTERVAL '19 years'",
    ),
    (
        "SELECT name FROM teams t WHERE NOT EXISTS (SELECT 1 FROM pairings WHERE home = t.id)",
        "SELECT name FROM teams t WHERE EXISTS (SELECT 1 FROM pairings WHERE away = t.id)",
    ),
]


@pytest.mark.parametrize(("gold", "answer"), SAME_HERE_BUT_WRONG)
def test_what_the_shipped_rows_do_not_tell_apart_is_told_apart_on_rows_of_our_own(
    grader: SqlGrader, gold: str, answer: str
) -> None:
    score = grader.grade("blind", [gold], answer)
    assert score.parts["shipped_rows"] == 1.0, score
    assert score.value == 0.0, score
    assert score.failure
    assert score.shown["instance"]["rows"] != score.shown["instance"]["gold_rows"]
    assert grader.grade("blind", [gold], answer) is score, "the same answer has the same mark"


SAME_EVERYWHERE = [
    ("SELECT name FROM players WHERE goals > 2", "SELECT name FROM players WHERE NOT (goals <= 2)"),
    ("SELECT name FROM teams", "SELECT DISTINCT name FROM teams"),  # UNIQUE and NOT NULL are declared
    ("SELECT count(*) FROM players", "SELECT count(id) FROM players"),
    (
        "SELECT p.name FROM players p JOIN teams t ON t.id = p.team_id",
        "SELECT name FROM players",  # every player has a team: the key is declared
    ),
    (
        "SELECT p.name FROM players p JOIN teams t ON t.id = p.team_id WHERE t.town = 'Lyon'",
        "SELECT name FROM players WHERE team_id IN (SELECT id FROM teams WHERE town = 'Lyon')",
    ),
    ("SELECT name FROM players WHERE goals >= 0", "SELECT name FROM players WHERE goals > -1"),
    ("SELECT count(*) FROM pairings WHERE home = away", "SELECT 0"),  # a check says so
    (
        "SELECT name FROM players ORDER BY goals DESC LIMIT 1",
        "SELECT name FROM players ORDER BY goals DESC, id LIMIT 1",
    ),
    ("SELECT name FROM players WHERE wage IS NULL", "SELECT name FROM players WHERE coalesce(wage, -1) = -1"),
    (
        "SELECT name, row_number() OVER (ORDER BY goals) FROM players",
        "SELECT name, row_number() OVER (ORDER BY goals, name) FROM players",
    ),
]


@pytest.mark.parametrize(("gold", "answer"), SAME_EVERYWHERE)
def test_another_way_to_say_the_same_stays_right(grader: SqlGrader, gold: str, answer: str) -> None:
    score = grader.grade("blind", [gold], answer)
    assert score.value == 1.0, score


def test_the_order_of_the_rows_must_come_from_the_query(grader: SqlGrader) -> None:
    gold = "SELECT name, goals FROM players ORDER BY goals"
    for answer in (
        "SELECT name, goals FROM players ORDER BY random()",
        "SELECT name, goals FROM (VALUES ('Bea', 3), ('Cid', 4), ('Ann', 5)) v(name, goals)",
        "SELECT name, goals FROM players ORDER BY level",
    ):
        assert grader.grade("blind", [gold], answer).value == 0.0, answer
    for answer in (
        "SELECT name, goals FROM players ORDER BY 2, 1",
        "SELECT * FROM (SELECT name, goals FROM players ORDER BY goals) q",
        "WITH q AS (SELECT goals, name FROM players) SELECT name, goals FROM q ORDER BY q.goals ASC NULLS LAST",
    ):
        assert grader.grade("blind", [gold], answer).value == 1.0, answer


def test_which_of_tied_rows_a_limit_keeps_is_open_only_where_the_right_query_leaves_it_open(grader: SqlGrader) -> None:
    by_level = "SELECT id FROM players ORDER BY level IS NULL LIMIT 2"
    assert (
        grader.grade("blind", [by_level], "SELECT id FROM players ORDER BY level IS NULL, id DESC LIMIT 2").value == 1.0
    )
    lucky = grader.grade("blind", ["SELECT id FROM players ORDER BY goals LIMIT 1"], "SELECT 2 LIMIT 1")
    assert lucky.value == 0.0


def test_made_rows_keep_every_declared_key_and_check(blind: Server) -> None:
    catalogue = read_catalogue(blind, "blind")
    query = "SELECT * FROM players p JOIN teams t ON t.id = p.team_id JOIN pairings g ON g.home = t.id WHERE goals > 99"
    focus = read_focus([query], catalogue)
    assert focus is not None
    players = catalogue.relations["public", "players"]
    compared = {(players.name, "goals"): values_near(players.columns["goals"], [Compared(">", "99")], NOW)}
    for recipe in RECIPES:
        made = make_rows(focus, compared, recipe, "seed")
        assert made == make_rows(focus, compared, recipe, "seed")
        teams = [row[0] for row in made["public", "teams"]]
        assert len(set(teams)) == len(teams)
        assert {row[1] for row in made["public", "players"]} <= set(teams)
        names = [row[1] for row in made["public", "teams"]]
        assert None not in names
        assert len(set(names)) == len(names)
    shown = blind.trusted(instance_of("blind"), psycopg.sql.SQL("SELECT count(*) FROM players WHERE goals < 0"))
    assert shown == [(0,)]


@pytest.mark.parametrize(
    ("type_", "op", "value", "good", "near"),
    [
        ("integer", ">", "5", {"6"}, {"5", "4"}),
        ("integer", "<=", "5", {"5", "4"}, {"6"}),
        ("integer", "=", "5", {"5"}, {"4", "6"}),
        ("integer", ">", "2.5", {"4"}, {"3", "2"}),
        ("numeric", "<>", "1", {"2", "1.5", "0", "0.5"}, {"1"}),
        ("date", ">=", "2024-02-28", {"2024-02-28", "2024-02-29"}, {"2024-02-27"}),
        ("date", "=", "2023", {"2023-06-15", "2023-01-01", "2023-12-31"}, {"2022-12-31", "2024-01-01"}),
        ("text", "=", "Paris", {"Paris"}, {"pARIS", "xParis", "Parisx"}),
        ("text", "like", "%ar_s", {"arzs", "quarzs"}, {"ARZS", "xarzs", "arzsx", "arz"}),
        ("character varying(4)", "=", "Paris", {"Pari"}, {"pARI", "xPar"}),
        ("boolean", "=", "true", {"true"}, {"false"}),
        ("integer", "=", "many", set(), set()),
    ],
)
def test_values_lie_at_and_around_a_constant(type_: str, op: str, value: str, good: set[str], near: set[str]) -> None:
    found = values_near(Field("c", type_, required=False), [Compared(op, value)], NOW)
    assert set(found.good) == good
    assert set(found.near) == near


def test_a_query_is_read_for_what_it_compares_links_and_counts(blind: Server) -> None:
    catalogue = read_catalogue(blind, "blind")
    focus = read_focus(
        [
            "SELECT t.name, count(*) AS n FROM teams t JOIN players p ON p.team_id = t.id "
            "WHERE p.goals BETWEEN 2 AND 4 AND t.town IN ('Lyon', 'Rome') "
            "AND p.born > CURRENT_DATE - INTERVAL '1 year' AND p.wage IS NOT NULL "
            "GROUP BY t.name HAVING count(*) >= 3 ORDER BY n LIMIT 7"
        ],
        catalogue,
    )
    assert focus is not None
    players, teams = ("public", "players"), ("public", "teams")
    assert set(focus.relations) == {players, teams}
    assert {(one.op, one.value) for one in focus.compared[players, "goals"]} == {(">=", "2"), ("<=", "4")}
    assert {one.value for one in focus.compared[teams, "town"]} == {"Lyon", "Rome"}
    assert focus.compared[players, "born"][0].computed
    assert focus.null == {(players, "wage")}
    assert focus.counts == {3}
    assert focus.limits == {7}
    assert {frozenset(pair) for pair in focus.linked} == {frozenset({(players, "team_id"), (teams, "id")})}
    assert not focus.reads("level")
    assert read_focus(["SELECT 1"], catalogue) is None


def test_an_answer_that_only_postgres_can_read_is_judged_on_rows_of_our_own_too(grader: SqlGrader) -> None:
    nested = "SELECT " + "(" * 2_000 + "5" + ")" * 2_000
    assert grader.grade("blind", ["SELECT max(goals) FROM players"], nested).value == 0.0


def test_without_instances_the_shipped_rows_decide_and_the_note_says_so(blind: Server, settings: Settings) -> None:
    alone = SqlGrader(blind, settings.model_copy(update={"instances": 0}))
    score = alone.grade("blind", ["SELECT max(goals) FROM players"], "SELECT 5")
    assert score.value == 1.0
    assert "no second instance" in score.note
    assert "second_instances" not in score.parts


def test_queries_are_asked_at_one_moment(blind: Server, settings: Settings) -> None:
    at = SqlGrader(blind, settings.model_copy(update={"clock": "2020-01-01 10:00"}))
    score = at.grade(
        "blind", ["SELECT now(), CURRENT_DATE"], "SELECT TIMESTAMPTZ '2020-01-01 10:00', DATE '2020-01-01'"
    )
    assert score.value == 1.0, score
    assert score.shown["asked_at"] == "2020-01-01 10:00:00 UTC"


def test_a_server_of_the_users_own_gets_its_instances_beside_it_and_keeps_nothing(blind: Server) -> None:
    blind.run("blind", "SELECT 1")
    home = blind._home._server
    assert isinstance(home, Embedded)
    before = blind.trusted("blind", psycopg.sql.SQL("SELECT datname::text FROM pg_database ORDER BY 1"))
    own = Settings(server="env:MINE", databases={"blind": None}, timeout_seconds=2)
    with open_server(own, {"MINE": home.url("tunesmith_gold", "blind")}) as mine:
        grader = SqlGrader(mine, own)
        for gold, answer in SAME_HERE_BUT_WRONG[:7]:
            assert grader.grade("blind", [gold], answer).value == 0.0, answer
        for gold, answer in SAME_EVERYWHERE[:7]:
            assert grader.grade("blind", [gold], answer).value == 1.0, answer
    assert blind.trusted("blind", psycopg.sql.SQL("SELECT datname::text FROM pg_database ORDER BY 1")) == before


def test_a_database_that_cannot_be_copied_is_judged_on_its_own_rows(
    blind: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("no space")

    monkeypatch.setattr(Server, "copy", refuse)
    assert Instances(blind, 4, NOW).examine("blind", "SELECT name FROM teams", "SELECT town FROM teams") is None
    assert "no space" in caplog.text
