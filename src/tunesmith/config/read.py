"""A recipe file as a tree of values that know where they were written.

Reading is safe by construction: the parser's events become plain values here, so no tag can make an object, no anchor
can multiply a small file into a large one, and no key can be written twice. Scalars follow YAML 1.2 (`NO` and `on` are
words, `2e-4` is a number), because that is what people mean.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tunesmith.config.secrets import redact
from tunesmith.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000

PARSER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: the same events, ten times as fast."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written."""

    label: str
    """As `show` prints it: `recipe demo.yaml:12`, `override train.max_steps=3`."""
    place: str
    """As an error prints it: `recipes/sql/demo.yaml:12`."""
    folder: Path
    """What a relative path written there is relative to."""
    file: Path | None = None
    """The recipe; None for the command line and the environment."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a recipe, with its origin."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    origin: Origin
    text: str | None = None
    """A plain scalar as it was written: what a setting gets that wants a string (`revision: 0123`)."""

    def plain(self) -> Any:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The value under a key or list index, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and str(key).isdigit() and int(key) < len(self.value):
            return self.value[int(key)]
        return None

    def nearest(self, keys: tuple[str | int, ...]) -> Node:
        """The deepest value on the way to `keys`."""
        node = self
        for key in keys:
            found = node.child(key)
            if found is None:
                break
            node = found
        return node


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def resolve_plain(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 100:  # no number anyone writes; int() itself gives up at 4,300 digits
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1] in "fFnN" else text)
    return text


def read_bytes(path: Path, asked_by: str = "") -> bytes:
    """The bytes of a settings file: a regular file of at most 1 MB.

    Args:
        path: the file.
        asked_by: the place that names it (`recipe.yaml:3`), when that is another recipe.

    Raises:
        ConfigError: not found, not a file, not readable or too large.
    """
    place = asked_by or str(path)
    named = f"{path}: " if asked_by else ""
    try:
        # Non-blocking, and judged through the open descriptor: a pipe must neither hang us nor be swapped in.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
        remedy = (
            f"did you mean {path.parent / near[0]}?"
            if near
            else "give the path of a recipe, for example one in recipes/"
        )
        raise ConfigError(f"{named}there is no such file", place=place, remedy=remedy) from None
    except PermissionError:
        raise ConfigError(f"{named}no permission to read it", place=place, remedy=f"chmod u+r {path}") from None
    except (OSError, ValueError) as error:
        circle = isinstance(error, OSError) and error.errno == errno.ELOOP
        reason = "its symbolic links lead in a circle" if circle else getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{named}it cannot be opened: {reason}", place=place, remedy="give the path of a recipe"
        ) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                f"{named}this is {_kind(found.st_mode)}, not a file",
                place=place,
                remedy="give the path of a recipe, a YAML file",
            )
        if found.st_size > MAX_BYTES:
            raise ConfigError(
                f"{named}this file has {found.st_size:,} bytes, and settings at most {MAX_BYTES:,}; is it data?",
                place=place,
                remedy="give the recipe, and name the data in it under data.train",
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def decode(raw: bytes, place: str) -> str:
    """Text of a settings file. UTF-8 with or without a byte order mark, and UTF-16 with one.

    Raises:
        ConfigError: another encoding, or control characters, with the line.
    """
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"byte 0x{raw[error.start]:02x} is not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'}; "
            "the file was probably saved as Latin-1 or Windows-1252",
            place=f"{place}:{line}",
            remedy=f"save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 {place}",
        ) from None
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad:
        name = "a NUL byte" if bad.group() == "\0" else f"the control character U+{ord(bad.group()):04X}"
        raise ConfigError(
            f"{name} cannot stand in a recipe; is this a text file?",
            place=f"{place}:{text.count(chr(10), 0, bad.start()) + 1}",
            remedy="remove it",
        )
    return text


def parse(text: str, file: Path) -> Node:
    """The tree of a YAML text.

    Args:
        text: the file's content.
        file: its path, for places and as the base of relative paths.

    Raises:
        ConfigError: not YAML, empty, not a mapping, or using what recipes do not need (tags, several documents).
    """
    try:
        node = _Builder(text, file).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, file) from None
    if node is None or node.value is None:
        raise ConfigError(
            "the recipe is empty",
            place=f"{file}:1",
            remedy="start from one in recipes/, or run `tunesmith adopt OLD.yaml`",
        )
    if not isinstance(node.value, dict):
        raise ConfigError(
            f"a recipe is a mapping of settings, and this is {describe(node.plain())}",
            place=node.origin.place,
            remedy="write `key: value` lines, for example `task: chat`",
        )
    return node


def parse_value(text: str, origin: Origin) -> Node:
    """A value written on the command line or in the environment: a plain scalar, or YAML in brackets or quotes."""
    if text[:1] not in tuple("[{\"'"):
        return Node(resolve_plain(text.strip()), origin, text.strip())
    try:
        node = _Builder(text, Path(), origin).document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(
            f"the value is not YAML: {error.problem}", place=origin.place, remedy="check brackets and quotes"
        ) from None
    return node if node is not None else Node(None, origin)


def describe(value: Any) -> str:
    """A value in a message: short, and without secrets."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    text = redact(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "..."


