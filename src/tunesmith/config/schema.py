"""Every setting, typed and explained where it is declared; the text under a field is its help text.

Names that reach `transformers.TrainingArguments` keep their name there. Alternatives are unions told apart by a word
(`task.name`, `train.method`, `exports[].format`), so that a setting of one cannot be written under another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1


class Section(BaseModel):
    """Frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


# --- the task -------------------------------------------------------------------------------------------------------


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
    noise: float = Field(0.3, ge=0, le=1)
    """Share of the questions that get a colleague's carelessness: lower case, no question mark, an opener."""


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
    timeout_seconds: float = Field(5.0, gt=0)
    """Time one query may take on the server before it is cancelled."""
    max_rows: int = Field(10_000, ge=1)
    """A result with more rows is cut off and judged as an error."""
    max_bytes: int = Field(8_000_000, ge=1024)
    """The same for the size of a result, in bytes of text."""
    build: SqlBuild | None = None
    """Build the data set from `databases` instead of reading one from `data`."""


class MathsTask(Section):
    """Word problems with a final answer."""

    name: Literal["maths"] = "maths"
    system: str = "Solve the problem step by step. Finish with the answer on a line of its own: #### answer"
    """System message of every prompt."""


class ChatTask(Section):
    """Conversations; what is trained is every assistant turn."""

    name: Literal["chat"] = "chat"
    train_turns: Literal["all", "last"] = "all"
    """Which assistant turns the loss sees."""


