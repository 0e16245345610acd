"""`task`: what the model should be good at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tunesmith.config.schema.section import Section


class SqlBuild(Section):
    """Make a data set from the database itself: composed questions, each with SQL that was executed."""

    examples: int = Field(2000, ge=1)
    """How many examples to make per database, before splitting."""
    paraphrases: int = Field(3, ge=1, le=20)
    """At most this many phrasings of one query."""
    per_skeleton: int = Field(60, ge=1)
    """At most this many examples that share a query skeleton (the query with its values masked)."""
    unseen_skeletons: float = Field(0.1, ge=0, lt=1)
    """Share of the skeletons kept out of training, to measure what was not merely practised (`test_unseen`)."""
    test_share: float = Field(0.1, ge=0, lt=1)
    """Share of the other queries kept out of training: practised skeletons with other values (`test_built`)."""
    test_examples: int = Field(200, ge=1)
    """At most this many examples in each of the two test sets."""
    empty_results: float = Field(0.05, ge=0, le=1)
    """At most this share of the examples may have a query that returns no row."""
    glossary: dict[str, list[Annotated[str, Field(pattern=r"^[^\[\]|{}]+$")]]] = Field(default_factory=dict)
    """What else people call the rows of a table or a column, in the singular, for more ways to ask:
    `{pets: [patient, animal], vets.salary: [pay]}`."""
    noise: float = Field(0.3, ge=0, le=1)
    """Share of the questions that get a colleague's carelessness: lower case, no question mark, an opener."""
    asked: Path | None = None
    """A file of questions that people asked, in records of `question` and `sql` (and `database`, where there are
    several). They are executed and trained on beside the composed ones; none is tested on."""
    versions: int = Field(4, ge=1, le=50)
    """At most this many versions of an asked question: itself, and what it becomes with other values, numbers, months
    and years where question and query both name one, or with a colleague's carelessness."""


class SqlTask(Section):
    """Text to PostgreSQL, graded by executing the query."""

    name: Literal["sql"] = "sql"
    server: str = "embedded"
    """Where queries run: `embedded` (a private PostgreSQL started for the run), `env:NAME` (a variable that holds the
    connection string), or a connection string without a password. `TUNESMITH_POSTGRES_URL`, where set, wins."""
    databases: dict[str, Path | None] = Field(default_factory=dict)
    """Databases the examples speak of. With the embedded server: name to SQL file that creates it. On a server of
    your own: name to null, for a database that is there already."""
    schema_style: Literal["ddl", "compact"] = "ddl"
    """How the prompt shows tables: `ddl` as CREATE TABLE, `compact` one short line a table for small models."""
    schema_tokens: int = Field(1200, ge=50)
    """Budget for the schema in the prompt, in tokens; over it, tables least related to the question are left out."""
    sample_values: int = Field(0, ge=0, le=20)
    """Show up to this many distinct values of low-cardinality text columns in the prompt. 0 shows none: row data never
    leaves the database unless you ask."""
    mentioned_values: int = Field(0, ge=0, le=20)
    """Name up to this many values of the database that the question mentions, with their columns, after the question:
    `dogs from Cork` is followed by `pets.species = 'dog', owners.city = 'Cork'`. 0 looks nothing up."""
    constrain_values: bool = False
    """Under `generate.constrain`, also hold what a query compares with: a text that a column must equal is one that the
    column holds (or that the question says and no column holds), other texts and numbers come from the question. It
    keeps a small model from `clinics.name = 'Dental cleaning'`. The columns' values are read from the database."""
    try_queries: bool = False
    """Under `generate.constrain` with beams: of the beams, give the best one that the database runs without an error,
    as it would be run for grading (execution-guided decoding, Wang et al., 2018, arXiv 1807.03100)."""
    timeout_seconds: float = Field(5.0, gt=0)
    """Time one query may take on the server before it is cancelled."""
    max_rows: int = Field(10_000, ge=1)
    """A result with more rows is cut off and judged as an error."""
    max_bytes: int = Field(8_000_000, ge=1024)
    """The same for the size of a result, in bytes of text."""
    instances: int = Field(4, ge=0, le=6)
    """An answer that gives the right rows is asked again on up to this many small instances of the database with rows
    of our own making, which tell apart what the shipped rows do not. 0 judges on the shipped rows alone."""
    clock: str = Field("start", pattern=r"^(start|\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?)$")
    """What `CURRENT_DATE` and `now()` mean in right queries and answers: `start`, the moment the server was opened, or
    a date (and time, UTC), such as the day a dump was made."""
    build: SqlBuild | None = None
    """Build the data set from `databases` instead of reading one from `data`."""


