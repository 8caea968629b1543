"""Which names are mirrored: ignore rules in gitignore syntax, reserved names, names that fold.

An ignored path is invisible on both sides: it is neither sent nor deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError

from skynet.errors import ConfigError
from skynet.tree import name

RESERVED = b".skynet"  # at the root of both sides
STRAY_TEMP = b".skynet-tmp-"  # begins temporary names outside the reserved directory
IGNORE_FILE = b".skynetignore"


class Rules:
    """Decides what is invisible. `patterns` are lines of gitignore syntax, later ones win."""

    def __init__(self, patterns: Iterable[str] = (), where: str = "ignore") -> None:
        try:
            self._spec = GitIgnoreSpec.from_lines(patterns)
        except (GitIgnorePatternError, ValueError) as error:
            raise ConfigError(
                f"{where} holds a pattern that is not gitignore syntax: {error}. "
                "Correct or remove that line."
            ) from None
        self._has_patterns = len(self._spec) > 0

    def hides(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether the path is invisible; its parent is known to be visible."""
        if is_reserved(path):
            return True
        if not self._has_patterns:
            return False
        text = path.decode("utf-8", "surrogateescape")
        return self._spec.match_file(text + "/" if is_dir else text)


def is_reserved(path: bytes) -> bool:
    """Whether the path is skynet's own, on either side; in any case, as a server may ignore it."""
    last = folded(name(path))
    return last.startswith(_FOLDED_STRAY) or (last == _FOLDED_RESERVED and b"/" not in path)


def is_stray(path: bytes) -> bool:
    """Whether the path is a temporary file of ours that had to lie beside its target."""
    return name(path).startswith(STRAY_TEMP)


def folded(text: bytes) -> str:
    """The name as a file system that ignores case compares it."""
    return text.decode("utf-8", "surrogateescape").casefold()


_FOLDED_RESERVED = folded(RESERVED)
_FOLDED_STRAY = folded(STRAY_TEMP)


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
