"""Whether two answers are the same, by stated rules, or honestly not judged. `docs/graders/maths.md` explains each.

The order of the rules: identical writing; a choice by its letter; closed classes of words; times of day; ratios;
arithmetic left undone; quantities, one by one; words; and for symbolic answers math-verify.
"""

from __future__ import annotations

import re
from fractions import Fraction

from tunesmith.tasks.maths.arithmetic import read_expression
from tunesmith.tasks.maths.notation import plain, squeezed
from tunesmith.tasks.maths.number_words import read_words
from tunesmith.tasks.maths.numbers import Quantity, read_quantities
from tunesmith.tasks.maths.quantities import MIN_PLACES, same_quantity
from tunesmith.tasks.maths.times import asks_for_a_time, same_time
from tunesmith.tasks.maths.units import PERCENT, unit_of_word
from tunesmith.tasks.maths.verdict import SAME, Circumstances, Verdict
from tunesmith.tasks.maths.words import closed_class, content_words, denied, opposed, roman

_LETTER = re.compile(r"\s*\(?\s*([A-F])\s*(?:[).:]|$)\s*(.*)", re.DOTALL)
_CHOSEN = re.compile(
    r"\s*(?:(?:đáp án|phương án|câu|chọn|option|choice|answer)\s+)?\(?\s*([A-F])\s*(?:[).:]\s*(.*)|$)", re.DOTALL
)
_CHOICES = re.compile(r"(?:^|[\s(])([A-F])\s*[.)]\s*(.+?)(?=(?:[\s(][A-F]\s*[.)])|\n|$)", re.DOTALL)
_NAME_LABEL = re.compile(r"\s*\|?\\?[^\W\d_]\w{0,3}\|?\s*")
_VALUE_LABEL = re.compile(r"\s*(?:\|?\\?[^\W\d_]\w{0,3}\|?|[\d\s.,()+\-*/×x·÷:^%$]+)\s*")
_RATIO = re.compile(r"\s*(\d+(?:[.,]\d+)?)((?:\s*:\s*\d+(?:[.,]\d+)?)+)\s*")
_RATIO_WORD = re.compile(r"\s*(\d+)\s+(?:to|so với)\s+(\d+)\s*")
_ASKS_WORDS = re.compile(r"đọc|bằng chữ|in words", re.IGNORECASE)
_SEPARATOR = re.compile(r"[\s,;.:()\[\]=*&|/-]*(?:\b(?:và|and|hoặc|or|lần lượt|respectively)\b[\s,;.:()-]*)*")
_CORRECTED = re.compile(
    r"^.*\b(?:không phải(?: là)?|chẳng phải|not)\s+[^\n]{1,60}?[,\s](?:mà(?: phải)? là|mà|but(?: is)?)\s+",
    re.IGNORECASE,
)
"""`not 6 but 5` says 5."""
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc log ln lim exp sqrt pi pm cup cap infty in min max det i e le ge lt gt neq".split()
)
_ROOTS = re.compile(r"√|\\?sqrt|π|\\pi|\^|\\(?:sin|cos|tan|log|ln)")
_SHORT = 5
"""Words up to which two answers that each have a word the other lacks are different, rather than paraphrases."""


def read_choices(question: str) -> dict[str, str]:
    """The lettered choices of a question, from A on without a gap; empty where it has none."""
    found: dict[str, str] = {}
    for match in _CHOICES.finditer(question):
        if match[1] == "ABCDEF"[len(found) : len(found) + 1]:
            found[match[1]] = match[2].strip().rstrip(".;,")
    return found if len(found) >= 2 else {}


def compare(gold: str, answer: str, about: Circumstances) -> Verdict:
    """Whether an answer is the right one.

    Args:
        gold: the right answer, as the data has it.
        answer: the final answer of a solution, without its mark.
    """
    if not squeezed(answer):
        return Verdict(False, "there is no answer", "no_answer")
    if about.choices or _LETTER.fullmatch(gold.strip()[:2]):
        chosen = _by_choice(gold, answer, about)
        if chosen is not None:
            return chosen
    if squeezed(gold) == squeezed(answer):
        return SAME
    answer = _CORRECTED.sub("", answer)
    if denied(answer) and not denied(gold):
        failure = "wrong_answer" if re.search(r"\d", answer) else "no_number"
        return Verdict(False, "the answer says what it is not", failure)
    equation = _by_equation(gold, answer, about)
    if equation is not None:
        return equation
    right, said = _core(gold), _core(answer)
    if squeezed(right) == squeezed(said):
        return SAME
    if _is_symbolic(right):
        return _by_symbols(gold, answer, about)
    for rule in (_by_class, _by_unit_name, _by_number_words, _by_time, _by_ratio, _by_expression, _by_quantity):
        verdict = rule(right, said, about)
        if verdict is not None:
            return verdict
    return _by_words(right, said)


