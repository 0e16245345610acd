# ruff: noqa: E501  sentences are easier to read unbroken
"""Kinds of word problem, each in English and Vietnamese with numbers as that language writes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from tunesmith.tasks.maths.numbers import Language

_EN_NAMES = (
    "Anna|Ben|Carla|David|Elena|Farid|Grace|Hugo|Ines|Jonas|Kim|Lucas|Maya|Nora|Omar|Paula|Rosa|Sam|Tom|Vera".split("|")
)
_VI_NAMES = "An|Bình|Chi|Dũng|Giang|Hà|Hùng|Khánh|Lan|Linh|Mai|Minh|Nam|Ngọc|Phúc|Quân|Sơn|Thảo|Trang|Tuấn".split("|")
_EN_THINGS = (
    "apples|books|cards|coins|eggs|flowers|marbles|pencils|stamps|stickers|shells|cookies|oranges|buttons".split("|")
)
_VI_THINGS = (
    "quả táo|quả cam|cái kẹo|quyển vở|cây bút|viên bi|bông hoa|quyển sách|cái bánh|quả trứng|con tem|hộp sữa".split("|")
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its worked solution."""

    question: str
    steps: tuple[str, ...]
    answer: str


class Draw:
    """Draws numbers, names and things, and writes numbers the way one language does."""

    def __init__(self, rng: random.Random, language: Language, largest: int) -> None:
        self.rng = rng
        self.vi = language == "vi"
        self.largest = max(10, largest)
        self.who, self.other = rng.sample(_VI_NAMES if self.vi else _EN_NAMES, 2)
        self.thing = rng.choice(_VI_THINGS if self.vi else _EN_THINGS)

    def upto(self, most: int, least: int = 2) -> int:
        """A whole number up to a bound and to the builder's largest."""
        return self.rng.randint(least, max(least, min(most, self.largest)))

    def tenths(self, most: int) -> Fraction:
        """A number with one decimal place that is not whole."""
        return Fraction(10 * self.rng.randint(1, min(most, self.largest)) + self.rng.randint(1, 9), 10)

    def price(self) -> Fraction:
        """What one thing costs: thousands of đồng, or dollars with quarters."""
        return Fraction(500 * self.rng.randint(2, 30)) if self.vi else Fraction(self.rng.randint(4, 60), 4)

    def number(self, value: Fraction | int, money: bool = False) -> str:
        """`1.250.000` and `8,25` in Vietnamese, `1,250,000` and `8.25` in English; cents have two places."""
        value = Fraction(value)
        places = 0
        while (value * 10**places).denominator != 1:
            places += 1
        if money and places and not self.vi:
            places = 2
        text = f"{float(value):,.{places}f}"
        return text.replace(",", "~").replace(".", ",").replace("~", ".") if self.vi else text

    def cost(self, value: Fraction | int) -> str:
        """An amount of money."""
        return f"{self.number(value)} đồng" if self.vi else f"${self.number(value, money=True)}"

    def line(self, label: str, expression: str, value: Fraction | int, unit: str) -> str:
        """A step of a solution: `Số bi còn lại là: 9 - 4 = 5 (viên bi)`."""
        worked = f"{expression} = {self.number(value, money=unit == '$')}"
        return f"{label}: {worked} ({unit})" if self.vi else worked

    def n(self, *values: Fraction | int) -> list[str]:
        """Several numbers, written."""
        return [self.number(value) for value in values]


Kind = Callable[[Draw], Problem]


def _joined(d: Draw) -> Problem:
    a, b = d.upto(60), d.upto(40)
    if d.vi:
        q = d.rng.choice(
            [
                f"{d.who} có {a} {d.thing}, mua thêm {b} {d.thing}. Hỏi {d.who} có tất cả bao nhiêu {d.thing}?",
                f"{d.who} hái được {a} {d.thing}, {d.other} hái được {b} {d.thing}. Hỏi cả hai bạn có bao nhiêu {d.thing}?",
            ]
        )
    else:
        q = d.rng.choice(
            [
                f"{d.who} has {a} {d.thing} and gets {b} more. How many {d.thing} does {d.who} have now?",
                f"{d.who} collects {a} {d.thing} and {d.other} collects {b}. How many {d.thing} do they have in all?",
            ]
        )
    return Problem(q, (d.line("Có tất cả là", f"{a} + {b}", a + b, d.thing),), _counted(d, a + b))


