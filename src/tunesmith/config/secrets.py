"""What looks like a secret, and how to speak of it without repeating it."""

from __future__ import annotations

import re

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


def find_secret(text: str) -> str | None:
    """What kind of secret the text holds (`a Hugging Face token`), or None."""
    for kind, shape in _SHAPES:
        if shape.search(text):
            return kind
    return None


def is_secret_name(key: str) -> bool:
    """Whether a key names a secret (`hub_token`, `password`), as opposed to a token of a text (`end_token`)."""
    return bool(_NAMES.search(key)) and not _TOKENS_OF_A_TEXT.search(key)


def redact(text: str) -> str:
    """The text with every secret replaced by `***`."""
    for _, shape in _SHAPES:
        text = shape.sub("***", text)
    return text
