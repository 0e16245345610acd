# ruff: noqa: E501  sentences are easier to read unbroken
"""Support dialogues of a made-up shop: requests that need a tool, what to do with its result, and plain questions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Language = Literal["en", "vi"]

TOOLS: list[dict[str, Any]] = [
    {"name": "get_order", "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}},
    {"name": "cancel_order", "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}},
    {"name": "check_stock", "parameters": {"type": "object", "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}}, "required": ["item"]}},
    {"name": "book_visit", "parameters": {"type": "object", "properties": {"day": {"type": "string"}, "hour": {"type": "integer", "minimum": 8, "maximum": 18}}, "required": ["day", "hour"]}},
    {"name": "set_address", "parameters": {"type": "object", "properties": {"order": {"type": "string"}, "city": {"type": "string"}}, "required": ["order", "city"]}},
]  # fmt: skip
"""The shop's tools, as JSON Schema."""
_SIGNATURES = ", ".join(f"{tool['name']}({', '.join(tool['parameters']['properties'])})" for tool in TOOLS)
SYSTEM = {
    "en": f'You help the customers of a shop. To use a tool, write only {{"name": "...", "arguments": {{...}}}}. Tools: {_SIGNATURES}. Open 8 to 18, closed on Sunday. Returns within 14 days. Delivery costs $5.',
    "vi": f'Bạn hỗ trợ khách của cửa hàng. Để dùng công cụ, chỉ viết {{"name": "...", "arguments": {{...}}}}. Công cụ: {_SIGNATURES}. Mở cửa 8 giờ đến 18 giờ, nghỉ chủ nhật. Đổi trả trong 14 ngày. Phí giao hàng 30.000 đồng.',
}
"""One system message a language, so that all dialogues share a prefix."""
_ITEMS = {"en": "lamp|chair|desk|kettle|clock|mirror|basket|blanket|teapot|vase|shelf|rug".split("|"),
          "vi": "đèn bàn|ghế gỗ|bàn học|ấm nước|đồng hồ|gương|giỏ mây|chăn|bình trà|lọ hoa|kệ sách|thảm".split("|")}  # fmt: skip
_CITIES = {"en": "Leeds|Bristol|Cardiff|Dublin|Galway|Oxford|York|Bath|Derby|Exeter".split("|"),
           "vi": "Hà Nội|Huế|Đà Nẵng|Cần Thơ|Hải Phòng|Vinh|Nha Trang|Đà Lạt|Quy Nhơn|Pleiku".split("|")}  # fmt: skip
_DAYS = {"en": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday".split("|"),
         "vi": "thứ hai|thứ ba|thứ tư|thứ năm|thứ sáu|thứ bảy".split("|")}  # fmt: skip
HELLO = {"en": ["", "", "Hello, ", "Hi, "], "vi": ["", "", "Chào shop, ", "Shop ơi, "]}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns after the system message, user first; the last is the assistant's and is the one graded."""

    turns: tuple[str, ...]
    include: tuple[str, ...] = ()
    """What the last turn must say, where it is no tool call."""


class Draw:
    """Draws what a dialogue is about, in one language."""

    def __init__(self, rng: random.Random, language: Language) -> None:
        self.rng = rng
        self.vi = language == "vi"
        self.order = f"{rng.choice('ABCDEFGHKM')}{rng.randint(100, 999)}"
        self.item, self.city, self.day = (rng.choice(words[language]) for words in (_ITEMS, _CITIES, _DAYS))
        self.count, self.hour, self.days = rng.randint(2, 9), rng.randint(8, 18), rng.randint(2, 9)
        self.hello = rng.choice(HELLO[language])

    def say(self, english: list[str], vietnamese: list[str]) -> str:
        """One of the phrasings, with a greeting now and then and a capital at its start."""
        text = self.hello + self.rng.choice(vietnamese if self.vi else english)
        return text[0].upper() + text[1:]

    def result(self, value: dict[str, Any]) -> str:
        """What a tool gave, as the next user turn: templates without a tool role can say it too."""
        return f"{'Kết quả' if self.vi else 'Result'}: {json.dumps(value, ensure_ascii=False)}"


