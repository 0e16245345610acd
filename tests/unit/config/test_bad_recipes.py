"""Every way we know to get a recipe wrong: the place, the reason and the remedy are named, and nothing else happens."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.load import SettingsError, load_config
from tunesmith.config.show import show_lines
from tunesmith.errors import ConfigError

GOOD = """\
task: chat
model: {name: demo}
data:
  train: data.jsonl
"""


@dataclass(frozen=True)
class Bad:
    case: str
    content: str | bytes
    says: tuple[str, ...]
    """Regular expressions, all found in the message."""
    hides: tuple[str, ...] = ()
    """What the message must not repeat."""
    environ: dict[str, str] = field(default_factory=dict)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

CASES = [
    Bad("C1 empty file", "", (r"recipe\.yaml:1: .*empty", "adopt")),
    Bad("C2 only comments", "# nothing\n\n# here\n", ("empty",)),
    Bad("C2 only a document mark", "---\n", ("empty",)),
    Bad("C3 a list", "- task: chat\n- model: demo\n", (r"recipe\.yaml:1", "mapping", "a list")),
    Bad("C3 a word", "hello\n", ("mapping", "'hello'")),
    Bad("C4 tabs", GOOD + "lora:\n\tr: 8\n", (r"recipe\.yaml:6", "tab", "spaces")),
    Bad("C4 broken YAML", GOOD + "lora: {r: 8\n", (r"recipe\.yaml:\d", "not valid YAML", "bracket")),
    Bad(
        "C5 duplicate key",
        GOOD + "train:\n  learning_rate: 1e-4\n  batch_size: 4\n  learning_rate: 2e-4\n",
        (r"recipe\.yaml:8", "'learning_rate' is written twice", "line 6"),
    ),
    Bad(
        "C7 decimal comma",
        GOOD + "train:\n  learning_rate: 0,0002\n",
        (r"recipe\.yaml:6", "train.learning_rate", "a number", "'0,0002'", r"write a decimal point: 0\.0002"),
    ),
    Bad(
        "C8 a truth value of another tool",
        GOOD + 'train:\n  bf16: "no"\n',
        (r"recipe\.yaml:6", "unknown key 'bf16' in `train`", "train.precision"),
    ),
    Bad(
        "C8 a truth value that is none",
        GOOD + "train:\n  gradient_checkpointing: maybe\n",
        ("train.gradient_checkpointing", "true or false", "'maybe'"),
    ),
    Bad("C8 true for a number", GOOD + "train:\n  batch_size: true\n", (r":6", "train.batch_size", "number", "true")),
    Bad(
        "C10 unknown key",
        GOOD + "train:\n  learnng_rate: 2e-4\n",
        (r"recipe\.yaml:6", "unknown key 'learnng_rate' in `train`", "did you mean `learning_rate`"),
    ),
    Bad(
        "C10 a key of another section",
        GOOD + "learning_rate: 2e-4\n",
        (r"recipe\.yaml:5", "'learning_rate' at the top level", "write `train.learning_rate`"),
    ),
    Bad(
        "C10 a misspelt key in the wrong section",
        GOOD + "lora:\n  learnng_rate: 2e-4\n",
        (r"recipe\.yaml:6", "in `lora`", "`train.learning_rate`"),
    ),
    Bad("C10 a dotted key", GOOD + "train.max_steps: 3\n", ("train.max_steps", "nested")),
    Bad("C11 nested typo", GOOD + "lora: {alpha: 32}\n", (r"recipe\.yaml:5", "'alpha' in `lora`", "`lora_alpha`")),
    Bad(
        "C11 a setting of another task",
        GOOD + "task_: 1\n",
        ("task_", "did you mean `task`"),
    ),
    Bad(
        "C11 a setting of another alternative",
        "task: {name: maths, schema_tokens: 500}\nmodel: {name: demo}\ndata: {train: a.jsonl}\n",
        (r"'schema_tokens' in `task` \(name: maths\)", "task.name: sql"),
    ),
    Bad("C12 negative rank", GOOD + "lora: {r: -4}\n", (r"recipe\.yaml:5", "lora.r", "at least 1", "not -4")),
    Bad("C13 nothing per step", GOOD + "train: {batch_size: 0}\n", ("train.batch_size", "at least 1", "not 0")),
    Bad("C13 half an example", GOOD + "train: {batch_size: 2.5}\n", ("whole number", "2.5", "fraction")),
    Bad("C14 endless", GOOD + "train: {num_train_epochs: .inf}\n", ("num_train_epochs", "finite number", "inf")),
    Bad("C14 endless in words", GOOD + "lora: {lora_alpha: inf}\n", ("lora.lora_alpha", "finite", "'inf'")),
    Bad("C14 not a number", GOOD + "train: {weight_decay: .nan}\n", ("train.weight_decay", "nan")),
    Bad("C15 warm-up of 300 %", GOOD + "train: {warmup_ratio: 3}\n", ("train.warmup_ratio", "at most 1", "not 3")),
    Bad(
        "C17 an object",
        GOOD + "name: !!python/object/apply:os.system [id]\n",
        (r"recipe\.yaml:5", "tag", "remove"),
    ),
    Bad("C18 alias bomb", BOMB, ("more than 20,000 values", "aliases")),
    Bad("C18 alias of itself", "a: &a [*a]\n", (r"recipe\.yaml:1", "inside itself")),
    Bad("C18 alias of nothing", "a: *b\n", ("before it is defined",)),
    Bad("C18 merge key", GOOD + "base: &b {r: 8}\nlora:\n  <<: *b\n", ("merge keys", "extends")),
    Bad("C19 deep nesting", "a: " + "[" * 10_000, ("32 levels",)),
    Bad("C19 deep mappings", "".join(f"{' ' * i}a:\n" for i in range(400)), ("32 levels",)),
    Bad("C20 too large", GOOD + "#" * 1_000_001, ("bytes", "1,000,000", "data.train")),
    Bad("C21 NUL", GOOD.encode() + b"name: a\0b\n", (r"recipe\.yaml:5", "NUL")),
    Bad("C21 Latin-1", GOOD.encode() + "name: Zo\u00eb\n".encode("latin-1"), (r":5", "0xeb", "UTF-8", "iconv")),
    Bad("C21 escape codes", GOOD + "name: \x1b[31mred\n", (r":5", "control character U\\+001B")),
    Bad(
        "C22 a bucket as folder",
        GOOD + "output_dir: gs://b/x\n",
        (r"recipe\.yaml:5", "output_dir", "local folder named `gs:`", "set output_dir to a local folder", "mirror"),
    ),
    Bad("C22 a URL as file", GOOD + "  cache_dir: s3://b/c\n", ("data.cache_dir", "local path")),
    Bad(
        "C23 placeholder left",
        GOOD.replace("data.jsonl", "gs://YOUR-BUCKET-NAME/data.jsonl"),
        (r"recipe\.yaml:4", "YOUR-BUCKET-NAME", "export TUNESMITH_BUCKET="),
    ),
    Bad("C24 unset variable", GOOD + "name: ${RUN_NAME}\n", (r":5", "RUN_NAME is not set", "export RUN_NAME=")),
    Bad("C24 not a variable", GOOD + "name: ${a b}\n", (r":5", "does not name a variable")),
    *(
        Bad(
            f"C25 {kind}",
            GOOD + f"tracking:\n  project: {secret}\n",
            (r"recipe\.yaml:6", f"tracking.project.*holds {kind}", "env:|export HF_TOKEN"),
            hides=(secret, secret[8:]),
        )
        for kind, secret in (
            ("a Hugging Face token", "hf_abcdefghijklmnopqrstuvwxyzABCDEF"),
            ("an AWS access key", "AKIAIOSFODNN7EXAMPLE"),
            ("an API key", "sk-proj-abcdefghijklmnop"),
            ("a GitHub token", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        )
    ),
    Bad(
        "C25 a password in a URL",
        "task: {name: sql, server: 'postgresql://ada:lovelace@db/shop'}\nmodel: {name: demo}\ndata: {train: a.jsonl}\n",
        (r"recipe\.yaml:1", "task.server", "a password in a URL", "env:TUNESMITH_POSTGRES_URL"),
        hides=("lovelace",),
    ),
    Bad(
        "C25 a secret by way of a variable",
        GOOD + "train: {extra: {hub_token: '${SECRET}'}}\n",
        ("train.extra.hub_token", "secret"),
        hides=("correct-horse",),
        environ={"SECRET": "correct-horse"},
    ),
    Bad(
        "C25 a secret under an unknown key",
        GOOD + "hf_token: hf_abcdefghijklmnopqrstuvwxyzABCDEF\n",
        ("hf_token", "a Hugging Face token"),
        hides=("hf_abcdef",),
    ),
    Bad(
        "C25 a secret as a broken value",
        GOOD + "train: {max_steps: 'postgresql://ada:lovelace@db'}\n",
        ("train.max_steps",),
        hides=("lovelace",),
    ),
    Bad("C27 a name that climbs", GOOD + "name: ../../etc\n", ("`name`", "letters", "output_dir")),
    Bad("C27 an absolute name", GOOD + "name: /etc/cron.d\n", ("`name`", "letters", "output_dir")),
    Bad(
        "C30 newer schema",
        GOOD + "schema_version: 2\nnew_key: 1\n",
        (r":5", "schema_version 2", "up to 1", "pip install"),
    ),
    Bad("no task", "model: {name: demo}\n", ("`task` is required", "sql, maths, chat, custom")),
    Bad("no model", "task: chat\ndata: {train: a.jsonl}\n", ("`model` is required", "name")),
    Bad("no model name", "task: chat\nmodel: {dtype: auto}\ndata: {train: a}\n", (r":2", "`model.name` is required")),
    Bad("no data", "task: chat\nmodel: {name: demo}\n", ("nothing to train on", "data.train")),
    Bad("an unknown task", GOOD.replace("chat", "poetry"), (r":1", "`task.name` must be one of: sql", "'poetry'")),
    Bad(
        "a task without a name", GOOD.replace("chat", "{server: embedded}"), (r"`task\.name` is required", "sql, maths")
    ),
    Bad("an unknown export", GOOD + "exports: [{format: gguf}]\n", (r"exports\.0\.format", "adapter", "'gguf'")),
    Bad("a value where a section belongs", GOOD + "train: fast\n", ("`train` must be a mapping", "'fast'")),
    Bad("a wrong word", GOOD + "train: {precision: bf61}\n", ("one of: auto, fp32, bf16, fp16", "did you mean `bf16`")),
    Bad(
        "a list of the wrong things",
        GOOD + "lora: {target_modules: {a: 1}}\n",
        ("lora.target_modules", "a list or all-l"),
    ),
    Bad("patience without validation", GOOD + "train: {early_stopping_patience: 2}\n", (r":5", "set train.eval_steps")),
    Bad("shared dropout", GOOD + "lora: {lora_dropout: 0.1}\n", ("lora_dropout", "train.share_prefixes: false")),
    Bad("two documents", GOOD + "---\n" + GOOD, (r":5", "second document")),
    Bad("a structured key", "? [a, b]\n: 1\n", ("key must be a plain word",)),
    Bad("extends itself", "extends: recipe.yaml\n" + GOOD, (r":1", "circle", "recipe.yaml -> recipe.yaml")),
    Bad("extends nothing", "extends: absent.yaml\n" + GOOD, (r"recipe\.yaml:1", "absent.yaml", "no such file")),
    Bad("extends a number", "extends: 3\n" + GOOD, ("`extends` must be the path",)),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.case)
def test_a_bad_recipe_is_refused_with_place_reason_and_remedy(bad: Bad, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(bad.content if isinstance(bad.content, bytes) else bad.content.encode())
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, environ=bad.environ)
    assert time.process_time() - started < 2
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.place
    assert "remedy: " in text
    assert "pydantic" not in text
    for fragment in bad.says:
        assert re.search(fragment, text), f"{fragment!r} not in\n{text}"
    for secret in bad.hides:
        assert secret not in text


@pytest.mark.parametrize(
    "bad", [("C6", "learning_rate: 2e-4"), ("C6", "learning_rate: '2e-4'"), ("C6", "learning_rate: 0.0002")]
)
def test_a_number_in_scientific_notation_is_a_number(bad: tuple[str, str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + f"train: {{{bad[1]}}}\n")
    assert load_config(recipe, environ={}).config.train.learning_rate == 2e-4


@pytest.mark.parametrize(
    "written", ["NO", "on", "Yes", "off", "2024", "1e3", "0123", "0x1F", "true", "12345678", "'2024'"]
)
def test_a_setting_that_wants_text_gets_it_as_written(written: str, tmp_path: Path) -> None:
    """C9: a country code, a year and a commit made of digits are text."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD.replace("{name: demo}", f"{{name: demo, revision: {written}}}") + f"name: {written}\n")
    config = load_config(recipe, environ={}).config
    assert config.name == config.model.revision == written.strip("'")


