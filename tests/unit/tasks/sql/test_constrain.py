"""The constraint lets every right query through, prefix by prefix, and stops the mistakes small models make."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.tasks.sql.compose import Composer
from tunesmith.tasks.sql.constrain import SchemaConstraint
from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.literals import Literals
from tunesmith.tasks.sql.schema import Column, Schema, Style, Table, render_schema
from tunesmith.tasks.sql.schema_text import read_schema_text

SCHEMA = Schema(
    "practice",
    (
        Table(
            "clinics",
            (
                Column("id", "integer", primary_key=True),
                Column("name", "text"),
                Column("city", "text", values=("Cork", "O'Brien's Bridge")),
                Column("opened_on", "date"),
            ),
            comment="where we work",
        ),
        Table(
            "vets",
            (
                Column("id", "integer", primary_key=True),
                Column("clinic_id", "integer", references=("clinics", "id")),
                Column("name", "text"),
                Column("salary", "numeric(10,2)", comment="euro, a year"),
            ),
        ),
        Table(
            "owners",
            (
                Column("id", "integer", primary_key=True),
                Column("name", "text"),
                Column("city", "text"),
                Column("joined_on", "date"),
            ),
        ),
        Table(
            "pets",
            (
                Column("id", "integer", primary_key=True),
                Column("owner_id", "integer", references=("owners", "id")),
                Column("name", "text"),
                Column("species", "text"),
                Column("weight_kg", "numeric"),
            ),
        ),
        Table(
            "appointments",
            (
                Column("id", "integer", primary_key=True),
                Column("pet_id", "integer", references=("pets", "id")),
                Column("vet_id", "integer", references=("vets", "id")),
                Column("starts_at", "timestamp"),
                Column("End", "integer"),
            ),
        ),
        Table("Old Prices", (Column("year", "integer"), Column("Price (EUR)", "numeric"))),
    ),
)

RIGHT = [
    "SELECT COUNT(*) FROM pets",
    "SELECT name FROM pets WHERE species = 'dog' AND weight_kg > 8.5 ORDER BY weight_kg DESC LIMIT 5",
    "SELECT pets.name FROM pets JOIN owners ON pets.owner_id = owners.id WHERE owners.city = 'Cork'",
    "SELECT owners.name, COUNT(*) AS total FROM owners LEFT JOIN pets ON pets.owner_id = owners.id "
    "GROUP BY owners.id, owners.name HAVING COUNT(*) >= 3 ORDER BY total DESC NULLS LAST",
    "SELECT c.name FROM clinics AS c JOIN vets v ON v.clinic_id = c.id JOIN appointments a ON a.vet_id = v.id",
    "SELECT name FROM owners WHERE id NOT IN (SELECT owner_id FROM pets)",
    "SELECT name FROM owners WHERE NOT EXISTS (SELECT 1 FROM pets WHERE pets.owner_id = owners.id)",
    "SELECT name FROM vets WHERE salary > (SELECT AVG(salary) FROM vets)",
    "SELECT AVG(total) FROM (SELECT COUNT(*) AS total FROM pets GROUP BY owner_id) AS counts",
    "SELECT EXTRACT(YEAR FROM joined_on), COUNT(*) FROM owners GROUP BY EXTRACT(YEAR FROM joined_on)",
    "SELECT name, RANK() OVER (PARTITION BY species ORDER BY weight_kg DESC) FROM pets",
    "SELECT 100.0 * COUNT(*) FILTER (WHERE species = 'cat') / COUNT(*) FROM pets",
    "SELECT 2 * weight_kg FROM pets",
    "SELECT CAST(salary AS double precision) / 12, salary::integer FROM vets",
    "SELECT CASE WHEN weight_kg > 10 THEN 'big' ELSE 'small' END AS size, COUNT(*) FROM pets GROUP BY size",
    "SELECT name FROM owners UNION SELECT name FROM vets ORDER BY name",
    "SELECT name FROM owners WHERE city = 'Cork' EXCEPT SELECT name FROM vets",
    "(SELECT name FROM owners LIMIT 1) UNION ALL (SELECT name FROM vets LIMIT 1)",
    "WITH heavy AS (SELECT owner_id, MAX(weight_kg) AS most FROM pets GROUP BY owner_id) "
    "SELECT owners.name, heavy.most FROM heavy JOIN owners ON owners.id = heavy.owner_id",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n",
    "SELECT DISTINCT ON (species) species, name FROM pets ORDER BY species, weight_kg DESC",
    "SELECT name FROM owners WHERE joined_on >= DATE '2024-01-01' AND joined_on < DATE '2025-01-01' + INTERVAL '1 day'",
    "SELECT a.name FROM vets AS a JOIN vets AS b ON a.clinic_id = b.clinic_id WHERE a.id <> b.id",
    "SELECT owners.name FROM owners JOIN clinics ON owners.city = clinics.city",
    "SELECT owners.name FROM owners CROSS JOIN clinics",
    "SELECT pets.name FROM pets, owners WHERE pets.owner_id = owners.id",
    'SELECT "End", appointments."End" FROM appointments WHERE starts_at::date = \'2025-03-01\'',
    'SELECT "Price (EUR)" FROM "Old Prices" WHERE year = 2024',
    "SELECT AVG(joined_on - DATE '2024-01-01'), MAX(joined_on) FROM owners WHERE joined_on > 'today'",
    "SELECT name FROM owners WHERE CURRENT_DATE - joined_on > 365 AND joined_on > '2024-01-01'",
    "SELECT AVG(a.starts_at - o.joined_on) FROM owners AS o JOIN pets AS p ON p.owner_id = o.id "
    "JOIN appointments AS a ON a.pet_id = p.id WHERE a.starts_at - o.joined_on BETWEEN '2 days' AND '1 month'",
    "SELECT SUM(CASE WHEN species = 'dog' THEN 1 ELSE 0 END) FROM pets WHERE weight_kg = '5' OR weight_kg IN (1, 2)",
    "SELECT STRING_AGG(name, ', ' ORDER BY name) FROM pets",
    "SELECT name FROM clinics WHERE city = 'O''Brien''s Bridge'",
    "SELECT TO_CHAR(starts_at, 'YYYY-MM') AS month, COUNT(*) FROM appointments GROUP BY month",
    "select p.name from pets p where p.species ilike '%dog%' and p.weight_kg is not null;",
    "SELECT name FROM pets WHERE weight_kg IS DISTINCT FROM 5 AND species != 'dog' AND name || 'x' <> ''",
    "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY salary) FROM vets",
]


def refused_at(constraint: SchemaConstraint, sql: str, step: int = 1) -> str | None:
    """The first start of the query that is refused, the whole query where it may not end, or None."""
    for end in (*range(1, len(sql), step), len(sql)):
        if not constraint.allows(sql[:end]):
            return sql[:end]
    return None if constraint.complete(sql) else f"{sql} (incomplete)"


def one_case(sql: str) -> str:
    """The query with names in lower case, as the constraint wants them: public sets write sbTxDateTime."""
    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|\w+", lambda m: m[0] if m[0][0] in "'\"" else m[0].lower(), sql)


@pytest.fixture(scope="module", params=["compact", "ddl"])
def constraint(request: pytest.FixtureRequest) -> SchemaConstraint:
    style: Style = request.param
    return SchemaConstraint("Write one PostgreSQL query.\n\n" + render_schema(SCHEMA, style), "Which ones?")


@pytest.mark.parametrize("sql", RIGHT)
def test_a_right_query_is_allowed_at_every_letter(sql: str, constraint: SchemaConstraint) -> None:
    assert refused_at(constraint, sql) is None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("SELECT ", "salry"),
        ("SELECT name FROM ", "riders"),
        ("SELECT COUNT(*) FROM pets WHERE ", "city"),
        ("SELECT COUNT(*) FROM pets WHERE ", "owners."),
        ("SELECT owners.", "salary"),
        ("SELECT pets.species FROM pets JOIN owners ON pets.owner_id = owners.id WHERE owners.", "species"),
        ("SELECT pets.name FROM pets JOIN owners ON pets.", "weight_kg"),
        ("SELECT pets.name FROM pets JOIN owners ON pets.owner_id = owners.", "name"),
        ("SELECT pets.name FROM pets JOIN owners ON pets.owner_id = ", "pets."),
        ("SELECT pets.species FROM pets JOIN owners ON pets.owner_id = owners.id WHERE ", "name"),
        ("SELECT owners.city FROM pets ", "WHERE"),
        ("SELECT species FROM owners ", "ORDER"),
        ("SELECT pets.name FROM pets JOIN owners ", "WHERE"),
        ("SELECT name FROM pets ORDER BY name ", "WHERE"),
        ("SELECT name FROM pets WHERE species ", "name"),
        ("SELECT name FROM pets WHERE species = ", "= "),
        ("SELECT name FROM pets WHERE (species = 'a' ", "ORDER"),
        ("SELECT name FROM pets WHERE species = 'dog' ", "'cat'"),
        ("SELECT name FROM pets GROUP ", "name"),
        ("SELECT COUNT(*)", ")"),
        ("SELECT name FROM pets; ", "SELECT"),
        ("SELECT name FROM pets ", "-- all"),
        ("SELECT ", "frobnicate("),
        ("SELECT name FROM vets AS v WHERE ", "vets."),
        ("WITH heavy AS (SELECT owner_id FROM pets) SELECT heavy.", "salary"),
        ("SELECT name FROM owners WHERE id IN (SELECT owner_id FROM ", "riders"),
        ("", "DELETE FROM pets"),
        ("", "Here is the query"),
        ("", "```sql"),
        ('SELECT "', "end"),
        ("SELECT name surname ", "first_name"),
        ("SELECT name FROM pets WHERE weight_kg > ", "'heavy'"),
        ("SELECT name FROM owners WHERE joined_on > ", "2024"),
        ("SELECT name FROM owners WHERE CURRENT_DATE - joined_on > 30 AND joined_on > ", "2024"),
        ("SELECT name FROM owners WHERE CURRENT_DATE - owners.joined_on ", "ILIKE"),
        ("SELECT name FROM pets WHERE species = ", "3"),
        ("SELECT name FROM pets WHERE weight_kg ", "ILIKE"),
        ("SELECT EXTRACT(YEAR FROM ", "name"),
        ("SELECT AVG(", "species"),
        ("SELECT AVG(joined_on", ")"),
        ("SELECT name FROM pets WHERE ", "SUM("),
        ("SELECT name FROM pets WHERE ", "starts_with("),
        ("SELECT name FROM pets WHERE weight_kg = 3 ", "= 3"),
        ("SELECT pets.name FROM pets JOIN owners ON pets.owner_id ", "IS"),
        ("SELECT name FROM pets JOIN ", "pets"),
        ("SELECT name FROM ", "Pets"),
    ],
)
def test_a_mistake_is_stopped(good: str, bad: str, constraint: SchemaConstraint) -> None:
    assert not good or constraint.allows(good)
    assert not constraint.allows(good + bad + " ")


def test_what_was_asked_before_changes_nothing(constraint: SchemaConstraint) -> None:
    rng = random.Random(0)
    texts = [
        sql[: rng.randrange(len(sql))] + tail for sql in RIGHT for tail in ("", "x", " FROM", "(") for _ in range(3)
    ]
    rng.shuffle(texts)
    schema = render_schema(SCHEMA)
    for text in texts:
        fresh = SchemaConstraint(schema, "")
        assert constraint.allows(text) == fresh.allows(text), text
        assert constraint.complete(text) == SchemaConstraint(schema, "").complete(text), text


def test_a_wrong_name_is_stopped_at_its_first_wrong_letter(constraint: SchemaConstraint) -> None:
    assert constraint.allows("SELECT name FROM app") and not constraint.allows("SELECT name FROM apx")
    assert constraint.allows("SELECT vets.sal") and not constraint.allows("SELECT vets.sax")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT",
        "SELECT name",
        "SELECT name FROM",
        "SELECT name FROM pe",
        "SELECT name FROM pets WHERE",
        "SELECT name FROM pets WHERE NOT",
        "SELECT name FROM pets WHERE name = 'a",
        "SELECT name FROM pets WHERE id IN (SELECT id FROM pets",
        "SELECT COUNT(* FROM pets",
        "SELECT name FROM pets ORDER BY",
        "SELECT name FROM pets LIMIT",
        "SELECT name, FROM pets",
        "SELECT pets.name FROM pets JOIN owners",
        "SELECT owners.name FROM pets",
        "WITH a AS (SELECT name FROM pets)",
    ],
)
def test_an_unfinished_query_is_not_complete(text: str, constraint: SchemaConstraint) -> None:
    assert not constraint.complete(text)


def test_both_styles_and_dumps_say_the_same_schema() -> None:
    dump = """
    CREATE TABLE public.clinics (id integer NOT NULL, name text, city text, opened_on date, PRIMARY KEY (id));
    CREATE TABLE vets (id integer PRIMARY KEY, clinic_id integer NOT NULL, name text, salary numeric(10,2) DEFAULT 0,
      CONSTRAINT works FOREIGN KEY (clinic_id) REFERENCES clinics(id));
    """
    compact, ddl = (read_schema_text(render_schema(SCHEMA, style)) for style in ("compact", "ddl"))
    assert compact == ddl
    assert compact["clinics"].values == ("Cork", "O'Brien's Bridge")
    assert compact["Old Prices"].columns == {"year", "Price (EUR)"}
    assert compact["appointments"].references == {"pet_id": ("pets", "id"), "vet_id": ("vets", "id")}
    for name, table in read_schema_text(dump).items():
        assert (table.columns, table.primary_key, table.references) == (
            ddl[name].columns,
            ddl[name].primary_key,
            ddl[name].references,
        )


def values_of(table: str, column: str) -> list[object]:
    kind = SCHEMA.table(table).column(column).kind
    if kind == "number":
        return [3, 12, 250]
    if kind in ("date", "time"):
        import datetime as dt

        return [dt.date(2024, 3, 5), dt.date(2023, 11, 30)]
    return ["Cork", "Max", "dog", "rabbit", "Ann O'Hara"]


def test_what_the_builder_composes_is_allowed() -> None:
    composer, rng = Composer(SCHEMA, values_of), random.Random(0)  # type: ignore[arg-type]
    loose = {style: SchemaConstraint(render_schema(SCHEMA, style), "") for style in ("compact", "ddl")}
    kinds = set()
    for i in range(300):
        draft = composer.draw(rng)
        assert draft is not None
        kinds.add(draft.kind)
        refused = refused_at(loose["ddl" if i % 2 else "compact"], draft.sql, step=7)
        assert refused is None, f"{draft.sql}\nrefused at {refused}"
    assert len(kinds) > 15


def developed() -> Iterator[tuple[str, str, str, str]]:
    """(where, schema, question, SQL) of the demo's development half, and of public sets where they are at hand."""
    company = Path(__file__).parents[4] / "recipes" / "sql" / "company"
    tables = re.findall(r"CREATE TABLE.*?\n\);", (company / "company.sql").read_text("utf-8"), re.DOTALL)
    for line in (company / "questions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["half"] == "dev":
            yield "company", "\n".join(tables), row["question"], row["sql"]
    for name in ("defog", "spider_dev") if "TUNESMITH_DATA" in os.environ else ():
        path = Path(os.environ["TUNESMITH_DATA"]) / "sql" / f"{name}.jsonl"
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            yield name, row["schema_ddl"], row["question"], one_case(row["gold_sql"].strip().rstrip(";"))


def test_no_gold_query_is_forbidden() -> None:
    refused = {
        sql: at
        for _, schema, question, sql in developed()
        if (at := refused_at(SchemaConstraint(schema, question), sql, step=5)) is not None
    }
    assert not refused


def test_literals_from_the_question_alone_cost_few_gold_queries() -> None:
    """A right value that is not in the question ("Irish" is 'Ireland') must be looked up in the column."""
    pairs = [pair for pair in developed() if pair[0] == "company"]
    refused = [
        sql
        for _, schema, question, sql in pairs
        if refused_at(SchemaConstraint(schema, question, Domains({})), sql, step=len(sql)) is not None
    ]
    assert 0 < len(refused) <= len(pairs) // 25


@pytest.mark.parametrize(
    ("question", "text", "right"),
    [
        ("Which owners live in lyon?", "Lyon", True),
        ("Which owners live in Lyon?", "Lyons", False),
        ("How many no-shows?", "no_show", True),
        ("Anything about parking?", "%parking%", True),
        ("Invoices of March 2025", "2025-03-01", True),
        ("Invoices of December 2025", "2026-01-01", True),
        ("Invoices of March 2025", "2019-03-01", False),
        ("Irish suppliers", "Ireland", False),
        ("a fracture repair?\nservices.name = 'Fracture repair'", "Fracture repair", True),
        ("a fracture repair?\nservices.name = 'Fracture repair'", "Fracture repair = s", False),
        ("a fracture repair?\nservices.name = 'Fracture repair'", "Fracture repair, , --", False),
        ("Anything by Smith & Sons?", "Smith & Sons", True),
    ],
)
def test_a_text_comes_from_the_question(question: str, text: str, right: bool) -> None:
    assert Literals(question).text(text, closed=True) == right
    assert Literals(question, ["Ireland", "Lyons", "2019-03-01"]).text("Ireland", closed=True)


def test_what_no_column_holds_is_said_beside_the_values_that_one_holds() -> None:
    literals = Literals("the dogs and cows of Anna Weiss\npets.species = 'dog'; owners.name = 'Anna Weiss'")
    assert literals.asks_for("cow") and literals.asks_for("co")
    for text in ("dog", "the dog", "Anna", "of Anna Weiss", "cows of A", "cows, --"):
        assert not literals.asks_for(text), text


@pytest.mark.parametrize(
    ("question", "number", "right"),
    [
        ("more than 1,000 euro", "1000", True),
        ("under 60k", "60000", True),
        ("five-star reviews", "5", True),
        ("in March 2025", "3", True),
        ("weighing over 8.5", "8.50", True),
        ("longer than four weeks", "28", True),
        ("more than 1,000 euro", "2000", False),
        ("which dogs", "37", False),
    ],
)
def test_a_number_comes_from_the_question(question: str, number: str, right: bool) -> None:
    assert Literals(question).number(number, closed=True) == right


def test_a_miscopied_name_is_stopped() -> None:
    strict = SchemaConstraint(render_schema(SCHEMA), "How many pets does Ann Vouchers have?", Domains({}))
    start = "SELECT COUNT(*) FROM pets JOIN owners ON pets.owner_id = owners.id WHERE owners.name = '"
    assert strict.allows(start + "Ann Vouch") and not strict.allows(start + "Ann Vouer")
    assert refused_at(strict, start + "Ann Vouchers'", step=4) is None
    assert not strict.allows("SELECT name FROM pets WHERE weight_kg > 77 ")


def test_a_text_that_a_column_must_equal_is_one_that_it_holds() -> None:
    domains = Domains({("owners", "city"): ["Cork", "Ennis"], ("pets", "species"): ["cat", "dog"]})
    about = SchemaConstraint(render_schema(SCHEMA), "How many dogs are there in Ennis, or Cork?", domains)
    start = "SELECT COUNT(*) FROM pets JOIN owners ON pets.owner_id = owners.id WHERE "
    allowed = ["owners.city = 'Ennis'", "city <> 'Cork'", "species IN ('dog', 'cat')", "owners.city ILIKE '%enn%'"]
    for part in allowed:
        assert refused_at(about, start + part, step=3) is None, part
    refused = ["pets.species = 'Ennis'", "city = 'ennis'", "species = 'dogs'", "species IN ('dog', 'Cork')"]
    for part in refused:
        assert refused_at(about, start + part, step=1) is not None, part
    # The column of the first comparison is not that of the second, and a column of unknown values is free.
    assert refused_at(about, start + "species = 'dog' AND owners.name = 'Cork'", step=3) is None
    assert refused_at(about, start + "species = 'dog' AND LOWER(city) = 'ennis'", step=3) is None


def test_before_from_a_column_is_that_of_whatever_table_has_it() -> None:
    domains = Domains({("owners", "city"): ["Cork", "San Sebastian"], ("pets", "species"): ["cat", "guinea_pig"]})
    about = SchemaConstraint(render_schema(SCHEMA), "What share of the pets is a guinea-pig, or a cow?", domains)
    start = "SELECT 100.0 * COUNT(*) FILTER (WHERE species = "
    assert refused_at(about, start + "'guinea_pig') / COUNT(*) FROM pets", step=3) is None
    assert refused_at(about, start + "'cow') / COUNT(*) FROM pets", step=3) is None, "no column holds it"
    assert refused_at(about, start + "'guinea-pig')", step=1) is not None
    assert refused_at(about, start + "'Cork')", step=1) is not None
    assert refused_at(about, "SELECT COUNT(*) FILTER (WHERE name = 'guinea-pig') FROM pets", step=3) is None


@pytest.mark.parametrize(
    ("question", "query", "missing"),
    [
        ("pets of Toby's owner\npets.name = 'Toby'", "SELECT 1 FROM pets WHERE name = 'Toby'", 0),
        ("pets of Toby's owner\npets.name = 'Toby'", "SELECT 1 FROM pets WHERE name ILIKE '%toby%'", 0),
        ("Toby the dog\npets.name = 'Toby', pets.species = 'dog'", "SELECT 1 FROM pets WHERE name = 'Toby'", 1),
        ("who is in Cork\nowners.city = 'Cork', clinics.city = 'Cork'", "SELECT 1 FROM owners", 1),
        ("O'Neil's\nowners.name = 'O''Neil'", "SELECT 1 FROM owners WHERE name = 'O''Neil'", 0),
        ("more than 1,000 euro in 2025", "SELECT 1 WHERE amount > 1000 AND at >= '2025-01-01'", 0),
        ("more than 1,000 euro in 2025", "SELECT 1 WHERE amount > 1", 2),
        ("under 2.50", "SELECT 1 WHERE price < 2.5", 0),
        ("earning over 60k", "SELECT 1 WHERE salary > 60000", 0),
        ("earning over 2.5k", "SELECT 1 WHERE salary > 3000", 1),
        ("one-star reviews", "SELECT 1 WHERE rating = 1", 0),
        ("one-star reviews", "SELECT name WHERE rating = 5", 1),
        ("the top three, and which one", "SELECT 1 LIMIT 3", 0),
        ("who is at Three Elms\nclinics.name = 'Three Elms'", "SELECT 1 WHERE name = 'Three Elms'", 0),
        ("clinics without surgery\nservices.category = 'surgery'", "SELECT 1 WHERE NOT has_surgery", 0),
        ("the 3rd of 2025-03-01, 14:30, 20 %, Area51", "SELECT 1", 0),  # otherwise in a query, or part of a name
    ],
)
def test_what_the_question_names_and_a_query_does_without(question: str, query: str, missing: int) -> None:
    assert SchemaConstraint("Table clinics", question).omits(query) == missing


@pytest.mark.parametrize(
    ("question", "query", "missing"),
    [
        ("Which controlled drugs?", "SELECT name FROM medicines", 1),
        ("Which controlled drugs?", "SELECT name FROM medicines WHERE controlled", 0),
        ("What did we charge?", "SELECT SUM(charged) FROM visits", 0),
        ("What did we charge?", "SELECT COUNT(*) FROM visits", 1),
        ("medicines written on a visit", "SELECT 1 FROM visits", 1),  # a date is not meant by its verb
        ("how many medicines have visits", "SELECT COUNT(DISTINCT medicine_id) FROM visits", 0),
        ("count the visits by their id and name", "SELECT 1 FROM visits", 0),
        ("a visit\nmedicines.name = 'charged'", "SELECT 1 FROM visits WHERE name = 'charged'", 0),
    ],
)
def test_words_of_the_schema_that_a_query_does_without(question: str, query: str, missing: int) -> None:
    schema = (
        "CREATE TABLE medicines (id int PRIMARY KEY, name text, controlled boolean);\n"
        "CREATE TABLE visits (id int PRIMARY KEY, medicine_id int REFERENCES medicines(id), charged numeric, "
        "written_on date);"
    )
    assert SchemaConstraint(schema, question).omits(query) == missing
