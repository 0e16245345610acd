"""What an answer shows of itself: whether it ended, and in which language it is."""

from __future__ import annotations

import pytest

from tunesmith.evaluate.answers import language_of, run_on
from tunesmith.types import Completion


@pytest.mark.parametrize(
    ("text", "stopped", "gold", "how"),
    [
        ("The answer is 5.", True, "", ""),
        ("The answer is", False, "", "length"),
        ("I see. I see. I see. I see. I see. I see. I see.", True, "", "loop"),
        ("x" * 40, True, "", "loop"),
        ("ha ha ha ha", True, "", ""),
        ("1000000000", True, "", ""),
        ("Four.\nUser: and five?", True, "", "next_turn"),
        ("Four.<|im_end|>\n", True, "", "next_turn"),
        ("User: a heading", True, "User: a heading", ""),
        ("-" * 60, True, "-" * 50, ""),
        ("", True, "", ""),
        ("a\n" + " " * 80, True, "", ""),
    ],
)
def test_an_answer_that_does_not_end_properly_is_named_by_how(text: str, stopped: bool, gold: str, how: str) -> None:
    assert run_on(Completion(text, stopped), gold) == how


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Mỗi ngày cửa hàng bán được 12 kg gạo, hỏi sau một tuần bán được bao nhiêu?", "vi"),
        ("How many kilos of rice does the shop sell in a week?", "en"),
        ("Combien de kilos de riz est-ce que le magasin vend dans une semaine ?", "fr"),
        ("Wie viele Kilo Reis verkauft der Laden in der Woche, und ist das viel?", "de"),
        ("¿Cuántos kilos de arroz vende la tienda en una semana y por qué?", "es"),
        ("Сколько килограммов риса продаёт магазин?", "ru"),
        ("この店では一週間に何キロの米を売りますか", "ja"),
        ("一周卖多少公斤大米呢这个商店", "zh"),
        ("42", ""),
        ("12 km + 3 km = 15 km", ""),
        ("café résumé naïve", ""),
    ],
)
def test_the_language_of_a_sentence(text: str, language: str) -> None:
    assert language_of(text) == language