def _core(text: str) -> str:
    """An answer without its label (`x =`), the steps before its last `=`, and words that only introduce it."""
    written = plain(text).strip().rstrip(".;")
    if re.search(r"[<>≤≥≠]|\\[lgn]", written):
        return text.strip().rstrip(".")
    written = re.sub(r"^(?:≈|~|khoảng|xấp xỉ|about|approximately|approx\.?)\s*", "", written, flags=re.IGNORECASE)
    members = re.split(r"=|≈", written)
    if len(members) == 1 or (len(members) == 2 and re.search(r";|,\s|,-|\b(?:or|and|hoặc|và)\b", members[1])):
        return text.strip().rstrip(".")
    last = members[-1].strip()
    is_value = bool(read_quantities(last, "en")) and not re.search(r"[^\W\d_]\s*[-+*/=]|[-+*/(]\s*[^\W\d_]", last)
    label = _VALUE_LABEL if is_value else _NAME_LABEL
    if not all(label.fullmatch(member) for member in members[:-1]):
        return text.strip().rstrip(".")
    exact = [member for member in members if read_quantities(member, "en")]
    return exact[-2].strip() if "≈" in written and len(exact) > 1 and "/" in exact[-2] else last


# --- rules, each None where it does not apply -------------------------------------------------------------------------


