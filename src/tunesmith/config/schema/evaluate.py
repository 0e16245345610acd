"""`generate`, `evaluate` and `tracking`: what is written, graded and shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.config.schema.section import Section


class Generate(Section):
    """How completions are written, in evaluation and serving."""

    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy: the same answer every time."""
    batch_size: int = Field(32, ge=1)
    """Prompts decoded together."""
    beams: int = Field(1, ge=1, le=64)
    """Answers pursued side by side for each prompt, the likeliest whole one given (beam search). 1 is greedy. More cost
    time in proportion, and pay most together with `constrain`: a beam that the constraint leaves no good way on is
    dropped for another. Needs temperature 0."""
    coverage: float = Field(0.0, ge=0, le=100)
    """Nats taken from a whole answer for each thing that the question names and the answer leaves out, when the best of
    the beams is chosen and when the search ends (for SQL: values of `task.mentioned_values`, numbers, and words that
    tables and columns are named by): a coverage penalty like that of Wu et al., 2016, arXiv 1609.08144. Works under
    `constrain`, with beams. 0 takes the likeliest."""
    lexicon: float = Field(0.0, ge=0, le=10)
    """What a second opinion counts when the best of the beams is chosen: the logarithm of an answer's probability by a
    discriminative word lexicon (Mauser, Hasan and Ney, 2009, ACL anthology D09-1022), times this, is added to the
    model's. The lexicon is learned from the training questions and answers after the model, in seconds, and kept as
    `lexicon.safetensors`; the base is graded without. Beside every score stands what the model alone reaches. 0 does
    without; 0.2 is a good beginning. An export served elsewhere is the model alone, and so is what `evaluate.select`
    grades."""
    constrain: Literal["none", "schema", "arithmetic"] = "none"
    """`schema` (SQL): every answer is held to names that exist: tables and columns of the prompt's schema. `arithmetic`
    (maths): what a solution writes after `=` is what stands before it, worked out. Reported beside the score, because
    it changes what is measured."""

    @model_validator(mode="after")
    def _beams_are_not_sampled(self) -> Generate:
        if self.beams > 1 and self.temperature:
            raise ValueError("beams are the likeliest answers, and samples are drawn by chance: set temperature: 0")
        return self


class Select(Section):
    """Keep the checkpoint that is best at the task, by grading validation answers during training."""

    examples: int = Field(200, ge=20)
    """Validation examples answered at each evaluation (every `train.eval_steps`), always the same ones. An accuracy of
    200 answers is known to about 7 points; two checkpoints on the same 200 are compared to about 4."""
    metric: str = "score"
    """`score` (the task's own), or a metric of `evaluate.metrics` or of the task's parts, such as `exact_match`."""
    stop: bool = True
    """Stop when a further gain of `min_gain` is improbable; false keeps the best and trains to the end."""
    min_gain: float = Field(0.01, gt=0, lt=1)
    """The gain worth going on for, as a share: 0.01 is one point."""
    improbable: float = Field(0.05, gt=0, lt=0.5)
    """Below which probability such a gain is given up."""
    least: int = Field(5, ge=3)
    """Evaluations before training may stop."""


class Evaluate(Section):
    """What is graded, and how surely."""

    base: bool = True
    """Grade the untuned base model on the same prompts, for the comparison."""
    max_samples: int | None = Field(None, ge=1)
    """Grade a fixed random sample of at most this many examples per test set."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals (Wilson for shares, exact McNemar for the paired comparison)."""
    metrics: dict[str, Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]] = Field(default_factory=dict)
    """Metrics of your own by name: `module:function` taking an example and the answer's text, and returning a number
    from 0 to 1, or None. Each is shown with its interval beside the score."""
    slices: list[str] | None = None
    """Fields of an example's `meta` to show the score by (`kind`, `database`, `grade`); null takes every field that
    has 2 to 12 values."""
    resamples: int = Field(10_000, ge=100)
    """Resamples of the bootstrap, by group where examples have one (a document, a query skeleton)."""
    select: Select | None = None
    """Choose the checkpoint by its answers instead of its loss; null keeps the last, or that of the lowest validation
    loss under `train.early_stopping_patience`."""
    self_test: int = Field(50, ge=0)
    """Before anything is trained, grade the right answers of this many held-out examples, the right answers of other
    questions, and cheap answers that solve nothing: a grader that gets these wrong would mislead the whole run. 0
    leaves it out."""
    min_gold: float = Field(1.0, ge=0, le=1)
    """The run stops when right answers score less than this on average. 1 for graders that compare; a judge model, who
    may find fault with a right answer, needs less."""
    max_shuffled: float = Field(0.1, ge=0, le=1)
    """The run stops when right answers of other questions score more than this on average."""
    max_hack_gain: float = Field(0.02, ge=0, le=1)
    """Most that a policy may earn without solving anything (an empty answer, one answer for all, all choices at once,
    the right form, a near miss). More is a warning, and an error where the score is a reward."""


class Tracking(Section):
    """Where the course of a run is shown, beside run.json and events.jsonl, which are always written."""

    report_to: list[Literal["tensorboard", "wandb", "comet_ml"]] = ["tensorboard"]
    """Mirrors."""
    project: str | None = None
    """Project name at the mirror."""
    profile_steps: int = Field(0, ge=0)
    """Measure so many steps, after two to warm up: a trace and the ten most expensive operations in `profile/` of the
    run. `--profile` is 3. The steps that are measured are slower and their results the same."""
