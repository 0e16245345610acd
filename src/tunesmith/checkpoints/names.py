"""Names and files as others wrote them: believed only when they cannot point outside their folder."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

MAX_FILES = 100_000
MAX_STEP = 2**53
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill")
"""Endings of files whose loading can run code, or unpack without bound."""
ARCHIVES = (".tar", ".tgz", ".gz", ".zip", ".xz", ".bz2", ".zst", ".7z", ".whl", ".egg")


class Unsafe(ValueError):
    """What came from outside is not what we write; the message says what is wrong with it."""


def checked_step(value: Any) -> int:
    """A number of optimizer steps. Raises `Unsafe`: `True`, `"NaN"`, 1e30 and -1 are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_STEP:
        raise Unsafe(f"its step is {str(value)[:40]!r}, which is no number of steps")
    return value


def checked_files(value: Any) -> dict[str, tuple[int, str]]:
    """Relative paths to (bytes, sha256), as a manifest lists them.

    Raises:
        Unsafe: a path that is absolute, climbs, is not normalised, or is the same as another on some file system; a
            size or digest that is none.
    """
    if not isinstance(value, Mapping):
        raise Unsafe("its manifest cannot be read (its list of files is none)")
    if len(value) > MAX_FILES:
        raise Unsafe(f"its manifest lists {len(value):,} files")
    files: dict[str, tuple[int, str]] = {}
    seen: dict[str, str] = {}
    for name, said in value.items():
        path = checked_path(name)
        if not (isinstance(said, list | tuple) and len(said) == 2):
            raise Unsafe(f"its manifest says nothing of the size and sha256 of {path}")
        size, sha = said
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**50:
            raise Unsafe(f"its manifest gives {path} a size of {str(size)[:40]!r}")
        if not isinstance(sha, str) or not _DIGEST.fullmatch(sha):
            raise Unsafe(f"its manifest gives {path} a sha256 that is none")
        for part in (path, *(str(p) for p in PurePosixPath(path).parents if str(p) != ".")):
            folded = unicodedata.normalize("NFC", part).casefold()
            if seen.setdefault(folded, part) != part:
                raise Unsafe(f"{part!r} and {seen[folded]!r} are one name on some file systems")
        files[path] = (size, sha)
    inside = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    if both := sorted(inside & set(files)):
        raise Unsafe(f"{both[0]!r} is both a file and a folder")
    return files


def checked_path(name: Any) -> str:
    """A relative, normalised POSIX path. Raises `Unsafe`."""
    if not isinstance(name, str) or not name or len(name) > 1024:
        raise Unsafe("a path in its manifest is empty, too long or no text")
    path = PurePosixPath(name)
    if path.is_absolute() or _DRIVE.match(name) or "\\" in name:
        raise Unsafe(f"{name!r} is not a path inside it")
    if ".." in path.parts or str(path) != name or name == ".":
        raise Unsafe(f"{name!r} leaves its folder or is not written plainly")
    if not name.isprintable():
        raise Unsafe(f"{name!r} holds characters that cannot be printed")
    return name


def plain_files(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its relative POSIX path, none of them reached through a link.

    Raises:
        Unsafe: a symbolic link, a named pipe, a device or a socket lies there; a pickle or an archive does.
    """
    if folder.is_symlink():
        raise Unsafe("it is a link")
    found: dict[str, Path] = {}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                name = path.relative_to(folder).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    raise Unsafe(f"{name} is a link")
                if stat.S_ISDIR(mode):
                    pending.append(path)
                elif stat.S_ISREG(mode):
                    found[name] = path
                else:
                    raise Unsafe(f"{name} is neither a file nor a folder (a pipe, a socket or a device)")
    return found


def refuse_code(names: Mapping[str, Any]) -> None:
    """Raise `Unsafe` for names of pickles and archives, which nothing of ours is."""
    for name in sorted(names):
        ending = PurePosixPath(name).suffix.lower()
        if ending in PICKLES:
            raise Unsafe(f"{name} is a pickle by its name: loading one can run code, and nothing we write is one")
        if ending in ARCHIVES:
            raise Unsafe(f"{name} is an archive by its name, and nothing we write is one")