class CustomTask(Section):
    """A task of your own: a class in a module that can be imported."""

    name: Literal["custom"] = "custom"
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:Class`, called with `options` as keyword arguments; the recipe's folder is importable."""
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


# --- data -----------------------------------------------------------------------------------------------------------


class Source(Section):
    """Where records come from."""

    path: str
    """A file, a folder, a glob, `hf://owner/name` for a Hub data set, or `module:function` that yields dicts."""
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "task", "custom"] = "auto"
    """The shape of a record. `task` hands the fields to the task as they are; `auto` looks at the first records and
    says what it found."""
    formatter: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:function` taking a record's fields and returning messages (or a list of them); with `format: custom`."""
    split: str = "train"
    """Split of a Hub data set."""
    max_samples: int | None = Field(None, ge=1)
    """Read only this many records."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Only records whose fields have these values: `{grade: 5}`, `{half: sealed}`."""

    @model_validator(mode="after")
    def _formatter_belongs_to_custom(self) -> Self:
        if (self.formatter is None) == (self.format == "custom"):
            raise ValueError("format: custom and formatter: module:function go together; give both or neither")
        return self


def _source_by_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


SourceField = Annotated[Source, BeforeValidator(_source_by_path)]


class Data(Section):
    """From records to rows of tokens."""

    train: SourceField | None = None
    """Training records. May be left out when the task builds its own data."""
    validation: SourceField | None = None
    """Validation records; without it, `validation_share` of the training groups is set aside."""
    test: dict[str, SourceField] = Field(default_factory=dict)
    """Test sets by name, graded for base and tuned model, never trained on."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Share of the training examples set aside for validation, by hash of the group, so never by order."""
    max_length: int = Field(2048, ge=8)
    """Most tokens an example may have."""
    too_long: Literal["error", "drop", "shorten_prompt"] = "error"
    """What to do with a longer example: stop; leave it out and say so; or cut the start of its longest user turn.
    An answer is never cut."""
    max_record_bytes: int = Field(1_000_000, ge=1000)
    """A larger record is reported by size before anything reads it: it is usually a data dump in a prompt."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """The run stops when more than this share of the records would be dropped."""
    cache_dir: Path | None = None
    """Where prepared rows are kept; without it, `.tunesmith/cache` beside the recipe's output directory."""


# --- model ----------------------------------------------------------------------------------------------------------


class Quantization(Section):
    """Load the base model in fewer bits; adapters stay in full precision."""

    bits: Literal[4, 8] = 4
    """4 (NF4 or FP4) or 8 (LLM.int8)."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Data type of the 4-bit weights."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants too: about 0.4 bits per weight less."""
    bnb_4bit_compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type that matrix products are computed in; `auto` follows `train.precision`."""


class Model(Section):
    """The base model and its tokenizer."""

    name: str
    """A Hub name, a folder, or `demo` for the small base model that ships with tunesmith."""
    revision: str | None = None
    """Commit or tag on the Hub; pin it, so that tomorrow's run is today's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the unquantised weights; `auto` takes what the checkpoint says, and float32 on a CPU without bf16."""
    quantization: Quantization | None = None
    """Leave out for full-precision weights."""
    attn_implementation: str | None = None
    """Attention of transformers outside training rows: `sdpa`, `eager`, `flash_attention_2`; null is its default."""
    device_map: str | None = None
    """Passed to `from_pretrained`; None puts the model on the first GPU, or on the CPU."""
    chat_template: Path | None = None
    """A Jinja file to use instead of the tokenizer's own chat template."""
    end_token: str | None = None
    """The token that ends an answer, where the tokenizer's `eos_token` is not what the template writes."""


class Lora(Section):
    """Low-rank adapters (Hu et al., 2021, arXiv 2106.09685)."""

    r: int = Field(16, ge=1)
    """Rank. More learns more and costs more; 8 to 64 is usual."""
    lora_alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input. Must be 0 where examples share a prefix in a row (`train.share_prefixes`)."""
    target_modules: list[str] | Literal["all-linear"] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Layers that get an adapter, by the end of their name, or `all-linear`."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Layers trained in full beside the adapters, such as `embed_tokens` for new words."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead: steadier at high ranks (Kalajdzievski, 2023, arXiv 2312.03732)."""


# --- training -------------------------------------------------------------------------------------------------------


class Sft(Section):
    """Supervised fine-tuning on the assistant's turns."""

    method: Literal["sft"] = "sft"
    num_train_epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    """Passes over the data; `max_steps` wins when set."""
    max_steps: int = Field(-1, ge=-1)
    """Optimizer steps; -1 counts epochs instead."""
    batch_size: int = Field(16, ge=1)
    """Examples per optimizer step, over all devices. This decides learning. What other tools call
    per_device_train_batch_size times gradient_accumulation_steps times devices."""
    max_tokens: int = Field(8192, ge=8)
    """Tokens per row, the unit computed at once. This decides memory, and never changes the loss."""
    share_prefixes: bool = True
    """Compute a prefix that several examples of a step share (a schema, a system prompt) once. Exact: the gradient is
    that of computing each example alone."""
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    """Peak learning rate."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over the run."""
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    """Share of the steps over which the learning rate rises from 0; `warmup_steps` wins when set."""
    warmup_steps: int = Field(0, ge=0)
    """The same in steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    optim: str = "adamw_torch"
    """An optimizer name of transformers: `adamw_torch`, `paged_adamw_32bit`, `adamw_8bit`, ..."""
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    """Second-moment decay of Adam."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision; `auto` is bf16 where the GPU has it, else fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that collate rows ahead of the step."""
    dataloader_pin_memory: bool = True
    """Copy rows to page-locked memory; only on a GPU."""
    dataloader_prefetch_factor: int | None = Field(None, ge=1)
    """Batches each worker prepares ahead."""
    logging_steps: int = Field(10, ge=1)
    """Optimizer steps between log lines."""
    eval_steps: int = Field(0, ge=0)
    """Optimizer steps between validations; 0 validates once, at the end."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after this many validations without a better validation loss, and keep the best."""
    loss: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:function(logits, labels) -> sum over the label tokens`, instead of cross entropy."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further `transformers.TrainingArguments`, by name; an unknown one is refused."""

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> Self:
        if self.early_stopping_patience is not None and self.eval_steps == 0:
            raise ValueError(
                "early_stopping_patience counts validations, and eval_steps: 0 makes only one, at the end; "
                "set train.eval_steps"
            )
        return self


