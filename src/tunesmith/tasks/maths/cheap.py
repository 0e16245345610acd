"""Cheap answers against a maths grader: each solves nothing, and must score nothing (`tunesmith.types.RedTeamed`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunesmith.tasks.maths.notation import plain
from tunesmith.tasks.maths.numbers import Language, read_quantities

_OTHER_UNIT = {"cm": "cm2", "m": "m2", "cm2": "cm", "m2": "m", "kg": "m", "km": "km2", "lít": "km", "đồng": "kg"}


def cheap_answers(question: str, solution: str, target: str, language: Language) -> Mapping[str, str]:
    """Answers by the name of the policy that gives them; those that would be right are left out."""
    right = read_quantities(target, language)
    if len(right) != 1 or right[0].unit.dimension == (("percent", 1),):
        return {
            "mark_only": "####",
            "of_course": "#### the right answer",
            "refusal": "#### I do not know",
            "near_miss": f"#### {_another(target)}",
            "right_form": "#### x",
        }
    value = right[0].usual
    number = str(value)
    given = [quantity.usual for quantity in read_quantities(question, language)]
    cheap = {
        "mark_only": "####",
        "of_course": "#### the right answer",
        "refusal": "#### I do not know",
        "denied": f"#### not {target}",
        "either": f"#### {target} or {value + 1}",
        "range": f"#### {value - 1}, {number}, {value + 1}",
        "second_thought": f"#### {target}\n#### {value + 1}",
        "two_boxes": f"\\boxed{{{number}}} \\boxed{{{value + 1}}}",
        "only_thought": f"<think>The answer is {target}.</think>",
        "unfinished_thought": f"<think>So it is {target}.\n#### {target}",
        "sum_left_undone": f"#### {value - 1} + 1",
        "fraction_left_undone": f"#### {value * 2} / 2",
        "root_left_undone": f"#### \\sqrt{{{value**2}}}",
        "near_miss": f"#### {value + 1}",
        "constant": "#### 7" if value != 7 else "#### 8",
        "letters": "#### A, B, C, D",
    }
    if value:
        cheap["negated"], cheap["ten_times"] = f"#### {-value}", f"#### {value * 10}"
    else:
        cheap["right_form"] = "#### x"
    if undone := re.findall(r"([\d.,]+(?:\s*[-+*/×x:÷]\s*[\d.,]+)+)\s*=", plain(solution)):
        cheap["last_step_undone"] = f"#### {undone[-1]}"
    if given and given[-1] != value:
        cheap["last_given"] = f"#### {given[-1]}"
    if len(given) > 1:
        cheap["all_given"] = "#### " + ", ".join(str(one) for one in given)
        if sum(given) != value:
            cheap["sum_of_given"] = f"#### {sum(given)}"
    if (
        re.search(r"\d[.,]\d", target)
        and (joined := re.sub(r"(?<=\d)[.,](?=\d)", "", target))
        and (read_quantities(joined, language)[0].usual != value)
    ):
        cheap["mark_dropped"] = f"#### {joined}"
    for unit, other in _OTHER_UNIT.items():
        if re.search(rf"\d\s*{unit}$", plain(target)):
            cheap["unit_swapped"] = f"#### {re.sub(rf'{unit}$', other, plain(target))}"
    return cheap


def _another(target: str) -> str:
    """The target with its last digit, or its last word, another one."""
    digits = list(re.finditer(r"\d", target))
    if not digits:
        return f"{target}x"
    last = digits[-1].start()
    return f"{target[:last]}{(int(target[last]) + 1) % 10}{target[last + 1 :]}"