def test_of_steps_and_epochs_the_steps_win_and_it_is_said(tmp_path: Path) -> None:
    """C16."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + "train:\n  max_steps: 20\n  num_train_epochs: 3\n")
    (note,) = load_config(recipe, environ={}).notes
    assert note.place == f"{recipe}:7"
    assert "`train.max_steps: 20` wins over `train.num_train_epochs: 3`" in note.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_encodings_that_editors_write_are_read(encoding: str, tmp_path: Path) -> None:
    """C21: a byte order mark says what the file is."""
    text = GOOD + "tracking: {project: Zoë}\r\n"
    marks = {"utf-16-le-bom": (b"\xff\xfe", "utf-16-le"), "utf-16-be-bom": (b"\xfe\xff", "utf-16-be")}
    mark, codec = marks.get(encoding, (b"", encoding))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(mark + text.encode(codec))
    assert load_config(recipe, environ={}).config.tracking.project == "Zoë"


@pytest.mark.parametrize("output_dir", [".", "data", "data/..", "${PWD_}"])
def test_runs_are_never_written_over_their_data(
    output_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C26."""
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD.replace("data.jsonl", "data/train-*.jsonl") + f"output_dir: {output_dir}\n")
    with pytest.raises(ConfigError, match=r"(?s)recipe\.yaml:5: `output_dir`.*contains the data.*remedy") as caught:
        load_config(recipe, environ={"PWD_": str(tmp_path)})
    assert caught.value.exit_code == 2