def _taken(d: Draw) -> Problem:
    b, left = d.upto(40), d.upto(50)
    a = b + left
    if d.vi:
        q = d.rng.choice(
            [
                f"{d.who} có {a} {d.thing}, cho {d.other} {b} {d.thing}. Hỏi {d.who} còn lại bao nhiêu {d.thing}?",
                f"Cửa hàng có {a} {d.thing}, đã bán {b} {d.thing}. Hỏi còn lại bao nhiêu {d.thing}?",
            ]
        )
    else:
        q = d.rng.choice(
            [
                f"{d.who} has {a} {d.thing} and gives {b} to {d.other}. How many {d.thing} are left?",
                f"A shop has {a} {d.thing} and sells {b} of them. How many {d.thing} are left?",
            ]
        )
    return Problem(q, (d.line("Còn lại là", f"{a} - {b}", left, d.thing),), _counted(d, left))


def _grouped(d: Draw) -> Problem:
    k, c = d.upto(9), d.upto(12)
    q = (
        f"Mỗi hộp có {c} {d.thing}. Hỏi {k} hộp như thế có bao nhiêu {d.thing}?"
        if d.vi
        else f"There are {k} boxes with {c} {d.thing} in each. How many {d.thing} are there altogether?"
    )
    times = "x" if d.vi else "×"
    return Problem(
        q,
        (d.line("Có tất cả là", f"{c} {times} {k}" if d.vi else f"{k} {times} {c}", k * c, d.thing),),
        _counted(d, k * c),
    )


def _shared(d: Draw) -> Problem:
    k, c = d.upto(9), d.upto(12)
    q = (
        f"Chia đều {k * c} {d.thing} cho {k} bạn. Hỏi mỗi bạn được bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} shares {k * c} {d.thing} equally among {k} friends. How many {d.thing} does each get?"
    )
    return Problem(q, (d.line("Mỗi bạn được là", f"{k * c} {':' if d.vi else '÷'} {k}", c, d.thing),), _counted(d, c))


def _bought(d: Draw) -> Problem:
    k, price = d.upto(9), d.price()
    q = (
        f"Một {d.thing} giá {d.cost(price)}. Hỏi mua {k} {d.thing} hết bao nhiêu tiền?"
        if d.vi
        else f"{d.who} buys {k} tickets at {d.cost(price)} each. How many dollars is that?"
    )
    return Problem(q, (_product(d, "Số tiền phải trả là", price, k),), d.cost(price * k))


