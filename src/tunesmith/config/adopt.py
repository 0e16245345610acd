"""Another tool's config becomes a recipe, and a list of what could not be carried over and why.

Nothing is dropped in silence: every leaf of the old file is carried or left, and whatever our schema refuses is left
with the schema's own reason. The recipe says beside each value which old key it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.config.dialects import REASONS, Dialect, detect, words_of
from tunesmith.config.expand import Problem
from tunesmith.config.load import examine
from tunesmith.config.read import Node, Origin, decode, parse, read_bytes
from tunesmith.config.secrets import find_secret, is_secret_name, redact
from tunesmith.config.shape import known_keys
from tunesmith.config.show import Variable, commented_lines, nested, one_line, write_value
from tunesmith.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Carried:
    """An old setting that lives on."""

    key: str
    value: Any
    to: str
    """The setting of ours that holds it, alone or together with others."""


@dataclass(frozen=True, slots=True)
class Left:
    """An old setting that does not."""

    key: str
    value: Any
    """Without secrets."""
    reason: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a config."""

    dialect: str
    recipe: str
    """The recipe, YAML with comments. Relative data paths are as they were: relative to where the recipe is saved."""
    carried: list[Carried]
    left: list[Left]


TRAIN_FILE = Variable("${TUNESMITH_TRAIN_FILE}")
MODEL = Variable("${TUNESMITH_MODEL}")

SAME = {
    "model": "model.name",
    "revision": "model.revision",
    "device_map": "model.device_map",
    "attn_implementation": "model.attn_implementation",
    "chat_template": "model.chat_template",
    "end_token": "model.end_token",
    "lora_r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "bias": "lora.bias",
    "use_rslora": "lora.use_rslora",
    "max_length": "data.max_length",
    "max_steps": "train.max_steps",
    "num_train_epochs": "train.num_train_epochs",
    "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.lr_scheduler_type",
    "warmup_ratio": "train.warmup_ratio",
    "warmup_steps": "train.warmup_steps",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "optim": "train.optim",
    "adam_beta1": "train.extra.adam_beta1",
    "adam_beta2": "train.adam_beta2",
    "adam_epsilon": "train.extra.adam_epsilon",
    "tf32": "train.extra.tf32",
    "dataloader_num_workers": "train.dataloader_num_workers",
    "dataloader_pin_memory": "train.dataloader_pin_memory",
    "dataloader_prefetch_factor": "train.dataloader_prefetch_factor",
    "logging_steps": "train.logging_steps",
    "eval_steps": "train.eval_steps",
    "early_stopping_patience": "train.early_stopping_patience",
    "save_steps": "checkpoints.save_steps",
    "seed": "seed",
    "project": "tracking.project",
}
"""Words whose value is carried as it is."""

LORA_WORDS = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_linear",
    "target_modules",
    "modules_to_save",
    "bias",
    "use_rslora",
    "load_in_4bit",
    "load_in_8bit",
    "quantization_bit",
)
"""Words that mean nothing where all weights are trained."""

_PRECISIONS = {"float16": "fp16", "fp16": "fp16", "bfloat16": "bf16", "bf16": "bf16", "float32": "fp32", "auto": "auto"}
_FILE = re.compile(r"\.(jsonl?|csv|parquet|gz|arrow|txt)$|^[./~]")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def adopt(path: Path) -> Adopted:
    """Turn a config of another tool into a recipe.

    Known are the three layouts with sections (`model.name`, `model.model_id`, `dataset.data_path`), Axolotl,
    LLaMA-Factory and TRL, told apart by their keys.

    Raises:
        ConfigError: unreadable, a recipe of ours already, or written in no dialect we know.
    """
    tree = parse(decode(read_bytes(path), str(path)), path)
    dialect = detect(tree)
    if tree.child("task") is not None or tree.child("extends") is not None:
        raise ConfigError("this is a Tunesmith recipe already", place=str(path), remedy=f"tunesmith show {path}")
    if dialect is None:
        raise ConfigError(
            "none of its keys is one by which we know another tool's config",
            place=str(path),
            remedy="known are files with sections model/lora/training, Axolotl (base_model), LLaMA-Factory "
            "(finetuning_type) and TRL (model_name_or_path); for others start from a recipe in recipes/",
        )
    move = _Move(dialect, dict(_leaves(tree)))
    move.carry_all(path)
    move.refuse_what_the_schema_refuses(path)
    return Adopted(dialect.name, move.recipe(path), move.carried, move.left)


