"""The text of ssh_config, made fit for a parser that knows neither Include nor every Match.

`load` reads the files and follows Include. `Config.options` puts what was asked for before the
text, where it wins, and refuses a Match block that would apply but cannot be decided here: to
skip or to apply it silently could lead to another server, or with another key.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skynet.errors import ConfigError
from skynet.sftp.dial import one_line

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
MAX_DEPTH = 16
MAX_FILE_BYTES = 2**20
DECIDABLE = {"all", "canonical", "final", "host", "originalhost", "user", "localuser"}
WITHOUT_VALUE = {"all", "canonical", "final"}

Options = Mapping[str, str | list[str] | None]


class Line(NamedTuple):
    """One setting: where it stands, its keyword in lower case, and its value."""

    file: Path
    number: int
    keyword: str
    value: str

    @property
    def place(self) -> str:
        """Where the line stands, for a message."""
        return f"{self.file} line {self.number}"


@dataclass(frozen=True, slots=True)
class Config:
    """All lines that apply, with Include followed."""

    lines: tuple[Line, ...]

    def options(
        self,
        host: str,
        user: str | None,
        port: int | None,
        lookup: Callable[[str, str], Options],
    ) -> Options:
        """The options for `host`; a given user and port win over the files. Raises ConfigError."""
        given = [("user", user), ("port", str(port) if port else None)]
        text = [f"{key} {value}" for key, value in given if value]
        kept, undecided = self._split()
        text += [f"{line.keyword} {line.value}" for line in kept]
        options = lookup("\n".join(text) + "\n", host)
        for line in undecided:
            _refuse_if_it_may_apply(line, {host, str(options.get("hostname") or host)})
        return options

    def _split(self) -> tuple[list[Line], list[Line]]:
        """The lines to keep, and the Match lines whose blocks cannot be decided."""
        kept: list[Line] = []
        undecided: list[Line] = []
        skipping = False
        for line in self.lines:
            if line.keyword in ("host", "match"):
                skipping = line.keyword == "match" and not _is_decidable(line)
                if skipping:
                    undecided.append(line)
            if not skipping:
                kept.append(line)
        return kept, undecided


def load(path: Path | None) -> Config:
    """The configuration in `path`, or else in the user's and the system's file if they exist."""
    if path is not None:
        return Config(tuple(_file(path.expanduser())))
    paths = [Path.home() / ".ssh" / "config"]
    if os.name == "posix":
        paths.append(SYSTEM_CONFIG)
    return Config(tuple(line for path in paths if path.exists() for line in _file(path)))


def _file(path: Path) -> Iterator[Line]:
    """The lines of a top file, below a header that ends whatever block stood before it."""
    yield Line(path, 0, "host", "*")
    yield from _lines(path, path.parent, Line(path, 0, "host", "*"), 1)


def _lines(path: Path, base: Path, header: Line, depth: int) -> Iterator[Line]:
    """The lines of a file; relative names in Include stand below `base`."""
    if depth > MAX_DEPTH:
        raise _error(f"{path}: Include is nested more than {MAX_DEPTH} deep")
    conditional = header.keyword == "match" or header.value != "*"
    for number, text in enumerate(_read(path).splitlines(), 1):
        line = _parse(path, number, text)
        if line is None:
            continue
        if line.keyword in ("host", "match"):
            if depth > 1 and conditional:
                raise _error(
                    f"{line.place}: Host and Match are not understood in a file that "
                    "is included below Host or Match"
                )
            header = line
        if line.keyword != "include":
            yield line
            continue
        for included in _included(line, base):
            yield from _lines(included, base, header, depth + 1)
            # The included file may have opened a block; go on in the one that was open before.
            yield header


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _error(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise _error(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8", "replace")


def _parse(path: Path, number: int, text: str) -> Line | None:
    text = text.strip()
    if not text or text.startswith("#"):
        return None
    found = re.fullmatch(r"(\w+)(?:\s*=\s*|\s+)(.+)", text)
    if found is None:
        raise _error(f"{path} line {number}: {one_line(text)!r} is no keyword with a value")
    return Line(path, number, found[1].lower(), found[2])


def _included(line: Line, base: Path) -> Iterator[Path]:
    for word in _words(line):
        pattern = base / Path(word).expanduser()
        yield from (Path(name) for name in sorted(glob.glob(str(pattern))))


def _words(line: Line) -> list[str]:
    try:
        return shlex.split(line.value)
    except ValueError as error:
        raise _error(f"{line.place}: {one_line(line.value)!r} cannot be read ({error})") from error


def _criteria(line: Line) -> list[tuple[str, str]]:
    """The criteria of a Match line with their values, "" for those that have none."""
    words = _words(line)
    found = []
    while words:
        kind = words.pop(0).lower()
        takes_value = kind.lstrip("!") not in WITHOUT_VALUE
        found.append((kind, words.pop(0) if takes_value and words else ""))
    return found


def _is_decidable(line: Line) -> bool:
    return all(kind.lstrip("!") in DECIDABLE for kind, _ in _criteria(line))


def _refuse_if_it_may_apply(line: Line, names: set[str]) -> None:
    """Raise unless a host pattern of the Match line already excludes every one of `names`."""
    criteria = _criteria(line)
    for kind, value in criteria:
        patterns = value.split(",")
        if kind in ("host", "originalhost") and not any(
            fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns
        ):
            return
    kinds = [kind for kind, _ in criteria if kind.lstrip("!") not in DECIDABLE]
    raise _error(
        f"{line.place}: skynet cannot decide `Match {kinds[0]}`, and it may apply to "
        f"{min(names)}. Put the settings for this server in a Host block"
    )


def _error(problem: str) -> ConfigError:
    return ConfigError(f"ssh_config: {problem}.", "ssh-config")
