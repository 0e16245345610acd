"""What looks like a secret, and how to speak of it without repeating it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{8,}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,})")),
    ("a Google API key", re.compile(r"\bAIza[\w-]{30,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*")),
    ("a password in a URL", re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")),
    ("a password in a connection string", re.compile(r"\bpassword\s*=\s*[^\s;&]+", re.IGNORECASE)),
)

_NAMES = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|api_?key|access_?key|private_?key|token)$", re.IGNORECASE
)
_TOKENS_OF_A_TEXT = re.compile(
    r"(?:bos|eos|end|pad|unk|sep|cls|mask|image|audio|special|start|stop)_token$", re.IGNORECASE
)


_VARIABLES = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|PASS|SECRET|TOKEN|KEY|KEY_ID|CREDENTIALS?|AUTH)$", re.IGNORECASE
)
"""Environment variables whose values are secrets, by the end of their names."""
_PASSWORD = re.compile(r"://[^\s/:@]*:([^\s@]+)@")
_SHORTEST = 8
"""Characters below which a value is too common a word to hide."""


def find_secret(text: str) -> str | None:
    """What kind of secret the text holds (`a Hugging Face token`), or None."""
    for kind, shape in _SHAPES:
        if shape.search(text):
            return kind
    return None


def is_secret_name(key: str) -> bool:
    """Whether a key names a secret (`hub_token`, `password`), as opposed to a token of a text (`end_token`)."""
    return bool(_NAMES.search(key)) and not _TOKENS_OF_A_TEXT.search(key)


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """Values of variables that are secrets, by the variable's name or as a password in a URL; the longest first."""
    found: set[str] = set()
    for name, value in environ.items():
        if _VARIABLES.search(name) and not os.path.exists(value):
            found |= {value.strip(), *(line for line in value.split("\n") if not line.startswith("-----"))}
        for password in _PASSWORD.findall(value):
            found |= {password, unquote(password)}
    return sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)


def redact(text: str) -> str:
    """The text with every secret replaced by `***`: what looks like one, and what the environment holds as one."""
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """`redact` for many texts: the environment is read once, now."""
    hidden = secret_values(os.environ)

    def hide(text: str) -> str:
        for value in hidden:
            text = text.replace(value, "***")
        for _, shape in _SHAPES:
            text = shape.sub("***", text)
        return text

    return hide


class Redacting(logging.Formatter):
    """Writes log records without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redact(super().format(record))
