"""Which names are mirrored: ignore rules in gitignore syntax, reserved names, names that fold.

An ignored path is invisible on both sides: it is neither sent nor deleted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from skynet.errors import ConfigError
from skynet.target import printable
from skynet.tree import name

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

RESERVED = b".skynet"  # at the root of both sides
STRAY_TEMP = b".skynet-tmp-"  # begins temporary names outside the reserved directory
PARKED = b".skynet-parked-"  # begins names in the root, while names are exchanged
IGNORE_FILE = b".skynetignore"

# In brackets, a class as [:digit:] or a backslash: gitignore syntax that the library does not have.
_NOT_UNDERSTOOD = re.compile(r"(?<!\\)\[[!^]?\]?[^\]]*?(\[:\w+:\]|\\).*\]")
_IN_TRASH = re.compile(re.escape(RESERVED) + rb"/trash/[0-9A-Za-z-]{1,100}/(.+)", re.DOTALL)


class Rules:
    """Decides what is invisible. `patterns` are lines of gitignore syntax, later ones win."""

    def __init__(self, patterns: Iterable[str] = (), where: str = "ignore") -> None:
        lines = list(patterns)
        self._spec = _compiled(lines, where) if lines else None

    def hides(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether the path is invisible; its parent is known to be visible."""
        if is_reserved(path):
            return True
        if self._spec is None:
            return False
        text = path.decode("utf-8", "surrogateescape")
        return self._spec.match_file(text + "/" if is_dir else text)


def _compiled(lines: list[str], where: str) -> GitIgnoreSpec | None:
    """What matches the patterns; None if there are only comments."""
    from pathspec import GitIgnoreSpec  # a tenth of the time to start, and most mirrors have none
    from pathspec.patterns.gitignore import GitIgnorePatternError

    for line in lines:
        if not line.startswith("#") and (found := _NOT_UNDERSTOOD.search(line)):
            raise ConfigError(
                f"{where} holds the pattern {printable(line)}. skynet does not understand "
                f"{printable(found[1])} in brackets, and would leave out other files than are "
                "meant. Write the characters themselves, as [0-9]."
            )
    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except (GitIgnorePatternError, ValueError) as error:
        raise ConfigError(
            f"{where} holds a pattern that is not gitignore syntax: {error}. "
            "Correct or remove that line."
        ) from None
    return spec if len(spec) else None


def is_reserved(path: bytes) -> bool:
    """Whether the path is skynet's own, on either side; in any case, as a server may ignore it."""
    last_name = name(path)
    if not last_name.startswith(b"."):
        return False  # as most names, without the cost of folding
    last = folded(last_name)
    if last.startswith(_FOLDED_STRAY):
        return True
    return b"/" not in path and (last == _FOLDED_RESERVED or last.startswith(_FOLDED_PARKED))


def is_stray(path: bytes) -> bool:
    """Whether the path is a temporary file of ours that had to lie beside its target."""
    return name(path).startswith(STRAY_TEMP)


def is_parked(path: bytes) -> bool:
    """Whether the path is where something of ours waits while names are exchanged."""
    return path.startswith(PARKED) and b"/" not in path


def in_trash(stamp: bytes, path: bytes) -> bytes:
    """Where in the target that is which was at `path` when the trash of this stamp took it."""
    return RESERVED + b"/trash/" + stamp + b"/" + path


def was_at(path: bytes) -> bytes:
    """Where it was, of something in the trash; b"" for any other path."""
    found = _IN_TRASH.fullmatch(path)
    return found[1] if found is not None else b""


def folded(text: bytes) -> str:
    """The name as a file system that ignores case compares it."""
    return text.decode("utf-8", "surrogateescape").casefold()


_FOLDED_RESERVED = folded(RESERVED)
_FOLDED_STRAY = folded(STRAY_TEMP)
_FOLDED_PARKED = folded(PARKED)


def colliding(names: Collection[bytes]) -> dict[bytes, bytes]:
    """The names of one directory that differ only in case: each with another one like it."""
    seen: dict[str, bytes] = {}
    found: dict[bytes, bytes] = {}
    for text in sorted(names):
        other = seen.setdefault(folded(text), text)
        if other != text:
            found[text] = other
            found.setdefault(other, text)
    return found


def parse_ignore_file(content: bytes) -> list[str]:
    """The lines of a `.skynetignore`; bytes that are not UTF-8 stand for themselves."""
    return content.decode("utf-8-sig", "surrogateescape").splitlines()


def shown(path: bytes) -> str:
    """A path for a person: control characters and bytes that are not text are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) or "."