class _Builder:
    """Turns the parser's events into nodes, one document a file."""

    def __init__(self, text: str, file: Path, origin: Origin | None = None) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=PARSER)
        self.file = file
        self.origin = origin
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        self.count = 0

    def document(self) -> Node | None:
        next(self.events)
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            return None
        node = self.node(next(self.events), 0, None)
        next(self.events)
        end = next(self.events)
        if not isinstance(end, yaml.StreamEndEvent):
            self.refuse(end, "a second document begins here (`---`)", "keep one document in a file")
        return node

    def at(self, event: Any) -> Origin:
        if self.origin is not None:
            return self.origin
        line = _line(event)
        return Origin(f"recipe {self.file.name}:{line}", f"{self.file}:{line}", self.file.parent, self.file)

    def refuse(self, event: Any, message: str, remedy: str) -> NoReturn:
        raise ConfigError(message, place=self.at(event).place, remedy=remedy)

    def node(self, event: Any, depth: int, key: Any) -> Node:
        """The node that begins with `event`; `key` is the event of its key, whose line is the node's."""
        self.grow(event, 1)
        if depth > MAX_DEPTH:
            self.refuse(event, f"nested more than {MAX_DEPTH} levels deep", "settings have at most four levels")
        origin = self.at(key or event)
        if isinstance(event, yaml.AliasEvent):
            known = self.anchors.get(str(event.anchor))
            if known is None:
                where = "inside itself" if event.anchor in self.anchors else "before it is defined"
                self.refuse(event, f"the alias *{event.anchor} is used {where}", f"define &{event.anchor} above")
            self.grow(event, known[1])
            return Node(known[0].value, origin, known[0].text)
        if event.tag is not None:
            self.refuse(event, f"the tag {event.tag} is not read: a recipe holds plain values", "remove the tag")
        before, anchor = self.count, event.anchor
        if anchor:
            self.anchors[anchor] = None
        if isinstance(event, yaml.MappingStartEvent):
            node = Node(self.mapping(depth), origin)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(item, depth + 1, None))
            node = Node(items, origin)
        elif event.implicit[0]:  # plain, not quoted
            node = Node(resolve_plain(event.value), origin, event.value)
        else:
            node = Node(event.value, origin)
        if anchor:
            self.anchors[anchor] = (node, self.count - before)
        return node

    def mapping(self, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None:
                self.refuse(key, "a key must be a plain word", "write `key: value`")
            name = key.value
            if name == "<<":
                self.refuse(
                    key, "merge keys (`<<`) are not read", "write `extends: other.yaml` at the top of the recipe"
                )
            if name in members:
                self.refuse(
                    key,
                    f"the key {describe(name)} is written twice, first in line {lines[name]}; only one value can count",
                    "remove one of the two",
                )
            lines[name] = _line(key)
            members[name] = self.node(next(self.events), depth + 1, key)
        return members

    def grow(self, event: Any, by: int) -> None:
        self.count += by
        if self.count > MAX_NODES:
            self.refuse(
                event, f"more than {MAX_NODES:,} values, aliases counted in full", "settings have some hundreds"
            )


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _syntax(error: yaml.MarkedYAMLError, text: str, file: Path) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return ConfigError(
            "the line is indented with a tab, and YAML allows only spaces",
            place=f"{file}:{line}",
            remedy="use two spaces a level",
        )
    if "nesting depth" in (error.problem or ""):  # the scanner reads ahead of us, and has a limit of its own
        return ConfigError(
            f"nested more than {MAX_DEPTH} levels deep",
            place=f"{file}:{line}",
            remedy="settings have at most four levels",
        )
    return ConfigError(
        f"this is not valid YAML: {error.problem or error.context}",
        place=f"{file}:{line}",
        remedy="check indentation, quotes and brackets in this line and the one above",
    )


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a socket"


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
