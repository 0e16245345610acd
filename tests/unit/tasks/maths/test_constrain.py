"""Steps are held to what they come to, in every common form, and what is no arithmetic is let pass."""

from __future__ import annotations

import random

import pytest

from tunesmith.tasks.maths.constrain import ArithmeticConstraint
from tunesmith.tasks.maths.numbers import Language
from tunesmith.tasks.maths.problems import KINDS, Draw

QUESTIONS = {"en": "Tom has 12 apples and 7 pears.", "vi": "An có 12 quả táo, 7 quả lê, 8,5 kg gạo."}


@pytest.mark.parametrize(
    ("language", "text", "allowed"),
    [
        ("en", "12 + 7 = 1", True),  # of 19
        ("en", "12 + 7 = 19", True),
        ("en", "12 + 7 = 20", False),
        ("en", "12 + 7 = 1 ", False),  # it ends too early
        ("en", "12 + 7 =\n", False),
        ("en", "12 + 7 = 19.\nSo", True),
        ("en", "12 × 100 = 1,200", True),
        ("en", "12 × 100 = 1200", True),
        ("en", "12 × 100 = 1.200", False),  # an English point is no thousands mark
        ("vi", "12 x 100 = 1.200", True),
        ("vi", "Có là: 8,5 x 2 = 17 (kg)", True),
        ("vi", "Có là: 8,5 x 2 = 170", False),
        ("vi", "17 : 5 = 3 (dư 2)", True),
        ("vi", "17 : 5 = 3,4", True),
        ("en", "12 ÷ 7 = 1.71", True),
        ("en", "12 ÷ 7 = 1.72", False),
        ("en", "3 ÷ 12 = 25%", True),
        ("en", "3 ÷ 12 = 1/4", True),
        ("en", "3 ÷ 12 = 1/5", False),
        ("en", "100% - 40% = 60%", True),
        ("en", "3 × 12 = 3600%", False),  # only what divides can be a share
        ("en", "5 × 0.25 = $1.25", True),
        ("en", "2 × 5.75 = 11.50", True),
        ("en", "7 - 12 = -5", True),
        ("en", "x = 4", True),
        ("en", "the total = (12 + 7)", True),
        ("en", "3 m + 50 cm = 350 cm", True),  # converted: no calculation that is read here
        ("en", "12 + 7 = 19\n#### 19 apples", True),
        ("en", "12 + 7 = 19\n#### 1", True),
        ("en", "12 + 7 = 19\n#### 18", False),
        ("en", "12 + 7 = 19\n#### 12 apples", True),  # the question states it
        ("en", "They cost 60/5 = $12.00\n#### 12", True),  # the solution states it
        ("en", "Nobody knows.\n#### 5", True),
    ],
)
def test_a_step_comes_out(language: Language, text: str, allowed: bool) -> None:
    assert ArithmeticConstraint(QUESTIONS[language], language).allows(text) is allowed


@pytest.mark.parametrize("language", ["en", "vi"])
def test_every_solution_of_the_builder_is_allowed_letter_by_letter(language: Language) -> None:
    rng = random.Random(5)
    for kind in KINDS.values():
        for _ in range(6):
            problem = kind(Draw(rng, language, 60))
            text = "\n".join((*problem.steps, f"#### {problem.answer}"))
            constraint = ArithmeticConstraint(problem.question, language)
            forbidden = [text[:end] for end in range(1, len(text) + 1) if not constraint.allows(text[:end])]
            assert not forbidden[:1] and constraint.complete(text), text


def test_a_wrong_step_further_up_is_no_whole_answer() -> None:
    assert not ArithmeticConstraint(QUESTIONS["en"], "en").complete("12 + 7 = 20\nSo many.\n#### 12")