def call(name: str, **arguments: Any) -> str:
    """A tool call as the model must write it."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


Kind = Callable[[Draw], Dialogue]


def _ask_order(d: Draw) -> tuple[str, str]:
    asked = d.say(
        [
            f"where is my order {d.order}?",
            f"when does order {d.order} arrive?",
            f"I am still waiting for {d.order}, where is it?",
        ],
        [
            f"đơn hàng {d.order} của tôi ở đâu?",
            f"bao giờ đơn {d.order} đến nơi?",
            f"tôi vẫn đang chờ đơn {d.order}, đơn ở đâu rồi?",
        ],
    )
    return asked, call("get_order", order=d.order)


def _order(d: Draw) -> Dialogue:
    return Dialogue(_ask_order(d))


def _order_on_its_way(d: Draw) -> Dialogue:
    told = (
        f"Đơn {d.order} đang ở {d.city} và sẽ đến trong {d.days} ngày."
        if d.vi
        else f"Order {d.order} is in {d.city} and arrives in {d.days} days."
    )
    result = d.result({"order": d.order, "city": d.city, "days": d.days})
    return Dialogue((*_ask_order(d), result, told), (d.order, d.city, str(d.days)))


def _order_unknown(d: Draw) -> Dialogue:
    told = (
        f"Tôi không tìm thấy đơn {d.order}. Bạn kiểm tra lại mã đơn giúp nhé."
        if d.vi
        else f"I cannot find order {d.order}. Please check the number."
    )
    return Dialogue(
        (*_ask_order(d), d.result({"order": d.order, "error": "unknown"}), told),
        (d.order, "không tìm thấy" if d.vi else "cannot find"),
    )


def _ask_cancel(d: Draw) -> tuple[str, str]:
    asked = d.say(
        [
            f"please cancel order {d.order}.",
            f"I do not want {d.order} any more, cancel it.",
            f"can you stop order {d.order}?",
        ],
        [
            f"hủy giúp tôi đơn {d.order}.",
            f"tôi không cần đơn {d.order} nữa, hủy nhé.",
            f"shop dừng đơn {d.order} được không?",
        ],
    )
    return asked, call("cancel_order", order=d.order)


def _cancel(d: Draw) -> Dialogue:
    return Dialogue(_ask_cancel(d))


def _cancelled(d: Draw) -> Dialogue:
    amount = f"{d.count * 50}.000 đồng" if d.vi else f"${d.count * 5}"
    told = (
        f"Đơn {d.order} đã hủy. Bạn được hoàn {amount}."
        if d.vi
        else f"Order {d.order} is cancelled. You get {amount} back."
    )
    return Dialogue((*_ask_cancel(d), d.result({"order": d.order, "refund": amount}), told), (d.order, amount))


def _stock(d: Draw) -> Dialogue:
    asked = d.say(
        [f"do you have {d.count} of the {d.item}?", f"I need {d.count} of your {d.item}, are they in stock?"],
        [f"shop có đủ {d.count} cái {d.item} không?", f"tôi cần {d.count} cái {d.item}, còn hàng không?"],
    )
    return Dialogue((asked, call("check_stock", item=d.item, count=d.count)))


def _in_stock(d: Draw) -> Dialogue:
    asked = d.say(
        [f"is the {d.item} in stock?", f"do you still have the {d.item}?"],
        [f"{d.item} còn hàng không?", f"shop còn {d.item} không?"],
    )
    told = f"Dạ còn {d.count} cái {d.item}." if d.vi else f"Yes, we have {d.count} of the {d.item}."
    return Dialogue(
        (asked, call("check_stock", item=d.item), d.result({"item": d.item, "left": d.count}), told),
        (d.item, str(d.count)),
    )


def _visit(d: Draw) -> Dialogue:
    asked = d.say(
        [f"I would like to come on {d.day} at {d.hour}.", f"can I book a visit for {d.day}, {d.hour} o'clock?"],
        [f"tôi muốn đến vào {d.day} lúc {d.hour} giờ.", f"đặt lịch cho tôi {d.day}, {d.hour} giờ nhé."],
    )
    return Dialogue((asked, call("book_visit", day=d.day, hour=d.hour)))


def _visit_booked(d: Draw) -> Dialogue:
    asked, made = _visit(d).turns
    told = (
        f"Đã đặt lịch {d.day} lúc {d.hour} giờ. Hẹn gặp bạn."
        if d.vi
        else f"You are booked for {d.day} at {d.hour}. See you then."
    )
    return Dialogue((asked, made, d.result({"day": d.day, "hour": d.hour, "booked": True}), told), (d.day, str(d.hour)))


def _address(d: Draw) -> Dialogue:
    asked = d.say(
        [f"please send order {d.order} to {d.city} instead.", f"change the address of {d.order} to {d.city}."],
        [f"giao đơn {d.order} đến {d.city} giúp tôi.", f"đổi địa chỉ đơn {d.order} sang {d.city}."],
    )
    return Dialogue((asked, call("set_address", order=d.order, city=d.city)))


def _address_missing(d: Draw) -> Dialogue:
    asked = d.say(
        [f"I have moved to {d.city}, change my address.", f"please deliver to {d.city} from now on."],
        [f"tôi đã chuyển đến {d.city}, đổi địa chỉ giúp tôi.", f"từ nay giao đến {d.city} nhé."],
    )
    told = (
        f"Bạn cho tôi mã đơn để giao đến {d.city} nhé."
        if d.vi
        else f"Which order should go to {d.city}? Please give me its number."
    )
    return Dialogue((asked, told), (d.city, "mã đơn" if d.vi else "number"))


def _address_given(d: Draw) -> Dialogue:
    asked, told = _address_missing(d).turns
    return Dialogue((asked, told, d.order, call("set_address", order=d.order, city=d.city)))


def _returns(d: Draw) -> Dialogue:
    asked = d.say(
        [f"can I return the {d.item}?", f"how long may I send back the {d.item}?"],
        [f"tôi đổi {d.item} được không?", f"{d.item} được đổi trả trong bao lâu?"],
    )
    told = f"Bạn có thể đổi trả {d.item} trong 14 ngày." if d.vi else f"You can return the {d.item} within 14 days."
    return Dialogue((asked, told), (d.item, "14"))


def _delivery(d: Draw) -> Dialogue:
    asked = d.say(
        [f"what does delivery to {d.city} cost?", f"how much is it to send something to {d.city}?"],
        [f"phí giao hàng đến {d.city} bao nhiêu?", f"giao đến {d.city} hết bao nhiêu tiền?"],
    )
    told = f"Phí giao hàng đến {d.city} là 30.000 đồng." if d.vi else f"Delivery to {d.city} costs $5."
    return Dialogue((asked, told), (d.city, "30.000 đồng" if d.vi else "$5"))


def _sunday(d: Draw) -> Dialogue:
    asked = d.say(
        [f"can I pick up the {d.item} on Sunday?", f"are you open on Sunday? I want to see the {d.item}."],
        [f"chủ nhật tôi đến lấy {d.item} được không?", f"chủ nhật shop có mở không? Tôi muốn xem {d.item}."],
    )
    told = (
        f"Chủ nhật cửa hàng nghỉ. Mời bạn đến xem {d.item} ngày khác."
        if d.vi
        else f"We are closed on Sunday. Please come for the {d.item} on another day."
    )
    return Dialogue((asked, told), ("nghỉ" if d.vi else "closed", d.item))


KINDS: dict[str, Kind] = {
    "order": _order, "order_on_its_way": _order_on_its_way, "order_unknown": _order_unknown, "cancel": _cancel,
    "cancelled": _cancelled, "stock": _stock, "in_stock": _in_stock, "visit": _visit, "visit_booked": _visit_booked,
    "address": _address, "address_missing": _address_missing, "address_given": _address_given, "returns": _returns,
    "delivery": _delivery, "sunday": _sunday,
}  # fmt: skip
"""Every kind of dialogue by its name."""
