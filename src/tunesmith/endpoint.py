"""A model behind an OpenAI-compatible address: what is compared with, and what judges.

The standard library's HTTP client is enough for one JSON request and its retries, so nothing else is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tunesmith.errors import ConfigError, ModelError
from tunesmith.types import Message

KEY = "TUNESMITH_ENDPOINT_KEY"
"""Variable with the key that is sent where none is named. `OPENAI_API_KEY` is sent to OpenAI alone."""
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers of a server that a later try may not get."""
_LONGEST_WAIT = 60.0
_ADDRESS = re.compile(r"^https?://[^\s#]+$")


class Reply(NamedTuple):
    """What the model wrote."""

    text: str
    stopped: bool
    """Whether it ended by itself, rather than at the length limit."""
    tokens: int
    """Tokens written, as the server counts them; 0 where it does not say."""
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers."""

    url: str
    """Base address, `https://host/v1`."""
    model: str = ""
    """Its name there; empty takes the only one the server lists."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token; never shown."""
    timeout: float = 120.0
    """Seconds for one answer."""
    tries: int = 5
    """Attempts for one answer, where the server is busy or cannot be reached."""
    parallel: int = 8
    """Questions asked at the same time."""

    @classmethod
    def parse(cls, text: str, key: str | None = None, environ: Mapping[str, str] | None = None) -> Endpoint:
        """An endpoint from `https://host/v1#model`.

        Args:
            text: address and, after `#`, the model's name.
            key: `env:NAME`, a variable that holds the key; None takes `TUNESMITH_ENDPOINT_KEY`, where it is set.
            environ: where variables are looked up; None is the process's own.

        Raises:
            ConfigError: not an address, a key in the open, or a variable that is not set.
        """
        environ = os.environ if environ is None else environ
        url, _, model = text.partition("#")
        parts = urllib.parse.urlsplit(url)
        if not _ADDRESS.match(url) or not parts.hostname:
            raise ConfigError(
                f"{text!r} is not the address of a model", remedy="write it as https://host/v1#name-of-the-model"
            )
        if parts.username or parts.password:
            raise ConfigError(
                "the address holds a password", place=parts.hostname, remedy="put it into a variable: key env:NAME"
            )
        if key is not None and not key.startswith("env:"):
            raise ConfigError("a key is named, never written out", place="key", remedy="use env:NAME_OF_THE_VARIABLE")
        if key is not None and not environ.get(key.removeprefix("env:")):
            raise ConfigError(
                f"the variable {key.removeprefix('env:')} is not set", place=f"key {key}", remedy="export it"
            )
        if key is not None:
            secret = environ[key.removeprefix("env:")]
        else:
            secret = environ.get(KEY, "")
            if not secret and parts.hostname == "api.openai.com":
                secret = environ.get("OPENAI_API_KEY", "")
        return cls(url.rstrip("/"), model, secret)

    def resolved(self) -> Endpoint:
        """The same with the model's name filled in: the only one that the server lists.

        Raises:
            ConfigError: the server lists none or several.
            ModelError: it cannot be reached.
        """
        if self.model:
            return self
        listed = self._request("/models", None).get("data") or []
        names = [str(one.get("id")) for one in listed if isinstance(one, Mapping)]
        if len(names) != 1:
            found = ", ".join(names[:10]) or "none"
            raise ConfigError(
                f"which model? The server lists {found}", place=self.url, remedy=f"write {self.url}#name-of-the-model"
            )
        return replace(self, model=names[0])

    def ask(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> Reply:
        """The answer to one conversation.

        Raises:
            ConfigError: the key or the model's name is refused.
            ModelError: no answer after all tries.
        """
        body = {
            "model": self.model,
            "messages": [_turn(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        found = self._request("/chat/completions", body)
        try:
            choice = found["choices"][0]
            text = choice["message"].get("content") or ""
            usage = found.get("usage") or {}
            return Reply(
                str(text),
                choice.get("finish_reason") != "length",
                int(usage.get("completion_tokens") or 0),
                int(usage.get("prompt_tokens") or 0),
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the server's answer is no chat completion: {json.dumps(found)[:200]}",
                place=self.url,
                remedy="the address must be OpenAI-compatible and usually ends in /v1",
            ) from error

    def ask_many(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """The answers to many conversations in their order, `parallel` at a time. Raises as `ask` does."""

        def one(messages: Sequence[Message]) -> Reply:
            reply = self.ask(messages, max_tokens=max_tokens, temperature=temperature, seed=seed)
            if progress is not None:
                progress(1)
            return reply

        pool = ThreadPoolExecutor(self.parallel)
        try:
            return list(pool.map(one, conversations))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # one that failed must not leave the rest to be paid for

    # --- inside -------------------------------------------------------------------------------------------------

    def _request(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "tunesmith"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        last = ""
        for attempt in range(self.tries):
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            wait = min(_LONGEST_WAIT, 0.5 * 2**attempt) * (1 + random.random() / 4)
            try:
                with _OPENER.open(request, timeout=self.timeout) as response:
                    found = json.loads(response.read())
                if isinstance(found, dict):
                    return found
                last = "it answered with something that is not an object"
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(500).decode("utf-8", errors="replace").strip()
                if error.code not in _AGAIN:
                    raise self._refused(error.code, said) from error
                last = f"{error.code} {said}"[:200]
                wait = _retry_after(error.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException, ValueError) as error:
                last = str(getattr(error, "reason", error)) or type(error).__name__
            if attempt + 1 < self.tries:
                time.sleep(wait)
        raise ModelError(
            f"the model gave no answer in {self.tries} tries: {last}",
            place=self.url,
            remedy="check that the server runs and the address is right",
        )

    def _refused(self, code: int, said: str) -> ConfigError | ModelError:
        if code in (401, 403):
            return ConfigError(
                f"the server refuses the key ({code})", place=self.url, remedy=f"set {KEY}, or name another variable"
            )
        if code in (404, 405) or 300 <= code < 400:
            return ConfigError(
                f"the server knows no such address or model ({code}): {said[:200]}",
                place=f"{self.url}#{self.model}",
                remedy="check both; the address usually ends in /v1",
            )
        return ModelError(
            f"the server refuses the question ({code}): {said[:200]}",
            place=self.url,
            remedy="lower generate.max_new_tokens, or see what the server says",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _turn(message: Message) -> dict[str, Any]:
    """A message as the protocol writes it: tool calls have their arguments as a text of JSON and need an id."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    calls = message.extra.get("tool_calls")
    if isinstance(calls, list):
        turn["tool_calls"] = [_call(call, at) for at, call in enumerate(calls)]
    for key in ("tool_call_id", "name"):
        if message.extra.get(key) is not None:
            turn[key] = message.extra[key]
    return turn


def _call(call: Any, at: int) -> Any:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = dict(call["function"])
    if not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {"id": call.get("id") or f"call_{at}", "type": "function", "function": function}


def _retry_after(header: str | None, otherwise: float) -> float:
    try:
        return min(_LONGEST_WAIT, max(0.0, float(header))) if header else otherwise
    except ValueError:
        return otherwise
