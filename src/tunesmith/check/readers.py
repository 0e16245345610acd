"""Which line of the package reads a setting: for those that act before or after training, and to find those that
nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.config.schema import Section

_PACKAGE = Path(__file__).resolve().parents[1]
_NOT_CODE = re.compile(
    r'"""[\s\S]*?"""|#[^\n]*|(?<![\w])[fFrRbB]{0,2}"(?:[^"\\\n]|\\.)*"|(?<![\w])[fFrRbB]{0,2}\'(?:[^\'\\\n]|\\.)*\''
)
_READ = re.compile(r"([A-Za-z_][\w.\]\[()]*)\.(\w+)\b(?!\s*\()")
_CHOOSE = frozenset({"schema_version", "task.name", "train.method", "exports.format"})
"""Words that choose a section of the schema; the section is what is read."""
_OWNERS = frozenset({
    "config", "settings", "wanted", "_config", "_settings", "_task", "_wanted", "task", "source", "limits", "self",
    "export_config", "export",
})  # fmt: skip
"""Names that the code gives to a section it was handed."""


def find_readers(keys: Iterable[Sequence[str]]) -> dict[tuple[str, ...], str]:
    """For each key, as names of schema fields, `file:line` of code that reads it; one that nothing reads is left out.

    The rooms `config` and `check` do not count: they know every setting and act on none. Of a section in the schema its
    properties do (`Limits.hours`).
    """
    reads = _reads()
    found = {}
    for key in map(tuple, keys):
        *sections, name = key
        if ".".join(key) in _CHOOSE:
            found[key] = "config/load.py, which takes the alternative it names"
        elif best := max(reads.get(name, ()), key=lambda read: _likeness(read, sections), default=None):
            found[key] = best[1]
    return found


def fields_of(config: Section, key: Sequence[str | int]) -> tuple[str, ...]:
    """The schema fields on the way to a leaf, without names that the user chose and numbers in a list.

    `("data", "test", "mine", "path")` is `data.test.path`, `("task", "databases", "shop")` is `task.databases`.
    """
    fields: list[str] = []
    value: Any = config
    for part in key:
        if isinstance(value, Section):
            fields.append(str(part))
            value = getattr(value, str(part))
        else:
            value = value[part]
    return tuple(fields)


def _likeness(read: tuple[str, str], sections: list[str]) -> tuple[int, bool]:
    """How surely a read is of this section: by its name, or by one that a section is given where it is handed over;
    among equals, whether it stands in the room that the section is of (`exports` in `export/`)."""
    owner, place = read
    parts = re.split(r"\W+", owner)
    own_room = bool(sections) and place.startswith(sections[0].rstrip("s"))
    if sections and parts[-1] == sections[-1]:
        return 3, own_room
    if sections and any(part in sections for part in parts):
        return 2, own_room
    return (1 if parts[-1] in _OWNERS else 0), own_room


@cache
def _reads() -> dict[str, list[tuple[str, str]]]:
    """Attribute name to (what it was read from, `file:line`)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file in sorted(_PACKAGE.rglob("*.py")):
        room = file.relative_to(_PACKAGE).parts[0]
        if room == "check" or (room == "config" and file.parent.name != "schema"):
            continue
        code = _NOT_CODE.sub(lambda m: "\n" * m.group().count("\n"), file.read_text(encoding="utf-8"))
        if room == "config":
            code = _properties(code)
        for number, line in enumerate(code.splitlines(), 1):
            for match in _READ.finditer(line):
                if not line[match.end() :].lstrip().startswith(("= ", ": ")):
                    place = f"{file.relative_to(_PACKAGE).as_posix()}:{number}"
                    found.setdefault(match.group(2), []).append((match.group(1), place))
    return found


def _properties(code: str) -> str:
    """The bodies of properties alone, on their lines."""
    kept, inside = [], False
    for line in code.splitlines():
        if line.strip() == "@property":
            inside = True
        elif inside and line.startswith("    @") or (line and not line.startswith(" ")):
            inside = False
        kept.append(line if inside else "")
    return "\n".join(kept)