def _changed(d: Draw) -> Problem:
    k, price = d.upto(5), d.price()
    note = 50_000 if d.vi else 10
    paid = Fraction((int(price * k) // note + 1) * note)
    q = (
        f"{d.who} mua {k} {d.thing}, mỗi {d.thing} giá {d.cost(price)}, và đưa {d.cost(paid)}. Hỏi {d.who} được trả lại bao nhiêu tiền?"
        if d.vi
        else f"{d.who} buys {k} tickets at {d.cost(price)} each and pays with {d.cost(paid)}. How much change does {d.who} get?"
    )
    left = paid - price * k
    second = d.line(
        "Số tiền được trả lại là", f"{d.number(paid)} - {d.number(price * k, True)}", left, "đồng" if d.vi else "$"
    )
    return Problem(q, (_product(d, "Số tiền mua là", price, k), second), d.cost(left))


def _more_together(d: Draw) -> Problem:
    a, b = d.upto(40), d.upto(20)
    q = (
        f"{d.who} có {a} {d.thing}, {d.other} có nhiều hơn {d.who} {b} {d.thing}. Hỏi cả hai bạn có bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} has {a} {d.thing}. {d.other} has {b} more than {d.who}. How many {d.thing} do they have together?"
    )
    steps = (
        d.line(f"{d.other} có là", f"{a} + {b}", a + b, d.thing),
        d.line("Cả hai có là", f"{a} + {a + b}", 2 * a + b, d.thing),
    )
    return Problem(q, steps, _counted(d, 2 * a + b))


def _times_as_many(d: Draw) -> Problem:
    a, k = d.upto(15), d.upto(6)
    q = (
        f"{d.who} có {a} {d.thing}, {d.other} có gấp {k} lần. Hỏi {d.other} có bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} has {a} {d.thing}. {d.other} has {k} times as many. How many {d.thing} does {d.other} have?"
    )
    return Problem(
        q,
        (d.line(f"{d.other} có là", f"{a} x {k}" if d.vi else f"{k} × {a}", a * k, d.thing),),
        _counted(d, a * k),
    )


def _lengths_joined(d: Draw) -> Problem:
    a, b = d.tenths(20), d.tenths(9)
    x, y = d.n(a, b)
    q = (
        f"Một sợi dây dài {x} m được nối thêm {y} m. Hỏi sợi dây dài bao nhiêu mét?"
        if d.vi
        else f"A rope of {x} m is tied to a rope of {y} m. How many metres is that in all?"
    )
    return Problem(q, (d.line("Sợi dây dài là", f"{x} + {y}", a + b, "m"),), f"{d.number(a + b)} m")


def _length_cut(d: Draw) -> Problem:
    b, left = d.tenths(9), d.tenths(20)
    x, y = d.n(b + left, b)
    q = (
        f"Một tấm vải dài {x} m, đã cắt đi {y} m. Hỏi tấm vải còn lại bao nhiêu mét?"
        if d.vi
        else f"{y} m are cut from a ribbon of {x} m. How many metres are left?"
    )
    return Problem(q, (d.line("Còn lại là", f"{x} - {y}", left, "m"),), f"{d.number(left)} m")


def _area(d: Draw) -> Problem:
    a, b = d.upto(30, 5), d.upto(9)
    q = (
        f"Một mảnh vườn hình chữ nhật dài {a} m, rộng {b} m. Tính diện tích mảnh vườn."
        if d.vi
        else f"A garden is {a} m long and {b} m wide. What is its area in square metres?"
    )
    return Problem(
        q, (d.line("Diện tích là", f"{a} {'x' if d.vi else '×'} {b}", a * b, "m²"),), f"{d.number(a * b)} m²"
    )


def _perimeter(d: Draw) -> Problem:
    a, b = d.upto(40, 5), d.upto(30, 3)
    q = (
        f"Một sân hình chữ nhật dài {a} m, rộng {b} m. Tính chu vi của sân."
        if d.vi
        else f"A yard is {a} m long and {b} m wide. What is its perimeter in metres?"
    )
    times = "x" if d.vi else "×"
    return Problem(q, (d.line("Chu vi là", f"({a} + {b}) {times} 2", 2 * (a + b), "m"),), f"{d.number(2 * (a + b))} m")


def _travelled(d: Draw) -> Problem:
    speed, hours = 5 * d.upto(12), d.upto(6)
    q = (
        f"Một ô tô mỗi giờ đi được {speed} km. Hỏi trong {hours} giờ ô tô đi được bao nhiêu ki-lô-mét?"
        if d.vi
        else f"A car goes {speed} km in an hour. How many kilometres does it go in {hours} hours?"
    )
    return Problem(
        q,
        (d.line("Quãng đường là", f"{speed} {'x' if d.vi else '×'} {hours}", speed * hours, "km"),),
        f"{d.number(speed * hours)} km",
    )


def _discounted(d: Draw) -> Problem:
    percent = d.rng.choice([10, 20, 25, 50])
    price = Fraction(20_000 * d.upto(20)) if d.vi else Fraction(20 * d.upto(20))
    cut = price * percent / 100
    q = (
        f"Một món hàng giá {d.cost(price)}, được giảm {percent}%. Hỏi giá mới là bao nhiêu?"
        if d.vi
        else f"A coat costs {d.cost(price)}. It is {percent}% off. What is the new price?"
    )
    unit = "đồng" if d.vi else "$"
    times, over = ("x", ":") if d.vi else ("×", "÷")
    steps = (
        d.line("Số tiền giảm là", f"{d.number(price)} {times} {percent} {over} 100", cut, unit),
        d.line("Giá mới là", f"{d.number(price)} - {d.number(cut)}", price - cut, unit),
    )
    return Problem(q, steps, d.cost(price - cut))


def _averaged(d: Draw) -> Problem:
    a, b = d.upto(20), d.upto(20)
    c = d.upto(20) + 3
    c += -(a + b + c) % 3
    total = a + b + c
    q = (
        f"Ba bạn có {a}, {b} và {c} {d.thing}. Hỏi trung bình mỗi bạn có bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} scores {a}, {b} and {c} points. What is the average?"
    )
    steps = (
        d.line("Tổng là", f"{a} + {b} + {c}", total, d.thing),
        d.line("Trung bình là", f"{total} {':' if d.vi else '÷'} 3", total // 3, d.thing),
    )
    return Problem(q, steps, _counted(d, total // 3) if d.vi else str(total // 3))


def _converted(d: Draw) -> Problem:
    metres = d.tenths(9)
    x = d.number(metres)
    q = (
        f"Một sợi dây dài {x} m. Hỏi sợi dây dài bao nhiêu xăng-ti-mét?"
        if d.vi
        else f"A stick is {x} m long. How many centimetres is that?"
    )
    return Problem(
        q,
        (d.line("Đổi ra là", f"{x} {'x' if d.vi else '×'} 100", metres * 100, "cm"),),
        f"{d.number(metres * 100)} cm",
    )


def _minutes(d: Draw) -> Problem:
    hours, minutes = d.upto(5, 1), 5 * d.upto(11, 1)
    q = (
        f"Bộ phim dài {hours} giờ {minutes} phút. Hỏi bộ phim dài bao nhiêu phút?"
        if d.vi
        else f"A film takes {hours} h {minutes} min. How many minutes is that?"
    )
    total = 60 * hours + minutes
    steps = (
        d.line("Đổi giờ ra phút", f"{hours} {'x' if d.vi else '×'} 60", 60 * hours, "phút"),
        d.line("Tất cả là", f"{60 * hours} + {minutes}", total, "phút"),
    )
    return Problem(q, steps, f"{total} {'phút' if d.vi else 'minutes'}")


def _part_of(d: Draw) -> Problem:
    bottom = d.rng.choice([2, 3, 4, 5])
    top, each = d.rng.randint(1, bottom - 1), d.upto(12)
    whole = bottom * each
    q = (
        f"{d.who} có {whole} {d.thing}, {top}/{bottom} trong số đó cho {d.other}. Hỏi {d.who} cho {d.other} bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} gives {top}/{bottom} of {whole} {d.thing} to {d.other}. How many {d.thing} does {d.other} get?"
    )
    over, times = (":", "x") if d.vi else ("÷", "×")
    steps = (
        d.line("Một phần là", f"{whole} {over} {bottom}", each, d.thing),
        d.line("Số phần cho là", f"{each} {times} {top}", each * top, d.thing),
    )
    return Problem(q, steps, _counted(d, each * top))


def _percent_of(d: Draw) -> Problem:
    whole = 20 * d.upto(5, 1)
    part = whole // 20 * d.rng.randint(1, 19)
    q = (
        f"Lớp có {whole} học sinh, trong đó {part} bạn thích toán. Hỏi bao nhiêu phần trăm học sinh thích toán?"
        if d.vi
        else f"{part} of {whole} children like maths. What percent is that?"
    )
    percent = Fraction(100 * part, whole)
    return Problem(
        q,
        (f"{part} {':' if d.vi else '÷'} {whole} {'x' if d.vi else '×'} 100 = {d.number(percent)}",),
        f"{d.number(percent)}%",
    )


def _two_purchases(d: Draw) -> Problem:
    k, c, b = d.upto(6), d.upto(9), d.upto(20)
    q = (
        f"{d.who} mua {k} hộp, mỗi hộp {c} {d.thing}, và {b} {d.thing} lẻ. Hỏi {d.who} mua tất cả bao nhiêu {d.thing}?"
        if d.vi
        else f"{d.who} buys {k} bags of {c} {d.thing} and {b} single ones. How many {d.thing} is that in all?"
    )
    times = "x" if d.vi else "×"
    steps = (
        d.line("Trong hộp có là", f"{c} {times} {k}" if d.vi else f"{k} {times} {c}", k * c, d.thing),
        d.line("Tất cả là", f"{k * c} + {b}", k * c + b, d.thing),
    )
    return Problem(q, steps, _counted(d, k * c + b))


def _product(d: Draw, label: str, price: Fraction, k: int) -> str:
    left = f"{d.number(price, True)} x {k}" if d.vi else f"{k} × {d.number(price, True)}"
    return d.line(label, left, price * k, "đồng" if d.vi else "$")


def _counted(d: Draw, value: int) -> str:
    return f"{d.number(value)} {d.thing}"


KINDS: dict[str, Kind] = {
    "joined": _joined, "taken": _taken, "grouped": _grouped, "shared": _shared, "bought": _bought, "changed": _changed,
    "more_together": _more_together, "times_as_many": _times_as_many, "lengths_joined": _lengths_joined, "length_cut": _length_cut,
    "area": _area, "perimeter": _perimeter, "travelled": _travelled, "discounted": _discounted, "averaged": _averaged,
    "converted": _converted, "minutes": _minutes, "part_of": _part_of, "percent_of": _percent_of, "two_purchases": _two_purchases,
}  # fmt: skip
"""Every kind of problem by its name."""
