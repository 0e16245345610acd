# ruff: noqa: E501  sentences are easier to read unbroken
"""Made-up word problems with worked answers and short conversations, English and Vietnamese.

They are a tenth of what the base model reads, so that maths and chat can be tuned on it too.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from demo_base.words import ADJECTIVES, CITIES, FIRST, NOUNS, VI_NAMES, plural

Turns = list[tuple[str, str]]
"""(role, content), in order."""

_EN_SYSTEM = [
    "Solve the problem. Show the steps and end with the answer.",
    "You are a careful maths tutor.",
    "Answer the question.",
    "",
]
_VI_SYSTEM = ["Giải bài toán, trình bày các bước và ghi đáp số.", "Bạn là gia sư toán.", "Trả lời câu hỏi.", ""]
_VI_THINGS = """quả táo|quả cam|cái kẹo|quyển vở|cây bút|viên bi|con gà|con vịt|bông hoa|quyển sách|cái bánh|hộp sữa|quả trứng|lá cờ|
tấm ảnh|chiếc ghế|cái cốc|con tem|hạt giống|viên gạch""".replace("\n", "").split("|")


def vi_number(value: float, places: int = 0) -> str:
    """A number as Vietnamese writes it: 1.250.000 and 8,25."""
    text = f"{value:,.{places}f}"
    if places:
        text = text.rstrip("0").rstrip(".")
    return text.replace(",", "~").replace(".", ",").replace("~", ".")


def en_number(value: float, places: int = 0) -> str:
    """A number as English writes it, without thousands separators below 10,000."""
    text = f"{value:,.{places}f}" if abs(value) >= 10_000 else f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def _en_problem(rng: random.Random) -> tuple[str, str]:
    who, other = rng.sample(FIRST, 2)
    thing, thing2 = (plural(word) for word in rng.sample(NOUNS, 2))
    a, b, c, k = rng.randint(3, 90), rng.randint(2, 60), rng.randint(2, 30), rng.randint(2, 12)
    price = rng.randint(2, 400) / rng.choice([1, 1, 2, 4])
    money = en_number(price, 2)
    kind = rng.randrange(16)
    if kind == 0:
        steps, answer = [f"{a} + {b} = {a + b}"], a + b
        text = f"{who} has {a} {thing} and buys {b} more. How many {thing} does {who} have now?"
    elif kind == 1:
        a += b
        steps, answer = [f"{a} - {b} = {a - b}"], a - b
        text = f"There were {a} {thing} in the {rng.choice(NOUNS)}. {who} took {b}. How many {thing} are left?"
    elif kind == 2:
        steps, answer = [f"{k} × {c} = {k * c}"], k * c
        text = f"{who} packs {k} boxes with {c} {thing} each. How many {thing} are there altogether?"
    elif kind == 3:
        steps, answer = [f"{k * c} ÷ {k} = {c}"], c
        text = f"{who} shares {k * c} {thing} equally among {k} friends. How many {thing} does each friend get?"
    elif kind == 4:
        total = price * k
        steps, answer = [f"{k} × {money} = {en_number(total, 2)}"], total
        text = f"One {thing[:-1]} costs ${money}. How many dollars do {k} {thing} cost?"
    elif kind == 5:
        paid = 10 * (int(price * k) // 10 + rng.randint(1, 5))
        rest = paid - price * k
        steps = [
            f"{k} × {money} = {en_number(price * k, 2)}",
            f"{paid} - {en_number(price * k, 2)} = {en_number(rest, 2)}",
        ]
        answer = rest
        text = f"{who} buys {k} {thing} at ${money} each and pays with ${paid}. How much change does {who} get?"
    elif kind == 6:
        steps, answer = [f"{k} × {a} = {k * a}", f"{k * a} + {a} = {k * a + a}"], k * a + a
        text = f"{who} has {a} {thing}. {other} has {k} times as many. How many {thing} do they have together?"
    elif kind == 7:
        steps, answer = [f"{a} + {b} = {a + b}", f"{a} + {a + b} = {2 * a + b}"], 2 * a + b
        text = f"{who} read {a} pages on Monday and {b} more pages on Tuesday than on Monday. How many pages in all?"
    elif kind == 8:
        speed, hours = rng.randint(4, 120), rng.randint(2, 9)
        steps, answer = [f"{speed} × {hours} = {speed * hours}"], speed * hours
        text = f"{who} travels at {speed} km per hour for {hours} hours. How many kilometres is that?"
    elif kind == 9:
        percent, base = rng.choice([5, 10, 20, 25, 30, 40, 50, 75]), 20 * rng.randint(2, 60)
        cut = base * percent // 100
        steps, answer = [f"{base} × {percent} / 100 = {cut}", f"{base} - {cut} = {base - cut}"], base - cut
        text = f"A {rng.choice(ADJECTIVES)} {thing[:-1]} costs ${base}. It is {percent}% off. What is the new price in dollars?"
    elif kind == 10:
        steps, answer = [f"{a} × {b} = {a * b}"], a * b
        text = f"A garden is {a} m long and {b} m wide. What is its area in square metres?"
    elif kind == 11:
        steps, answer = [f"{a} + {b} = {a + b}", f"{a + b} × 2 = {2 * (a + b)}"], 2 * (a + b)
        text = f"A field is {a} m long and {b} m wide. What is its perimeter in metres?"
    elif kind == 12:
        n = [rng.randint(1, 40) for _ in range(3)]
        n[2] += -sum(n) % 3
        steps, answer = [f"{n[0]} + {n[1]} + {n[2]} = {sum(n)}", f"{sum(n)} ÷ 3 = {sum(n) // 3}"], sum(n) // 3
        text = f"{who} scored {n[0]}, {n[1]} and {n[2]} points in three games. What is the average?"
    elif kind == 13:
        steps, answer = [f"{k} × {c} = {k * c}", f"{k * c} + {b} = {k * c + b}"], k * c + b
        text = f"{who} buys {k} bags of {c} {thing} and {b} {thing2}. How many things does {who} buy in all?"
    elif kind == 14:
        steps, answer = [f"{k} × {c} = {k * c}", f"{k * c + a} - {k * c} = {a}"], a
        text = f"{who} earned ${k * c + a}. She bought {k} {thing} for ${c} each. How many dollars are left?"
    else:
        x, y = rng.randint(-20, 200), rng.randint(2, 99)
        sign = rng.choice("+-×")
        answer = x + y if sign == "+" else x - y if sign == "-" else x * y
        steps, text = [f"{x} {sign} {y} = {answer}"], f"What is {x} {sign} {y}?"
    result = en_number(answer, 2)
    body = rng.choice(["; ".join(steps) + ".", "\n".join(steps), ". ".join(steps) + "."])
    return text, f"{body}\nThe answer is {result}."


def _vi_problem(rng: random.Random) -> tuple[str, str]:
    who, other = rng.sample(VI_NAMES, 2)
    thing = rng.choice(_VI_THINGS)
    a, b, c, k = rng.randint(3, 90), rng.randint(2, 60), rng.randint(2, 30), rng.randint(2, 12)
    price = 500 * rng.randint(2, 240)
    kind = rng.randrange(12)
    unit = thing
    places = 0
    if kind == 0:
        lines, answer = [f"{who} có tất cả số {thing} là: {a} + {b} = {a + b} ({thing})"], a + b
        text = f"{who} có {a} {thing}, mẹ cho thêm {b} {thing}. Hỏi {who} có tất cả bao nhiêu {thing}?"
    elif kind == 1:
        a += b
        lines, answer = [f"Số {thing} còn lại là: {a} - {b} = {a - b} ({thing})"], a - b
        text = f"{who} có {a} {thing}, {who} cho {other} {b} {thing}. Hỏi {who} còn lại bao nhiêu {thing}?"
    elif kind == 2:
        lines, answer = [f"Số {thing} có tất cả là: {c} x {k} = {c * k} ({thing})"], c * k
        text = f"Mỗi hộp có {c} {thing}. Hỏi {k} hộp như thế có bao nhiêu {thing}?"
    elif kind == 3:
        lines, answer = [f"Mỗi bạn được số {thing} là: {c * k} : {k} = {c} ({thing})"], c
        text = f"Có {c * k} {thing} chia đều cho {k} bạn. Hỏi mỗi bạn được bao nhiêu {thing}?"
    elif kind == 4:
        unit, answer = "đồng", price * k
        lines = [f"Số tiền phải trả là: {vi_number(price)} x {k} = {vi_number(answer)} (đồng)"]
        text = f"Một {thing} giá {vi_number(price)} đồng. Hỏi mua {k} {thing} hết bao nhiêu tiền?"
    elif kind == 5:
        unit, paid = "đồng", (price * k // 50_000 + rng.randint(1, 3)) * 50_000
        answer = paid - price * k
        lines = [
            f"Số tiền mua là: {vi_number(price)} x {k} = {vi_number(price * k)} (đồng)",
            f"Số tiền được trả lại là: {vi_number(paid)} - {vi_number(price * k)} = {vi_number(answer)} (đồng)",
        ]
        text = f"{who} mua {k} {thing}, mỗi {thing} giá {vi_number(price)} đồng. {who} đưa {vi_number(paid)} đồng. Hỏi được trả lại bao nhiêu?"
    elif kind == 6:
        unit, answer, places = "m", (a * 10 + c) / 10 + (b * 10 + k) / 10, 1
        lines = [f"Độ dài là: {vi_number(a + c / 10, 1)} + {vi_number(b + k / 10, 1)} = {vi_number(answer, 1)} (m)"]
        text = f"Một sợi dây dài {vi_number(a + c / 10, 1)} m, nối thêm {vi_number(b + k / 10, 1)} m. Hỏi sợi dây dài bao nhiêu mét?"
    elif kind == 7:
        unit, answer = "m²", a * b
        lines = [f"Diện tích là: {a} x {b} = {vi_number(answer)} (m²)"]
        text = f"Một mảnh vườn hình chữ nhật dài {a} m, rộng {b} m. Tính diện tích mảnh vườn."
    elif kind == 8:
        unit, answer = "m", 2 * (a + b)
        lines = [f"Chu vi là: ({a} + {b}) x 2 = {answer} (m)"]
        text = f"Một sân hình chữ nhật dài {a} m, rộng {b} m. Tính chu vi của sân."
    elif kind == 9:
        unit, answer = "km", a * k
        lines = [f"Quãng đường là: {a} x {k} = {vi_number(answer)} (km)"]
        text = f"Một xe đi mỗi giờ được {a} km. Hỏi trong {k} giờ xe đi được bao nhiêu ki-lô-mét?"
    elif kind == 10:
        answer = a * k + a
        lines = [
            f"Số {thing} của {other} là: {a} x {k} = {a * k} ({thing})",
            f"Cả hai có: {a} + {a * k} = {answer} ({thing})",
        ]
        text = f"{who} có {a} {thing}, {other} có gấp {k} lần. Hỏi cả hai bạn có bao nhiêu {thing}?"
    else:
        percent, base = rng.choice([5, 10, 20, 25, 50]), 20_000 * rng.randint(2, 40)
        cut = base * percent // 100
        unit, answer = "đồng", base - cut
        lines = [
            f"Số tiền giảm là: {vi_number(base)} x {percent} : 100 = {vi_number(cut)} (đồng)",
            f"Giá mới là: {vi_number(base)} - {vi_number(cut)} = {vi_number(answer)} (đồng)",
        ]
        text = f"Một món hàng giá {vi_number(base)} đồng, được giảm {percent}%. Hỏi giá mới là bao nhiêu?"
    body = "\n".join(lines)
    return text, f"{body}\nĐáp số: {vi_number(answer, places)} {unit}."


def _en_chat(rng: random.Random) -> Turns:
    name, city, thing, adjective = rng.choice(FIRST), rng.choice(CITIES), rng.choice(NOUNS), rng.choice(ADJECTIVES)
    thing2, n = rng.choice(NOUNS), rng.randint(2, 30)
    options: list[Callable[[], Turns]] = [
        lambda: [("user", f"Hello, my name is {name}."), ("assistant", f"Hello {name}! How can I help you today?"),
                 ("user", "What is my name?"), ("assistant", f"Your name is {name}.")],
        lambda: [("user", f"I live in {city} and I have a {adjective} {thing}. Where do I live?"),
                 ("assistant", f"You live in {city}."),
                 ("user", "And what do I have?"), ("assistant", f"You have a {adjective} {thing}.")],
        lambda: [("user", f"My {thing} is broken. Can I return it?"),
                 ("assistant", f"I am sorry to hear that your {thing} is broken. Yes, you can return it within {n} days. Please keep the receipt.")],
        lambda: [("user", f"Do you sell {adjective} {plural(thing)}?"),
                 ("assistant", f"Yes, we sell {adjective} {plural(thing)}. They cost {n} dollars each."),
                 ("user", "How much do two cost?"), ("assistant", f"Two cost {2 * n} dollars.")],
        lambda: [("user", "When are you open?"),
                 ("assistant", f"We are open from {n % 4 + 7} to {n % 5 + 17} every day. On Sunday we are closed.")],
        lambda: [("user", f"Where is my order {n}{n + 11}?"),
                 ("assistant", f"Your order {n}{n + 11} has been shipped to {city} and will arrive in {n % 6 + 2} days.")],
        lambda: [("user", f"Say the word {thing} three times."), ("assistant", f"{thing} {thing} {thing}")],
        lambda: [("user", f"Which is longer, the word {thing} or {thing2}?"),
                 ("assistant", f"The word {thing if len(thing) >= len(thing2) else thing2} is longer."
                  if len(thing) != len(thing2) else "They are equally long.")],
        lambda: [("user", f"I would like to book a table in {city} for {n} people."),
                 ("assistant", f"Of course. A table in {city} for {n} people. For which day and time?"),
                 ("user", f"Friday at {n % 5 + 5}, the name is {name}."),
                 ("assistant", f"Thank you, {name}. Your table for {n} people is booked on Friday at {n % 5 + 5}.")],
        lambda: [("user", "Thank you!"), ("assistant", rng.choice(["You are welcome!", "You are welcome. Have a nice day!"]))],
        lambda: [("user", f"Write a sentence with the words {thing} and {thing2}."),
                 ("assistant", f"The {thing} is next to the {adjective} {thing2}.")],
    ]  # fmt: skip
    return rng.choice(options)()


def _vi_chat(rng: random.Random) -> Turns:
    name, thing, n = rng.choice(VI_NAMES), rng.choice(_VI_THINGS), rng.randint(2, 30)
    price = vi_number(1000 * rng.randint(5, 900))
    options: list[Callable[[], Turns]] = [
        lambda: [("user", f"Xin chào, tôi tên là {name}."), ("assistant", f"Chào {name}! Tôi có thể giúp gì cho bạn?"),
                 ("user", "Tên tôi là gì?"), ("assistant", f"Bạn tên là {name}.")],
        lambda: [("user", f"Một {thing} giá bao nhiêu?"), ("assistant", f"Một {thing} giá {price} đồng ạ.")],
        lambda: [("user", "Cửa hàng mở cửa lúc mấy giờ?"),
                 ("assistant", f"Cửa hàng mở cửa từ {n % 4 + 7} giờ sáng đến {n % 4 + 6} giờ tối, kể cả chủ nhật.")],
        lambda: [("user", f"Đơn hàng {n}{n + 7} của tôi ở đâu?"),
                 ("assistant", f"Đơn hàng {n}{n + 7} đang được giao và sẽ đến trong {n % 6 + 2} ngày nữa.")],
        lambda: [("user", "Tôi muốn đổi hàng."),
                 ("assistant", f"Bạn có thể đổi hàng trong vòng {n} ngày. Vui lòng mang theo hóa đơn.")],
        lambda: [("user", "Cảm ơn bạn!"), ("assistant", "Không có gì. Chúc bạn một ngày tốt lành!")],
        lambda: [("user", f"Tôi có {n} {thing}. Bạn có biết tôi có bao nhiêu {thing} không?"),
                 ("assistant", f"Bạn có {n} {thing}.")],
    ]  # fmt: skip
    return rng.choice(options)()


def conversation(rng: random.Random) -> Turns:
    """One conversation that is not about SQL: half of them word problems, half chat; half of each Vietnamese."""
    pick = rng.random()
    if pick < 0.7:
        question, answer = _en_problem(rng) if rng.random() < 0.5 else _vi_problem(rng)
        turns = [("user", question), ("assistant", answer)]
        system = rng.choice(_VI_SYSTEM if "Đáp số" in answer else _EN_SYSTEM)
    else:
        turns = _en_chat(rng) if rng.random() < 0.6 else _vi_chat(rng)
        system = rng.choice(["", "", "You are a helpful assistant.", "Bạn là trợ lý hữu ích."])
    return [("system", system), *turns] if system else turns
