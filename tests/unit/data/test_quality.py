"""Which texts are fit to be learned from."""

from __future__ import annotations

import pytest

from tunesmith.data.payload import problem_fields, turns_of
from tunesmith.data.quality import masked, needs_image, unreadable


@pytest.mark.parametrize(
    "text",
    [
        "Tính chu vi hình chữ nhật có chiều dài 8,5 cm.",
        "5 + 3 × (2 − 1) = 8",
        "x < 3 và y > 2",
        "ÂM VANG ĐẤT NƯỚC",
        "naïve café – Ångström £5",
        "Ok",
    ],
)
def test_ordinary_texts_are_readable(text: str) -> None:
    assert unreadable(text) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("C\ufffd n\ufffdo", "lost"),
        ("a\x00b", "U+0000"),
        ("Tính chu vi hình chữ nhật".encode().decode("latin-1"), "wrong encoding"),
        ("Một cửa hàng bán được".encode().decode("cp1252", errors="ignore"), "wrong encoding"),
        ("<div>Tính</div>", "HTML"),
        ("?!?! ---- ==== //// ;;;; ....", "punctuation"),
        ("ababababababababababababababababababababab", "repeats"),
    ],
)
def test_what_makes_a_text_unreadable_is_said(text: str, why: str) -> None:
    assert why in unreadable(text)


@pytest.mark.parametrize(
    "text",
    [
        "Quan sát hình vẽ và trả lời",
        "Tính diện tích hình bên.",
        "Dựa vào biểu đồ sau, hãy cho biết",
        "Xem hình 3: đoạn thẳng AB dài bao nhiêu?",
        "What is the area in the figure below?",
        "See the diagram.",
        "![](tri.png) Find x",
        "<img src=a.png>",
    ],
)
def test_a_question_about_a_picture_is_recognised(text: str) -> None:
    assert needs_image(text)


@pytest.mark.parametrize(
    "text",
    [
        "Một hình chữ nhật có chiều dài 5 cm",
        "Diện tích hình tròn trên là bao nhiêu nếu bán kính là 3?".replace(" trên", ""),
        "An vẽ 3 bức tranh, Bình vẽ 4 bức tranh. Hỏi cả hai vẽ bao nhiêu bức?",
        "A picture frame is 30 cm wide.",
        "She took 12 photos of the sea.",
        "Cho hình thang ABCD có đáy lớn 12 cm",
    ],
)
def test_a_shape_or_a_painting_is_no_picture_that_is_missing(text: str) -> None:
    assert needs_image(text) == ""


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("gọi 0912345678 nhé", "gọi [phone] nhé"),
        ("gọi 0912 345 678.", "gọi [phone]."),
        ("+84 912 345 678", "[phone]"),
        ("viết cho an.le@shop.vn", "viết cho [email]"),
        ("thẻ 4111 1111 1111 1111", "thẻ [card]"),
        ("giá 15.000.000 đồng", "giá 15.000.000 đồng"),
        ("đơn 20260815 ngày 15/08/2026", "đơn 20260815 ngày 15/08/2026"),
        ("0,125 và 0.123456789", "0,125 và 0.123456789"),
        ("tổng 1234567890", "tổng 1234567890"),
    ],
)
def test_numbers_of_people_are_masked_and_amounts_are_not(text: str, mask: str) -> None:
    assert masked(text)[0] == mask


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"question": "q?", "solution": "s", "x": 1}, {"question": "q?", "solution": "s"}),
        ({"metadata": {"problem": "q?", "answer": 4}}, {"question": "q?", "answer": 4}),
        ({"content": "### QUESTION: q\nq2\n#### SOLUTION: s\ns2"}, {"question": "q\nq2", "solution": "s\ns2"}),
        ({"text": "Đề bài: q\nLời giải chi tiết: s"}, {"question": "q", "solution": "s"}),
        ({"text": "**Câu hỏi:** q\n**Đáp án:** s"}, {"question": "q", "solution": "s"}),
        ({"text": "no headings"}, {}),
    ],
)
def test_question_and_solution_are_found_where_they_are(fields: dict[str, object], found: dict[str, object]) -> None:
    assert problem_fields(fields, {}) == found


def test_a_text_is_a_transcript_only_where_it_begins_with_a_speaker() -> None:
    text = "[09:12] Customer: Hi\nmore\nAgent (Ann): Hello"
    assert turns_of({"text": text}, {}) == [
        {"role": "user", "content": "Hi\nmore"},
        {"role": "assistant", "content": "Hello"},
    ]
    assert turns_of({"text": "Notes.\nCustomer: Hi"}, {}) == []
    assert turns_of({"conversation": '[{"role": "user", "content": "x"}]'}, {}) == [{"role": "user", "content": "x"}]
