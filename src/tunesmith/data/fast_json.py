"""JSON as bytes by orjson; what orjson does not know, Python's own library writes behind a blank.

orjson writes no integer of more than 64 bits, no key that is a number and no half of a character pair, and reads such
an integer as a float. JSON allows a blank before a value, so the bytes say themselves who must read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson


def dumps(value: Any, *, default: Callable[[Any], Any] | None = None, option: int = 0, halves: bool = False) -> bytes:
    """A value as JSON.

    Args:
        value: what to write.
        default: what to write instead of a value that JSON does not know.
        option: orjson's; of these, `OPT_SORT_KEYS` holds for Python's library, too.
        halves: write halves of character pairs as escapes, instead of refusing them.

    Raises:
        TypeError: it holds something that JSON does not know.
        UnicodeEncodeError: it holds half of a character pair.
        RecursionError: it is nested too deeply.
    """
    try:
        return orjson.dumps(value, default=default, option=option)
    except orjson.JSONEncodeError:
        sort = bool(option & orjson.OPT_SORT_KEYS)
        return b" " + json.dumps(value, default=default, sort_keys=sort, ensure_ascii=halves).encode()


def loads(text: bytes) -> Any:
    """What `dumps` wrote."""
    return json.loads(text) if text.startswith(b" ") else orjson.loads(text)