def test_data_that_an_earlier_run_built_may_lie_among_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD.replace("data.jsonl", "runs/first/data/train.jsonl"))
    assert load_config(recipe, environ={}).config.data.train is not None


def test_a_path_may_climb_out_of_the_recipes_folder(tmp_path: Path) -> None:
    """C27: data beside the project is usual; only `name`, which becomes a folder of ours, may not climb."""
    recipe = tmp_path / "recipes" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(GOOD.replace("data.jsonl", "../../data/train.jsonl"))
    train = load_config(recipe, environ={}).config.data.train
    assert train is not None
    assert train.path == str(tmp_path.parent / "data" / "train.jsonl")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: os.mkfifo(path), "a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path), "circle"),
        (
            lambda path: path.with_name("recipes.yaml").write_text(""),
            r"no such file(.|\n)*did you mean .*recipes\.yaml",
        ),
        (lambda path: None, "no such file"),
    ],
    ids=["folder", "pipe", "device", "symlink loop", "misspelt", "absent"],
)
def test_what_is_not_a_file_is_named(make, says: str, tmp_path: Path) -> None:
    """C28."""
    path = tmp_path / "recipe.yaml"
    make(path)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path, environ={})
    assert caught.value.exit_code == 2
    assert caught.value.place == str(path)