def _by_choice(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    wanted = _CHOSEN.fullmatch(gold.strip())
    picked = _CHOSEN.fullmatch(plain(answer).strip())
    letters = set(re.findall(r"(?<![\w])([A-F])(?![\w])", plain(answer)))
    right = wanted[1] if wanted else _choice_of(gold, about)
    if right is None:
        return None
    if wanted and not about.choices:
        if picked is None:
            return (
                Verdict(False, "no choice is named", "no_choice")
                if len(letters) != 1
                else (Verdict(letters == {right}, "another choice", "" if letters == {right} else "wrong_choice"))
            )
        return SAME if picked[1] == right else Verdict(False, "another choice", "wrong_choice")
    if picked:
        said = (picked[2] or "").strip()
        if picked[1] != right:
            return Verdict(False, "another choice", "wrong_choice")
        if said and right in about.choices:
            plainly = Circumstances(about.language, about.question, {}, about.units)
            agrees = compare(about.choices[right], said, plainly)
            if agrees.same is False and agrees.failure != "no_answer":
                return Verdict(False, "the letter and the text behind it disagree", "wrong_choice")
        return SAME
    if len(letters) > 1:
        return Verdict(False, "more than one choice is named", "wrong_choice")
    plainly = Circumstances(
        about.language, about.question, {}, about.units, about.gold_convention, about.answer_convention, about.symbolic
    )
    verdicts = {letter: compare(text, answer, plainly).same for letter, text in about.choices.items()}
    matching = [letter for letter, same in verdicts.items() if same]
    if len(matching) == 1:
        right_one = matching[0] == right
        return Verdict(
            right_one, "" if right_one else "the text of another choice", "" if right_one else "wrong_choice"
        )
    if wanted and right in about.choices:
        return compare(about.choices[right], answer, plainly)
    return None


def _choice_of(gold: str, about: Circumstances) -> str | None:
    folded = squeezed(gold)
    return next((letter for letter, text in about.choices.items() if squeezed(text) == folded), None)


def _by_equation(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    """`7 × 5 = 35` as the right answer asks for the equation and not for its value alone."""
    left, _, right = plain(gold).partition("=")
    calculation = read_expression(left, about.language, about.gold_convention)
    if not right or "=" in right or calculation is None or not calculation.operations:
        return None
    said_left, _, said_right = plain(answer).partition("=")
    said = read_expression(said_left, about.language, about.answer_convention)
    value = _by_quantity(right, said_right or said_left, about)
    if value is None or value.same is False:
        return value
    if said is not None and said_right and said.numbers == calculation.numbers and said.value == calculation.value:
        return value
    return Verdict(None, "the right answer is an equation, this is its value or another equation with it")


def _by_class(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    right, said = closed_class(gold), closed_class(answer)
    if right and said and right[0] == said[0]:
        return SAME if right == said else Verdict(False, "another word", "wrong_answer")
    numeral, other = roman(gold), roman(answer)
    if numeral is not None:
        if other is None and (quantities := read_quantities(answer, about.language)) and len(quantities) == 1:
            other = int(quantities[0].usual) if quantities[0].usual.denominator == 1 else None
        if other is not None:
            return SAME if numeral == other else Verdict(False, "another number", "wrong_number")
    return None


def _by_unit_name(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    right, said = unit_of_word(plain(gold).strip()), unit_of_word(plain(answer).strip())
    if right is None or said is None:
        return None
    return SAME if right == said else Verdict(False, "another unit", "wrong_unit")


def _by_number_words(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    right, said = read_words(plain(gold)), read_words(plain(answer))
    if right is None and said is None:
        return None
    if right is not None and said is not None:
        if right[0] != said[0]:
            return Verdict(False, "another number", "wrong_number")
        if right[1] != said[1] or not re.search(r"trăm|mươi|mười|hundred|thousand|nghìn|triệu|-", plain(gold)):
            return None
        return Verdict(None, "the same number in other words: whether its spelling was asked for cannot be told")
    spelled, other = (right, answer) if right is not None else (said, gold)
    assert spelled is not None
    if not read_quantities(other, about.language):
        return None
    if right is not None and _ASKS_WORDS.search(about.question):
        return Verdict(False, "the number was to be written in words", "wrong_answer")
    written = f"{spelled[0]} {spelled[1]}".strip()
    return _by_quantity(written, answer, about) if right is not None else _by_quantity(gold, written, about)


def _by_time(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    same = same_time(gold, answer, asks_for_a_time(about.question))
    if same is None:
        return None
    return {
        "same": SAME,
        "other": Verdict(False, "another time", "wrong_number"),
        "half": Verdict(None, "the two times differ by twelve hours and one does not say which half of the day"),
    }[same]


def _by_ratio(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    right = _ratio(gold)
    if right is None:
        return None
    said = _ratio(answer)
    if said is None and len(right) == 2:
        quantities = read_quantities(answer, about.language, about.answer_convention)
        if len(quantities) == 1 and not _has_measure(quantities[0]) and right[1]:
            return (
                SAME if quantities[0].usual == right[0] / right[1] else Verdict(False, "another ratio", "wrong_number")
            )
    if said is None:
        return None
    if len(right) != len(said):
        return Verdict(False, "another ratio", "wrong_number")
    proportional = all(a * said[0] == b * right[0] for a, b in zip(right, said, strict=True))
    return SAME if proportional else Verdict(False, "another ratio", "wrong_number")


def _has_measure(quantity: Quantity) -> bool:
    """Whether a quantity has a unit of measure other than percent."""
    return quantity.unit.known and quantity.unit.dimension != PERCENT.dimension


def _ratio(text: str) -> tuple[Fraction, ...] | None:
    written = plain(text).strip()
    found = _RATIO.fullmatch(written)
    parts = re.split(r"\s*:\s*", written) if found else None
    if worded := _RATIO_WORD.fullmatch(written):
        parts = [worded[1], worded[2]]
    if not parts:
        return None
    values = tuple(Fraction(part.replace(",", ".")) for part in parts)
    return values if all(values) else None


def _by_expression(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    """A right answer that is arithmetic asks for the arithmetic; one that is a number asks for the number."""
    right = read_expression(gold, about.language, about.gold_convention)
    said = read_expression(answer, about.language, about.answer_convention)
    if right is None or said is None or not (right.operations or said.operations):
        return None
    if _scientific(gold) or _scientific(answer):
        return None
    if not right.operations:
        same_value = right.value == said.value
        return Verdict(False, "the arithmetic is left undone", "unevaluated" if same_value else "wrong_number")
    if right.value != said.value:
        return (
            Verdict(False, "its value is another", "wrong_number")
            if right.certain and said.certain
            else (Verdict(None, "a number in it can be read in two ways"))
        )
    if said.operations and right.numbers == said.numbers:
        return SAME
    return Verdict(None, "the same value, written as another calculation than the right answer")


def _scientific(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(?:[.,]\d+)?\s*[×x*·]\s*10\s*\^\s*\(?-?\d+\)?\s*[^\d]*", plain(text)) is not None


def _by_quantity(gold: str, answer: str, about: Circumstances) -> Verdict | None:
    right = read_quantities(gold, about.language, about.gold_convention)
    if not right or _is_symbolic(gold) or _is_formula(gold):
        return None
    said = read_quantities(answer, about.language, about.answer_convention)
    if len(right) > 1 and len(said) != len(right) and about.language == "en":
        said = _split_at_commas(answer, said, len(right), about)
    gold_words, said_words = _words_outside(gold, right), _words_outside(answer, said)
    if len(right) == 1 and _ROOTS.search(plain(answer)) and not _ROOTS.search(plain(gold)):
        return _by_number_of_symbols(gold, answer, right[0], about)
    if not said:
        return Verdict(False, "no number in the answer", "no_number")
    if len(right) != len(said):
        listed = _SEPARATOR.fullmatch(said_words[1]) is not None or len(right) > 1
        possible = any(same_quantity(right[0], one, about).same for one in said)
        if not listed and possible and len(right) == 1:
            return Verdict(None, "a sentence with several numbers: which of them is the answer cannot be told")
        return Verdict(False, f"{len(said)} numbers where {len(right)} is right", "wrong_count")
    verdicts = [same_quantity(a, b, about) for a, b in zip(right, said, strict=True)]
    wrong = next((verdict for verdict in verdicts if verdict.same is False), None)
    if wrong is not None:
        joined = re.search(r"\b(và|and|hoặc|or)\b|^\s*[a-z]\s*=", plain(gold))
        if len(right) > 1 and joined and _permuted(right, said, about):
            if joined[1] not in ("và", "and"):
                return SAME  # solutions: x = 1 or x = 2
            return Verdict(None, "the right numbers in another order: nothing says whether the order matters")
        return wrong
    unsure = next((verdict for verdict in verdicts if verdict.same is None), None)
    if unsure is not None:
        return unsure
    return _around(gold_words[0], right, said_words[0], said)


def _around(gold_words: str, right: list[Quantity], said_words: str, said: list[Quantity]) -> Verdict:
    """The words around numbers that agree: a right answer that is a statement must be stated."""
    if opposed(gold_words, said_words):
        return Verdict(False, "the number is right and the words say the opposite", "wrong_answer")
    stated = content_words(gold_words)
    if not stated:
        return SAME
    stated |= content_words(" ".join(quantity.unit.noun for quantity in right))
    words = content_words(said_words + " " + " ".join(quantity.unit.noun for quantity in said))
    if stated <= words:
        return SAME
    if words - stated and stated - words:
        return Verdict(False, "the numbers agree and the words around them are others", "wrong_answer")
    return Verdict(None, "the numbers agree, the words of the right answer are not in it")


def _split_at_commas(answer: str, said: list[Quantity], count: int, about: Circumstances) -> list[Quantity]:
    spread = re.sub(r"(?<=\d),(?=\d)", ", ", plain(answer))
    split = read_quantities(spread, about.language, about.answer_convention)
    return split if len(split) == count else said


def _permuted(right: list[Quantity], said: list[Quantity], about: Circumstances) -> bool:
    left = list(said)
    for one in right:
        match = next((other for other in left if same_quantity(one, other, about).same), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _words_outside(text: str, quantities: list[Quantity]) -> tuple[str, str]:
    """The content words outside the quantities, and all text between the first and the last quantity."""
    written = plain(text)
    spread = read_quantities(written, "en") and written
    outside, position = [], 0
    for quantity in quantities:
        outside.append(written[position : quantity.start])
        position = quantity.end
    between = " ".join(outside[1:])
    outside.append(written[position:])
    del spread
    words = re.sub(r"(?:^|[\s;,])\(?[a-h]\)", " ", " ".join(outside))  # labels of parts
    return " ".join(sorted(content_words(words))), between


def _is_symbolic(text: str) -> bool:
    """Whether a text is algebra, sets, intervals or matrices rather than quantities or words."""
    if re.search(
        r"\\\{|\\(?:sqrt|pi|begin|cup|cap|infty|pm|in|sin|cos|tan|log|ln|le|ge|lt|gt|ne|frac\{[^{}]*[a-z])", text
    ):
        return True
    written = re.sub(r"(?<=[\d)])\s*x\s*(?=[\d(])", "×", plain(text))
    written = re.sub(r"(?<=\d)[eE](?=[-+]?\d)", "", written)  # 1e3 is a number
    if re.search(r"[≤≥<>∪∩√π∞±]", written):
        return re.search(r"[\w]", written) is not None
    if re.search(r"[A-Za-z]_|\d!", written):
        return True
    if re.search(r"[\[(]\s*-?[\w.∞/]+\s*,\s*-?[\w.∞/]+(?:\s*,\s*-?[\w./]+)*\s*[\])]", written):
        return True
    names = re.findall(r"[^\W\d_]+", written)
    algebra = re.search(
        r"(?<![^\W\d_])[a-zA-Z]\s*(?:[-+*/^=]|\d|\()|\d\s*[a-zA-Z](?![^\W\d_])\s*(?:[-+*/^=]|$)|[-+*/^=(]\s*\d*\s*[a-zA-Z](?![^\W\d_])",
        written,
    )
    one_unit = len(read_quantities(text, "en")) == 1 and read_quantities(text, "en")[0].unit.known
    return bool(names) and bool(algebra) and not one_unit and all(len(n) == 1 or n.lower() in _FUNCTIONS for n in names)


def _is_formula(text: str) -> bool:
    """Whether words are calculated with: `(total - difference) / 2`."""
    return re.search(r"[^\W\d_]{2,}\)?\s+[-+–*/:×]\s+\(?[^\W\d_]{2,}", plain(text)) is not None


def _by_symbols(gold: str, answer: str, about: Circumstances) -> Verdict:
    if about.symbolic is None:
        return Verdict(None, "a symbolic answer needs math-verify (pip install 'tunesmith[math]')")
    if about.language == "vi":  # math-verify reads a decimal comma as a list
        gold, answer = (re.sub(r"(?<=\d),(?=\d)", ".", text) for text in (gold, answer))
    same = about.symbolic(gold, answer)
    if same is None:
        return Verdict(None, "math-verify could not read the right answer")
    return SAME if same else Verdict(False, "not the same expression", "wrong_expression")


def _by_number_of_symbols(gold: str, answer: str, right: Quantity, about: Circumstances) -> Verdict:
    """Roots and powers for a number: only an exact value for a rounded one; `√16` for 4 is left undone."""
    if ((right.places or 0) < MIN_PLACES and right.form == "number") or _comes_out(plain(answer)):
        return Verdict(False, "the arithmetic is left undone", "unevaluated")
    if about.symbolic is None:
        return Verdict(None, "a symbolic answer needs math-verify (pip install 'tunesmith[math]')")
    return SAME if about.symbolic(gold, answer) else Verdict(False, "not the same number", "wrong_number")


def _comes_out(text: str) -> bool:
    """Whether all roots in a text are roots of powers, which leaves nothing irrational."""
    roots = re.findall(r"(?:\\?sqrt|√)\s*(?:\[(\d)\])?\s*\(?([\d.]+)(?:/([\d.]+))?", text)
    if not roots or re.search(r"π|\\pi|sin|cos|tan|log|ln", text):
        return False
    for degree, *parts in roots:
        for part in filter(None, parts):
            value, power = Fraction(part.strip(".") or 0), int(degree or 2)
            for number in (value.numerator, value.denominator):
                root = round(number ** (1 / power))
                if root**power != number:
                    return False
    return True


def _by_words(gold: str, answer: str) -> Verdict:
    right, said = content_words(plain(gold)), content_words(plain(answer))
    signs = not right and not said
    if re.search(r"[-+–*/=]", plain(gold)) and len(right) > 1:
        return Verdict(None, "a formula in words, written another way")
    if not right and read_quantities(answer, "en"):
        return Verdict(None, "the right answer is neither a number nor words")
    if right and right == said:
        return SAME
    short = len(right) <= _SHORT and len(said) <= _SHORT
    if opposed(gold, answer) or signs or not right & said or (short and right - said and said - right):
        return Verdict(False, "other words", "wrong_answer")
    return Verdict(None, "some words agree and some do not: a person must judge it")
