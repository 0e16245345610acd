from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tunesmith.tasks.maths.symbolic import MathVerify

pytestmark = pytest.mark.skipif(not MathVerify.installed(), reason="math-verify is not installed")


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerify]:
    made = MathVerify()
    yield made
    made.close()
    made.close()


def test_expressions_are_compared(verifier: MathVerify) -> None:
    assert verifier.same("$2-2p$", "$2(1-p)$") is True
    assert verifier.same("$2-2p$", "$2-3p$") is False
    assert verifier.same("$[0,1)$", "$[0,1]$") is False


def test_a_power_tower_is_wrong_and_takes_no_time(verifier: MathVerify) -> None:
    verifier.same("$x$", "$x$")
    start = time.perf_counter()
    assert verifier.same("$x+1$", "$9^{9^{9^{9^{9^{9^9}}}}}$") is False
    assert verifier.same("$x+1$", "$" + "(x+1)^{99999999}" + "$") is False
    assert time.perf_counter() - start < 1


def test_an_answer_that_outlasts_the_deadline_is_wrong_and_the_next_is_judged() -> None:
    verifier = MathVerify()
    try:
        assert verifier.same("$x$", "$x$") is True  # the first waits for the import
        verifier.seconds = 0
        assert verifier.same("$x+y$", "$y+x$") is False
        verifier.seconds = 6
        assert verifier.same("$a$", "$a$") is True
    finally:
        verifier.close()
