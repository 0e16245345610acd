"""The best checkpoint by task score: validation questions are answered and graded during training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from tunesmith.config.schema import RunConfig, Select
from tunesmith.data.prepare import Prepared
from tunesmith.data.render import Renderer
from tunesmith.errors import DataError
from tunesmith.evaluate.ask import evaluate
from tunesmith.evaluate.metrics import Evaluation, sample, share
from tunesmith.evaluate.selection import Selector
from tunesmith.rundir import RunDir
from tunesmith.train.callbacks import KeepBest
from tunesmith.train.weights import save_trainable
from tunesmith.types import Task

log = logging.getLogger(__name__)

Judge = Callable[[Any], Evaluation]
"""The model in training to its graded answers on the selection examples."""
Tell = Callable[..., None]
"""A tracker's `event`."""


class KeepBestByScore(KeepBest):
    """Keep the trainable weights that score best, and stop when a further gain is improbable.

    Its state is in every checkpoint, so that a resumed run decides as an uninterrupted one would have.
    """

    def __init__(self, run: RunDir, settings: Select, judge: Judge, tell: Tell, seed: int, examples: int = 0) -> None:
        super().__init__(run, patience=1)
        self.settings = settings
        self.examples = examples
        """That are answered each time."""
        self._judge = judge
        self._tell = tell
        self.chooser = Selector(settings.min_gain, settings.improbable, settings.least, seed)

    @property
    def selector(self) -> dict[str, Any]:
        """What the selector has seen, for the checkpoint that keeps it."""
        return self.chooser.state()

    @selector.setter
    def selector(self, state: dict[str, Any]) -> None:
        self.chooser.restore(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:  # the last weights are candidates too
            control.should_evaluate = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, model: Any = None, **_: Any
    ) -> None:
        step, loss = state.global_step, (metrics or {})["eval_loss"]
        if step in self.chooser.steps:
            return
        evaluation = self._judge(model)
        values = [value_of(one, self.settings.metric) for one in evaluation.judged]
        scores = {one.example.id: value for one, value in zip(evaluation.judged, values, strict=True)}
        every = args.eval_steps or 1
        remaining = math.ceil((state.max_steps - step) / every)
        verdict = self.chooser.observe(step, scores, loss, remaining)
        if verdict.best:
            self.best, self.best_step = loss, step
            if state.is_world_process_zero:
                save_trainable(model, self.path)
        mean = share(values, evaluation.confidence)
        if state.is_world_process_zero:
            self._tell(
                "selection",
                step,
                task_score=mean.value,
                low=mean.low,
                high=mean.high,
                n=mean.n,
                unscored=evaluation.unscored,
                best=verdict.best,
                gain_probability=verdict.probability,
                seconds=round(evaluation.seconds, 1),
            )
        said = "nothing could be judged" if mean.value is None else f"task score {mean.value:.3f} of {mean.n}"
        log.info("step %d: %s%s", step, said, ", the best so far" if verdict.best else "")
        if verdict.stop and self.settings.stop:
            self.waited = self.patience
            log.info(
                "a further gain of %.3f has probability %.3f: stopping; the best was at step %d",
                self.settings.min_gain, verdict.probability, self.best_step,
            )  # fmt: skip
            control.should_training_stop = True
            control.should_save = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = super().state()
        return {**kept, "attributes": {**kept["attributes"], "selector": self.selector}}


def keep_best_by_score(
    config: RunConfig, prepared: Prepared, tokenizer: Any, task: Task, run: RunDir, tell: Tell
) -> KeepBestByScore:
    """The callback that `evaluate.select` asks for.

    Raises:
        DataError: no validation example can be asked.
    """
    wanted = config.evaluate.select
    assert wanted is not None
    chosen = sample(prepared.validation_examples, wanted.examples, config.seed)
    if not chosen:
        raise DataError(
            "evaluate.select grades validation answers, and no example is set aside for it",
            place="data.validation",
            remedy="set data.validation or data.validation_share, or evaluate.select: null",
        )
    renderer = Renderer(tokenizer, config.model.end_token, thinks=prepared.thinks)
    whole = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"max_samples": None})})

    def judge(model: Any) -> Evaluation:
        return evaluate(model, tokenizer, renderer.prompt_ids, chosen, task, whole)

    return KeepBestByScore(run, wanted, judge, tell, config.seed, len(chosen))


def value_of(judged: Any, metric: str) -> float | None:
    """The figure of one graded answer that decides."""
    value: float | None = judged.score.value if metric == "score" else judged.score.parts.get(metric)
    return value