class Checkpoints(Section):
    """Points a run can be resumed from."""

    save_steps: int = Field(0, ge=0)
    """Optimizer steps between checkpoints; 0 saves one at the end."""
    keep_last: int = Field(3, ge=2)
    """Complete checkpoints kept; at least 2, because while the newest is written the one before is the way back."""


# --- after training -------------------------------------------------------------------------------------------------


class Generate(Section):
    """How completions are written, in evaluation and serving."""

    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy: the same answer every time."""
    batch_size: int = Field(32, ge=1)
    """Prompts decoded together."""
    constrain: Literal["none", "schema"] = "none"
    """`schema`: the task's constraint holds every answer to names that exist (for SQL: tables and columns of the
    prompt's schema). Reported beside the score, because it changes what is measured."""


class Evaluate(Section):
    """What is graded, and how surely."""

    base: bool = True
    """Grade the untuned base model on the same prompts, for the comparison."""
    max_samples: int | None = Field(None, ge=1)
    """Grade a fixed random sample of at most this many examples per test set."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals (Wilson for shares, exact McNemar for the paired comparison)."""


class Tracking(Section):
    """Where the course of a run is shown, beside run.json and events.jsonl, which are always written."""

    report_to: list[Literal["tensorboard", "wandb", "comet_ml"]] = ["tensorboard"]
    """Mirrors."""
    project: str | None = None
    """Project name at the mirror."""


class AdapterExport(Section):
    """The LoRA adapter with tokenizer and card."""

    format: Literal["adapter"] = "adapter"


class MergedExport(Section):
    """Base and adapter as one model, in 16 bits."""

    format: Literal["merged"] = "merged"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the written weights."""
    max_shard_size: str = "5GB"
    """Largest file."""


Export = Annotated[AdapterExport | MergedExport, Field(discriminator="format")]


class RunConfig(Section):
    """One run."""

    schema_version: Literal[1] = 1
    """Version of this schema the recipe was written for."""
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the run: its folder under `output_dir`, and its name at trackers."""
    output_dir: Path = Path("runs")
    """Folder that holds runs. Relative paths belong to the recipe's folder, this one to the working directory."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random: data order, adapter initialisation, sampling, splits of built data."""
    task: Task
    data: Data = Data()
    model: Model
    lora: Lora | None = Lora()
    """null trains all weights."""
    train: Sft = Sft()
    generate: Generate = Generate()
    evaluate: Evaluate = Evaluate()
    checkpoints: Checkpoints = Checkpoints()
    tracking: Tracking = Tracking()
    exports: list[Export] = [AdapterExport()]
    """What to write when training is done; the adapter, or without one the model."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters_the_model_is_exported(cls, value: Any) -> Any:
        if isinstance(value, dict) and "exports" not in value and value.get("lora", ...) is None:
            return {**value, "exports": [{"format": "merged"}]}
        return value

    @model_validator(mode="after")
    def _data_comes_from_somewhere(self) -> Self:
        builds = isinstance(self.task, SqlTask) and self.task.build is not None
        if self.data.train is None and not builds:
            raise ValueError(
                "there is nothing to train on: set data.train, or task.build for a task that builds its data"
            )
        return self

    @model_validator(mode="after")
    def _dropout_is_not_shared(self) -> Self:
        if self.lora and self.lora.lora_dropout > 0 and self.train.share_prefixes:
            raise ValueError(
                "lora.lora_dropout above 0 would drop the same activations of a shared prefix for all its examples; "
                "set lora.lora_dropout: 0 or train.share_prefixes: false"
            )
        return self

    @model_validator(mode="after")
    def _there_is_an_adapter_to_export(self) -> Self:
        if self.lora is None and any(isinstance(export, AdapterExport) for export in self.exports):
            raise ValueError("there is no adapter to export under lora: null; use exports: [{format: merged}]")
        return self

    @model_validator(mode="after")
    def _quantised_weights_are_frozen(self) -> Self:
        if self.model.quantization and self.lora is None:
            raise ValueError("quantised weights cannot be trained: keep `lora`, or drop model.quantization")
        return self