class MathsBuild(Section):
    """Make word problems with worked solutions: English and Vietnamese, numbers as each language writes them."""

    examples: int = Field(4000, ge=1)
    """How many training examples to make."""
    vietnamese: float = Field(0.5, ge=0, le=1)
    """Share of the problems that are in Vietnamese."""
    largest: int = Field(60, ge=10)
    """Largest number that is drawn; amounts of money and results are larger."""
    unseen_kinds: float = Field(0.15, ge=0, lt=1)
    """Share of the kinds of problem kept out of training, to measure what was not merely practised (`test_unseen`)."""
    test_examples: int = Field(100, ge=1)
    """Problems in each of the two test sets; no problem of `test_built` is in training, its kind is."""


class MathsTask(Section):
    """Word problems with a final answer."""

    name: Literal["maths"] = "maths"
    system: str = "Solve the problem step by step. Finish with the answer on a line of its own: #### answer"
    """System message of every prompt."""
    units: Literal["optional", "required", "ignored"] = "optional"
    """What a unit counts for. `optional`: a missing one is forgiven, a wrong one is not, and 2 m is 200 cm.
    `required`: where the right answer has a unit, so must the answer. `ignored`: only the number counts."""
    answer_mark: Literal["optional", "required"] = "optional"
    """Whether an answer must be marked (`####`, `\\boxed`, `Đáp số:`) or may be read from the last line."""
    steps: Literal["reported", "required"] = "reported"
    """`required`: an answer reached by a wrong piece of arithmetic is wrong. Their share is reported either way."""
    build: MathsBuild | None = None
    """Build the data set instead of reading one from `data`."""


class ChatBuild(Section):
    """Make support dialogues with tool calls, English and Vietnamese, for a made-up shop."""

    examples: int = Field(4000, ge=1)
    """How many training dialogues to make."""
    vietnamese: float = Field(0.5, ge=0, le=1)
    """Share of the dialogues that are in Vietnamese."""
    unseen_kinds: float = Field(0.1, ge=0, lt=1)
    """Share of the kinds of request kept out of training, to measure what was not merely practised (`test_unseen`)."""
    test_examples: int = Field(100, ge=1)
    """Dialogues in each of the two test sets."""


class ChatJudge(Section):
    """A judge model for relevance, completeness and clarity, where nothing else says what is right."""

    endpoint: str
    """Any OpenAI-compatible address, `https://host/v1#model`; a local model is one that serves on 127.0.0.1."""
    key: str | None = Field(None, pattern=r"^env:\w+$")
    """Variable that holds the key, `env:NAME`; never the key itself."""
    max_calls: int | None = Field(2000, ge=1)
    """Most questions to the judge in one run; what is cached is not counted. Afterwards its parts are absent."""
    max_cost: float | None = Field(None, gt=0)
    """Most that judging may cost, by the prices below."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million tokens that the judge reads."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million tokens that it writes."""
    cache: Path | None = Path("judge-cache.jsonl")
    """File with every reply, so that nothing is paid twice; a new rubric or model asks anew."""
    labelled: Path | None = None
    """Examples labelled by people (JSON Lines); `tunesmith judge RECIPE` says how far the judge agrees with them."""
    sees_reference: bool = True
    """Whether the judge is shown the record's own answer, to hold completeness against."""


class ChatTask(Section):
    """Conversations; what is trained is every assistant turn."""

    name: Literal["chat"] = "chat"
    train_turns: Literal["all", "last"] = "all"
    """Which assistant turns the loss sees."""
    judge: ChatJudge | None = None
    """A judge model; without one, its parts of a score are absent."""
    build: ChatBuild | None = None
    """Build the data set instead of reading one from `data`."""


class CustomTask(Section):
    """A task of your own: a class in a module that can be imported."""

    name: Literal["custom"] = "custom"
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:Class`, called with `options` as keyword arguments; `code_dir` is looked in, too."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the class."""


def _task_by_word(value: Any) -> Any:
    """`task: sql` means `{name: sql}`; `task: my_module:MyTask` means the custom task."""
    if isinstance(value, str):
        return {"name": "custom", "target": value} if ":" in value else {"name": value}
    return value


Task = Annotated[
    Annotated[SqlTask | MathsTask | ChatTask | CustomTask, Field(discriminator="name")], BeforeValidator(_task_by_word)
]