def _leaves(node: Node, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node.value, dict) and node.value:
        for name, child in node.value.items():
            yield from _leaves(child, f"{key}.{name}" if key else name)
    elif isinstance(node.value, list) and any(isinstance(item.value, dict) for item in node.value):
        for index, child in enumerate(node.value):
            yield from _leaves(child, f"{key}.{index}")
    else:
        yield key, node.plain()


class _Move:
    """One config on its way: `words` still to place, `new` settings with the old keys they came from."""

    def __init__(self, dialect: Dialect, old: dict[str, Any]) -> None:
        self.dialect = dialect
        self.old = old
        self.words: dict[str, str] = {}
        self.new: dict[str, Any] = {}
        self.because: dict[str, str] = {}
        self.carried: list[Carried] = []
        self.left: list[Left] = []
        for key in old:
            word = words_of(dialect, key)
            if old[key] is None:
                self.leave(key, "null: nothing to carry")
            elif word in self.words:
                self.leave(key, f"says the same as {self.words[word]}, which counts")
            else:
                self.words[word] = key

    def value(self, word: str) -> Any:
        return self.old[self.words[word]] if word in self.words else None

    def carry(self, word: str, to: str, value: Any) -> None:
        """Place one word; several may share a setting."""
        key = self.words.pop(word)
        if isinstance(self.old[key], str) and find_secret(self.old[key]):
            self.leave(key, "holds a secret: put it in an environment variable")
            return
        self.new[to] = value
        self.because[to] = f"{self.because[to]}, {key}" if to in self.because else key
        self.carried.append(Carried(key, self.old[key], to))

    def leave(self, key: str, reason: str) -> None:
        self.left.append(Left(key, _without_secrets(key, self.old[key]), reason))

    def leave_word(self, word: str, reason: str) -> None:
        if word in self.words:
            self.leave(self.words.pop(word), reason)

    def add(self, to: str, value: Any, because: str) -> None:
        """A setting that no old key says."""
        self.new[to] = value
        self.because[to] = because

    def carry_all(self, path: Path) -> None:
        self.tuning()
        self.precision()
        self.quantisation()
        self.batch()
        self.data()
        self.output(path)
        self.exports()
        for strategy, steps in (("eval_strategy", "eval_steps"), ("save_strategy", "save_steps")):
            if self.value(strategy) in ("no", "epoch", False):
                self.leave_word(steps, f"{self.words[strategy]}: {self.value(strategy)} wins over it")
        if self.value("max_steps") is not None and int_of(self.value("max_steps")) > 0:
            self.leave_word("num_train_epochs", f"max_steps: {self.value('max_steps')} wins over it")
        for word in [word for word in self.words if word in SAME]:
            self.carry(word, SAME[word], self.value(word))
        if "train.lr_scheduler_type" not in self.new and self.dialect.scheduler:
            self.add("train.lr_scheduler_type", self.dialect.scheduler, "the old tool's default")
        if "train.warmup_steps" not in self.new and "train.warmup_ratio" not in self.new and self.dialect.scheduler:
            self.add("train.warmup_ratio", 0.0, "the old tool's default")
        for word, key in list(self.words.items()):
            further = "one source of training records is read: join the files" if key.startswith("datasets.") else ""
            self.leave_word(word, REASONS.get(word) or further or "Tunesmith has no such setting")

    def tuning(self) -> None:
        kind = str(self.value("tuning")).lower()
        if kind in ("full", "false") or ("tuning" not in self.words and self.dialect.name in ("Axolotl", "TRL")):
            if "tuning" in self.words:
                self.carry("tuning", "lora", None)
            else:
                self.add("lora", None, "the old config trains all weights")
            for word in LORA_WORDS:
                self.leave_word(word, "all weights are trained, without adapters")
        elif kind in ("lora", "qlora", "true"):
            rank = 8 if self.dialect.name == "LLaMA-Factory" else 16
            if "lora_r" not in self.words:
                self.carry("tuning", "lora.r", rank)
            else:
                self.carry("tuning", "lora.r", self.value("lora_r"))
            if self.dialect.name == "LLaMA-Factory" and "lora_alpha" not in self.words:
                self.add("lora.lora_alpha", 2 * int_of(self.value("lora_r"), rank), "the old tool's default")
        else:
            self.leave_word("tuning", "only LoRA and full fine-tuning are known")
        if kind == "qlora" and "load_in_4bit" not in self.words:
            self.add("model.quantization.bits", 4, "adapter: qlora")
        dropout = self.value("lora_dropout")
        if dropout is not None:
            self.carry("lora_dropout", "lora.lora_dropout", dropout)
            if isinstance(dropout, int | float) and dropout > 0:
                self.add(
                    "train.share_prefixes", False, "dropout differs from example to example, a shared prefix cannot"
                )
        if self.value("lora_target_linear") is True and "target_modules" not in self.words:
            self.carry("lora_target_linear", "lora.target_modules", "all-linear")
        else:
            self.leave_word("lora_target_linear", "off, or the layers are listed one by one")
        for word in ("target_modules", "modules_to_save"):
            names = self.value(word)
            if isinstance(names, str) and names not in ("all", "all-linear"):
                names = [name.strip() for name in names.split(",")]
            if names is not None:
                self.carry(word, f"lora.{word}", "all-linear" if names in ("all", ["all"], "all-linear") else names)
        offload = self.value("gradient_checkpointing")
        if offload is not None:
            on = offload if isinstance(offload, bool) else bool(offload) and str(offload).lower() != "false"
            self.carry("gradient_checkpointing", "train.gradient_checkpointing", on)
        if self.value("stage") is not None:
            if self.value("stage") == "sft":
                self.carry("stage", "train.method", "sft")
            else:
                self.leave_word("stage", "only sft is supported so far; dpo and grpo are planned")

    def precision(self) -> None:
        for word, name in (("bf16", "bf16"), ("fp16", "fp16")):
            on = self.value(word)
            if on is True and "train.precision" not in self.new:
                self.carry(word, "train.precision", name)
            elif on == "auto" and "train.precision" not in self.new:
                self.carry(word, "train.precision", "auto")
            else:
                self.leave_word(word, "off, or said by another key already")
        dtype = str(self.value("dtype")).removeprefix("torch.")
        if "dtype" in self.words and dtype in _PRECISIONS:
            if "train.precision" in self.new:
                self.carry("dtype", "model.dtype", dtype if dtype.startswith(("float", "bfloat")) else "auto")
            else:
                self.carry("dtype", "train.precision", _PRECISIONS[dtype])
        else:
            self.leave_word("dtype", "not a type we know: auto, float32, bfloat16, float16")
        flash = self.value("flash_attention")
        if flash in (True, "fa2"):
            self.carry("flash_attention", "model.attn_implementation", "flash_attention_2")
        else:
            self.leave_word("flash_attention", "the default of transformers is used")

    def quantisation(self) -> None:
        bits = {"load_in_4bit": 4, "load_in_8bit": 8, "quantization_bit": self.value("quantization_bit")}
        for word, value in bits.items():
            on = self.value(word)
            if on and "model.quantization.bits" not in self.new:
                self.carry(word, "model.quantization.bits", value)
            else:
                self.leave_word(word, "off, or said by another key already")
        for word in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"):
            if "model.quantization.bits" in self.new and self.value(word) is not None:
                value = self.value(word)
                value = value.removeprefix("torch.") if isinstance(value, str) else value
                self.carry(word, f"model.quantization.{word}", value)
            else:
                self.leave_word(word, "the model is not quantised")

    def batch(self) -> None:
        """per_device_train_batch_size x gradient_accumulation_steps, which is what one optimizer step sees."""
        each, times = self.value("per_device_train_batch_size"), self.value("gradient_accumulation_steps")
        total = self.value("total_batch_size")
        if total is not None:
            self.carry("total_batch_size", "train.batch_size", total)
            self.leave_word("gradient_accumulation_steps", "the batch size is given as a whole")
        elif each is not None or times is not None:
            size = int_of(each, 8) * int_of(times, 1)  # 8 is the default of transformers
            for word in ("per_device_train_batch_size", "gradient_accumulation_steps"):
                if self.value(word) is not None:
                    self.carry(word, "train.batch_size", size)
            length = int_of(self.value("max_length"), 2048)
            self.add("train.max_tokens", max(length, int_of(each, 8) * length), "as many tokens at once as before")
        self.leave_word("per_device_train_batch_size", "the batch size is given as a whole")
        limit = self.value("save_total_limit")
        if limit is not None:
            # One checkpoint is no way back while the next is written.
            self.carry("save_total_limit", "checkpoints.keep_last", max(2, int_of(limit, 3)))
        reads, whole = self.value("max_input_tokens"), self.value("max_length")
        if isinstance(reads, int) and isinstance(whole, int) and whole > reads:
            because = f"{self.words['max_length']} - {self.words['max_input_tokens']}"
            self.carry("max_input_tokens", "generate.max_new_tokens", whole - reads)
            self.because["generate.max_new_tokens"] = because

    def data(self) -> None:
        share = self.value("validation_share")
        if isinstance(share, int | float) and not isinstance(share, bool) and share < 1:
            self.carry("validation_share", "data.validation_share", share)
        else:
            self.leave_word("validation_share", "a number of examples; data.validation_share is a share")
        for word, to in (
            ("train_file", "data.train"),
            ("validation_file", "data.validation"),
            ("test_file", "data.test.test"),
        ):
            source = self.source(self.value(word))
            if source is not None:
                self.carry(word, f"{to}.path", source)
            else:
                self.leave_word(word, "records are read from local files and the Hub: download it first")
        if "data.train.path" not in self.new:
            self.add("data.train.path", TRAIN_FILE, "the old config names no file")
        shape = _format(self.value("data_type"), self.value("message_field"))
        for word in ("data_type", "message_field"):
            if shape is not None and self.value(word) is not None:
                self.carry(word, "data.train.format", shape)
            else:
                self.leave_word(word, "the shape of a record is seen from its keys (format: auto)")
        if self.value("split") is not None:
            self.carry("split", "data.train.split", self.value("split"))
        if self.value("max_samples") is not None:
            self.carry("max_samples", "data.train.max_samples", self.value("max_samples"))
        for word, to in (("validation_split", "split"), ("validation_max_samples", "max_samples")):
            if self.value(word) is not None and "data.validation.path" in self.new:
                self.carry(word, f"data.validation.{to}", self.value(word))
            else:
                self.leave_word(word, "there is no validation file")

    def source(self, value: Any) -> str | None:
        if not isinstance(value, str) or not value or ("://" in value and not value.startswith("hf://")):
            return None
        if self.dialect.local_data or _FILE.search(value) or not _HUB_NAME.fullmatch(value):
            return value
        return f"hf://{value}"

    def output(self, path: Path) -> None:
        folder = self.value("output_dir")
        if isinstance(folder, str) and "://" in folder:
            self.leave_word(
                "output_dir",
                "runs are written to a local folder: a trainer that is given a URL makes a local folder of that name; "
                "copying runs to a bucket is planned",
            )
            self.add("output_dir", "runs", "the old folder was a URL")
        elif folder is not None:
            self.carry("output_dir", "output_dir", folder)
        name = self.value("run_name")
        if name is not None and _clean(str(name)):
            self.carry("run_name", "name", _clean(str(name)))
        else:
            self.leave_word("run_name", "a name holds letters, digits, dots, dashes and underscores")
            self.add("name", _clean(path.stem) or "adopted", "the name of the old file")
        mirrors = self.value("report_to")
        if mirrors is not None:
            names = [mirrors] if isinstance(mirrors, str) else mirrors
            names = names if isinstance(names, list) else []
            known = [name for name in names if name in ("tensorboard", "wandb", "comet_ml")]
            if known or names in (["none"], []):
                others = [name for name in names if name not in known and name != "none"]
                if others:
                    self.left.append(Left(self.words["report_to"], others, "known are tensorboard, wandb and comet_ml"))
                self.carry("report_to", "tracking.report_to", known)
            else:
                self.leave_word("report_to", "known are tensorboard, wandb and comet_ml")
        if self.value("wandb_project") is not None and "project" not in self.words:
            self.carry("wandb_project", "tracking.project", self.value("wandb_project"))
            self.new.setdefault("tracking.report_to", ["tensorboard", "wandb"])
            self.because.setdefault("tracking.report_to", "wandb_project")

    def exports(self) -> None:
        formats = {"lora": "adapter", "merged_16bit": "merged"}
        wanted = self.value("export")
        if wanted in formats:
            self.carry("export", "exports", [{"format": formats[wanted]}])
        else:
            self.leave_word("export", "not supported yet; the adapter is exported instead, and can be converted later")

    def refuse_what_the_schema_refuses(self, path: Path) -> None:
        """Leave every value the schema refuses, with its reason, until the rest is a config."""
        while True:
            _, problems = examine(_node(nested(self.settings()), path), {})
            if not problems:
                return
            before = len(self.new)
            for problem in problems:
                for key in self.blamed(problem):
                    self.withdraw(key, problem.message)
            if len(self.new) == before:
                raise problems[0].error()

    def blamed(self, problem: Problem) -> list[str]:
        """The settings that a problem is about: its key, or those that a rule about a section mentions."""
        exact = [key for key in self.new if f"{problem.key}.".startswith(f"{key}.")]
        if exact:
            return exact
        within = [key for key in self.new if not problem.key or key.startswith(f"{problem.key}.")]
        return [key for key in within if key.rpartition(".")[2] in problem.message] or within

    def withdraw(self, to: str, reason: str) -> None:
        self.new.pop(to, None)
        for carried in [c for c in self.carried if c.to == to]:
            self.carried.remove(carried)
            self.leave(carried.key, reason)

    def settings(self) -> dict[str, Any]:
        """What the recipe says: the task, a model, and the new settings in the order of the schema."""
        task = "maths" if re.search(r"math|toán", " ".join(map(str, self.old.values())), re.IGNORECASE) else "chat"
        settings = {"task": task, "model.name": MODEL, "data.train.path": TRAIN_FILE, **self.new}
        if "lora" in settings and any(key.startswith("lora.") for key in settings):
            del settings["lora"]
        order = {key: index for index, (key, _, _) in enumerate(known_keys())}

        def place(key: str) -> int:
            while key and key not in order:
                key = key.rpartition(".")[0]
            return order.get(key, len(order))

        return dict(sorted(settings.items(), key=lambda item: place(item[0])))

    def recipe(self, path: Path) -> str:
        lines = [
            f"# Adopted from {one_line(path.name)} ({self.dialect.name}); beside each value the key it came from.",
            "# Relative paths start at this file's folder.",
        ]
        if re.search(r"\bsql|postgres", " ".join(map(str, self.old.values())), re.IGNORECASE):
            lines.append(
                "# To grade SQL by executing it: task: sql with your database, see recipes/sql/mistral-7b.yaml."
            )
        lines += ["", *commented_lines(self.settings(), self.because)]
        if self.left:
            lines += ["", "# Not carried over:"]
            lines += [
                f"#   {one_line(f'{left.key}: {write_value(left.value)}')} -- {one_line(left.reason)}"
                for left in self.left
            ]
        return "\n".join(lines) + "\n"


def int_of(value: Any, default: int = 0) -> int:
    """The whole number that a value is, or `default`."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _format(kind: Any, field: Any) -> str | None:
    if isinstance(kind, str):
        for known in ("alpaca", "sharegpt"):
            if kind.startswith(known):
                return known
    if field == "conversations":
        return "sharegpt"
    return "messages" if field == "messages" or kind == "chat_template" else None


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name, flags=re.ASCII).strip("-._")[:100]


def _without_secrets(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return "***" if is_secret_name(key.rpartition(".")[2]) and value else redact(value)
    return [_without_secrets(key, item) for item in value] if isinstance(value, list) else value


def _node(value: Any, path: Path) -> Node:
    origin = Origin(f"adopted from {path.name}", str(path), path.parent)
    if isinstance(value, dict):
        return Node({key: _node(item, path) for key, item in value.items()}, origin)
    if isinstance(value, list):
        return Node([_node(item, path) for item in value], origin)
    return Node(value, origin)
