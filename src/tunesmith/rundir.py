"""The name of everything inside a run directory, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's folder. Nothing else in the package spells these names."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings; itself a recipe."""
        return self.root / "config.yaml"

    @property
    def origins(self) -> Path:
        """`origins.json`: every dotted settings key to where its value came from."""
        return self.root / "origins.json"

    @property
    def mask(self) -> Path:
        """`mask.json`: a few training rows token by token, each token with whether the loss sees it."""
        return self.root / "mask.json"

    @property
    def summary(self) -> Path:
        """`run.json`: scores, seconds, peak memory, versions, what was written where."""
        return self.root / "run.json"

    @property
    def check(self) -> Path:
        """`check.json`: the findings of the last check of this run's recipe."""
        return self.root / "check.json"

    @property
    def receipt(self) -> Path:
        """`receipt.json`: every setting as asked and as read back from the live objects before the first step."""
        return self.root / "receipt.json"

    @property
    def events(self) -> Path:
        """`events.jsonl`: one line per log, evaluation and checkpoint."""
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def data(self) -> Path:
        """Data sets built for this run: `train.jsonl`, `validation.jsonl`, `test.jsonl`."""
        return self.root / "data"

    @property
    def ledger(self) -> Path:
        """Rows in = rows trained + rows dropped, each with place and reason."""
        return self.root / "ledger.jsonl"

    @property
    def batches(self) -> Path:
        """A digest of the examples of every optimizer step, a JSON object a line."""
        return self.root / "batches.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter with its tokenizer and card."""
        return self.root / "adapter"

    @property
    def lexicon(self) -> Path:
        """What questions and answers of the training data say of each other's words (`generate.lexicon`)."""
        return self.root / "lexicon.safetensors"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def plan(self) -> Path:
        """What `tunesmith plan` forecast of the run of this name; beside the runs, because it comes before them."""
        return self.root.parent / ".forecasts" / f"{self.root.name}.json"

    @property
    def proof(self) -> Path:
        """What `tunesmith prove` showed of it, likewise."""
        return self.root.parent / ".rehearsals" / self.root.name / "proof.json"

    @property
    def trace(self) -> Path:
        """Of the steps that were profiled, as Chrome and Perfetto read it."""
        return self.root / "profile" / "trace.json.gz"

    @property
    def operations(self) -> Path:
        """The ten operations that cost most of them."""
        return self.root / "profile" / "operations.txt"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    def scores(self, model: str, test_set: str) -> Path:
        """Every graded example of one model (`base`, `tuned`) on one test set, a JSON object a line."""
        return self.root / "scores" / f"{model}-{test_set}.jsonl"
