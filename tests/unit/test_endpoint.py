"""A model behind an address, against a real server on this machine."""

from __future__ import annotations

from typing import Any

import pytest
from emulator import completion

from tunesmith import endpoint as module
from tunesmith.endpoint import Endpoint
from tunesmith.errors import ConfigError, ModelError
from tunesmith.types import Message

QUESTION = (Message("system", "Be brief."), Message("user", "How many?"))


def test_answers_come_in_the_order_of_the_questions(serve: Any) -> None:
    server = serve(lambda body, _: (200, completion(body["messages"][-1]["content"] + "!"), {}))
    there = Endpoint.parse(f"{server.url}#small", environ={})
    told: list[int] = []
    replies = there.ask_many(
        [(Message("user", f"q{i}"),) for i in range(30)], max_tokens=5, seed=3, progress=told.append
    )
    assert [one.text for one in replies] == [f"q{i}!" for i in range(30)]
    assert sum(told) == 30
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("small", 5, 0.0, 3)


def test_an_answer_at_the_length_limit_did_not_stop(serve: Any) -> None:
    server = serve(lambda *_: (200, completion("a b c", "length"), {}))
    assert Endpoint(server.url, "m").ask(QUESTION, max_tokens=3) == ("a b c", False, 3, 7)


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(serve: Any) -> None:
    busy = serve(lambda _, n: (429, {}, {"Retry-After": "0"}) if n < 3 else (200, completion("x"), {}))
    assert Endpoint(busy.url, "m").ask(QUESTION, max_tokens=3).text == "x"
    assert len(busy.asked) == 3
    refusing = serve(lambda *_: (400, {"error": "too long"}, {}))
    with pytest.raises(ModelError, match="too long"):
        Endpoint(refusing.url, "m").ask(QUESTION, max_tokens=3)
    assert len(refusing.asked) == 1


def test_a_server_that_never_answers_is_named_after_all_tries(serve: Any) -> None:
    server = serve(lambda *_: (503, {}, {}))
    with pytest.raises(ModelError, match="no answer in 5 tries: 503"):
        Endpoint(server.url, "m").ask(QUESTION, max_tokens=3)
    assert len(server.asked) == 5
    server.close()
    with pytest.raises(ModelError, match="refused"):
        Endpoint(server.url, "m", tries=2).ask(QUESTION, max_tokens=3)


def test_a_key_is_sent_is_never_shown_and_does_not_follow_a_redirect(serve: Any) -> None:
    elsewhere = serve(lambda *_: (200, completion("x"), {}))
    server = serve(lambda *_: (302, {}, {"Location": elsewhere.url}))
    there = Endpoint.parse(f"{server.url}#m", "env:MINE", {"MINE": "very-secret"})
    assert "very-secret" not in repr(there)
    with pytest.raises(ConfigError) as error:
        there.ask(QUESTION, max_tokens=3)
    assert "very-secret" not in str(error.value)
    assert server.asked[0][1]["Authorization"] == "Bearer very-secret"
    assert elsewhere.asked == []


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_is_a_wrong_setting(serve: Any, code: int) -> None:
    server = serve(lambda *_: (code, {}, {}))
    with pytest.raises(ConfigError, match="refuses the key"):
        Endpoint(server.url, "m").ask(QUESTION, max_tokens=3)


def test_the_only_model_of_a_server_needs_no_name(serve: Any) -> None:
    one = serve(lambda *_: (200, {"data": [{"id": "only"}]}, {}))
    assert Endpoint(one.url).resolved().model == "only"
    two = serve(lambda *_: (200, {"data": [{"id": "a"}, {"id": "b"}]}, {}))
    with pytest.raises(ConfigError, match="a, b"):
        Endpoint(two.url).resolved()


def test_what_is_no_chat_completion_is_shown(serve: Any) -> None:
    server = serve(lambda *_: (200, {"hello": 1}, {}))
    with pytest.raises(ModelError, match="hello"):
        Endpoint(server.url, "m").ask(QUESTION, max_tokens=3)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("localhost:8000", None, "not the address"),
        ("https://", None, "not the address"),
        ("https://me:secret@host/v1#m", None, "holds a password"),
        ("https://host/v1#m", "sk-abc", "never written out"),
        ("https://host/v1#m", "env:NOWHERE", "NOWHERE is not set"),
    ],
)
def test_a_wrong_address_or_key_is_refused(text: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoint.parse(text, key, {})


def test_openais_key_goes_to_openai_alone() -> None:
    known = {"OPENAI_API_KEY": "theirs"}
    assert Endpoint.parse("https://api.openai.com/v1#m", environ=known).key == "theirs"
    assert Endpoint.parse("https://elsewhere.example/v1#m", environ=known).key == ""
    assert Endpoint.parse("https://elsewhere.example/v1#m", environ={module.KEY: "own"}).key == "own"


def test_tool_calls_are_written_as_the_protocol_wants_them(serve: Any) -> None:
    server = serve(lambda *_: (200, completion("x"), {}))
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"id": 7}}}
    turns = (
        Message("user", "?"),
        Message("assistant", "", extra={"tool_calls": [call]}),
        Message("tool", "{}", extra={"tool_call_id": "call_0"}),
    )
    Endpoint(server.url, "m").ask(turns, max_tokens=3)
    sent = server.asked[0][2]["messages"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"id": 7}'
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "call_0"
