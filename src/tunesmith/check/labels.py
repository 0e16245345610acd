"""The label proof, on every row: what the loss will see is the answers and their ends, whole, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.data.prove import SHOW, prove_labels
from tunesmith.types import Finding

_COSTS = {
    "labels.none_trained": "a row that is read and teaches nothing; a batch of them is a loss of 0 that looks like success",
    "labels.end_masked": "a model that never stops",
    "labels.end_repeated": "a model that learns to go on after its end",
    "labels.beyond_end": "a model that writes on after its answer",
    "labels.prompt_trained": "a model that learns to recite questions and schemas instead of answering",
    "labels.answer_incomplete": "answers without their beginning or end",
    "labels.cut_off": "a model that learns answers without their end, and does not stop",
    "labels.other_answer": "a model that learns the answers of other questions",
    "labels.not_next_token": "the loss compares with the wrong token: it falls, and the model is spoilt",
    "labels.turn_missing": "turns that are read and not learned",
    "labels.double_bos": "the model was never shown two beginnings, and is a little worse with every answer",
    "labels.message_lost": "the model is trained without a part of the question it will be asked",
    "labels.packed_wrong": "examples that see each other's text",
    "labels.padding_inside": "a hole in the middle of an example",
    "labels.bos_missing": "the model is asked with a beginning that it was trained without",
    "labels.other_blanks": "the mask is off by a token",
    "labels.other_prompt": "trained on one text and asked with another: answers get worse for no visible reason",
}


def check_labels(subject: Subject) -> Looked:
    """Prove every row of training and validation data through the collator that training uses."""
    prepared = subject.preparation.prepared
    findings: list[Finding] = []
    rows = labels = 0
    at: dict[str, int] = {}
    seconds = 0.0
    for dataset in (prepared.train, prepared.validation):
        proof = prove_labels(dataset, subject.tokenizer, subject.renderer, subject.config)
        findings += proof.findings
        if proof.findings and dataset is prepared.train:
            at = {dataset.example(number).place: number for number in reversed(range(len(dataset)))}
        rows, labels, seconds = rows + proof.rows, labels + proof.labels, seconds + proof.seconds
    figures = {"rows proved": rows, "labels": labels, "rows/s": rows / seconds if seconds else 0.0}
    return Looked(list(summed(findings, at)), figures)


def summed(findings: Iterable[Finding], at: Mapping[str, int] | None = None) -> Iterator[Finding]:
    """One finding for each kind of fault, with its number of rows and the first of them.

    Args:
        at: number of each training row by its place, for the command that shows the first.
    """
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.check].append(finding)
    for check, found in by_kind.items():
        first = found[0]
        also = f"; {len(found):,} rows are like this, also {found[1].place}" if len(found) > 1 else ""
        remedy = first.remedy
        if at and first.place in at:
            remedy = remedy.replace(SHOW, f"`tunesmith data show RECIPE --start {at[first.place]} --count 1`")
        yield Finding(check, first.level, first.message + also, first.place, remedy, _COSTS.get(check, ""))