@pytest.mark.parametrize("path", ["a\0b.yaml", "a" * 300 + ".yaml", __file__ + "/recipe.yaml"])
def test_an_impossible_path_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_config(Path(path), environ={})


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD)

    def refuse(*_: object) -> int:  # root, who runs the tests in containers, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tunesmith.config.read.os.open", refuse)
    with pytest.raises(ConfigError, match="(?s)no permission.*chmod"):
        load_config(recipe, environ={})


@pytest.mark.parametrize(("mode", "said"), [(0o644, True), (0o600, False)])
def test_a_secret_that_others_could_read_must_be_replaced(mode: int, said: bool, tmp_path: Path) -> None:
    """C29."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + "name: hf_abcdefghijklmnop\n")
    recipe.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, environ={})
    assert ("replace that secret" in caught.value.remedy) == said


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + "name: ${UNSET}\nlora: {r: 0, alpha: 1}\ntrain:\n  batch_size: many\n  precision: x\n")
    with pytest.raises(SettingsError) as caught:
        load_config(recipe, environ={})
    problems = {problem.key: problem for problem in caught.value.problems}
    assert set(problems) == {"name", "lora.r", "lora.alpha", "train.batch_size", "train.precision"}
    assert problems["train.batch_size"].place == f"{recipe}:8"
    assert all(problem.remedy and problem.message in str(caught.value) for problem in problems.values())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.max_stepz=3", ("override train.max_stepz=3", "did you mean `max_steps`")),
        ("train.max_steps=few", ("override train.max_steps=few", "whole number")),
        ("train.max_steps", ("section.key=value",)),
        ("=3", ("section.key=value",)),
        ("train..x=3", ("section.key=value",)),
        ("exports=[", ("not YAML",)),
        ("exports.4.format=merged", ("no item '4'", "exports=[...]")),
        ("tracking.project=hf_abcdefghijklmnop", ("override tracking.project=***", "Hugging Face")),
    ],
)
def test_a_bad_override_is_named(override: str, says: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + "exports: [{format: adapter}]\n")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, [override], environ={})
    for fragment in says:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["TUNESMITH__TRAIN__MAX_STEPZ", "TUNESMITH__", "TUNESMITH__TRAIN__"])
def test_a_bad_environment_variable_is_named(name: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD)
    with pytest.raises(ConfigError, match=f"environment {name}"):
        load_config(recipe, environ={name: "3"})


WHOLE = """\
extends: base.yaml
name: some-run
task: {name: sql, databases: {shop: shop.sql, mine: null}, build: {examples: 5}}
model: {name: demo, quantization: {bits: 4}, chat_template: x.jinja}
data:
  train: {path: a.jsonl, max_samples: 3}
  test: {one: b.jsonl}
lora: {r: 4, target_modules: [a, b]}
train: {max_steps: 3, learning_rate: 2e-4, extra: {tf32: true}}
exports: [{format: merged}]
"""
PIECES = [
    "&a ",
    "*a",
    "!!x ",
    "<<: ",
    "null",
    "[",
    "]",
    "{",
    "}",
    ":",
    "\t",
    "\n",
    "- ",
    "'",
    '"',
    "\0",
    "${",
    "}",
    "#",
    "~",
]
KEYS = [
    "task",
    "model",
    "data",
    "lora",
    "train",
    "exports",
    "name",
    "output_dir",
    "schema_version",
    "extends",
    "seed",
    "x",
]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "sql", "chat", "a:b", "${X}", "gs://b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "path", "train", "test", "r", "format", "method", "build", "bits"]), inner
        )
    ),
    max_leaves=10,
)


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 8), st.sampled_from(PIECES)), min_size=1, max_size=4
    )
)
@settings(max_examples=60, deadline=None)
def test_a_damaged_recipe_is_read_or_refused(
    cuts: list[tuple[int, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = WHOLE
    for place, removed, added in cuts:
        text = text[:place] + added + text[place + removed :]
    read_or_refuse(text, tmp_path_factory)


@given(recipe=st.dictionaries(st.sampled_from(KEYS), ANYTHING), over=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_recipe_with_anything_anywhere_is_read_or_refused(
    recipe: dict[str, object], over: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_or_refuse(yaml.safe_dump(recipe | ({"extends": "base.yaml"} if over else {})), tmp_path_factory)


def read_or_refuse(text: str, folders: pytest.TempPathFactory) -> None:
    folder = folders.mktemp("recipes")
    (folder / "base.yaml").write_text(GOOD)
    (folder / "recipe.yaml").write_text(text)
    try:
        loaded = load_config(folder / "recipe.yaml", environ={})
    except ConfigError as error:
        assert error.place and (error.remedy or isinstance(error, SettingsError))
        assert "pydantic" not in str(error)
    else:
        assert len(list(show_lines(loaded))) == len(loaded.origins)
