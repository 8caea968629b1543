"""The keys of a mirror: `KEYS` is the one table of what a mirror's table in skynet.toml may hold.

It says how each key is parsed, which sentence tells what would be right, and what the key is for.
Parsers see no file but resolve `~`; whether a path exists is asked later, by those who use it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skynet.bandwidth import parse_bandwidth
from skynet.errors import ConfigError
from skynet.target import parse_target, printable, redacted


class Unfit(Exception):
    """A value that its parser cannot take."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the server and prove who we are; timeouts in seconds."""

    identity: Path | None = None
    known_hosts: Path | None = None
    # An argument may carry a secret, so no repr shows the command.
    password_command: tuple[str, ...] = field(default=(), repr=False)
    password_file: Path | None = None
    compression: bool = False
    connect_timeout: float = 15.0
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class MaxDelete:
    """How much one plan may delete unasked; exceeding either limit holds it."""

    fraction: float = 0.5
    entries: int = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be; `right` completes "must be ...".

    `parse` takes a value and the directory that relative paths start from; it raises Unfit.
    """

    right: str
    parse: Callable[[Any, Path], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key; `default` tells a default that is no plain value in the dataclasses."""

    rule: Rule
    purpose: str
    default: str = ""


def _fit(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise Unfit
    return value


def _path(value: Any, base: Path) -> Path:
    _fit(value, isinstance(value, str) and value != "" and "\0" not in value)
    try:
        return absolute(value, base)
    except Unfit:
        raise ConfigError(f'"{printable(value)}": there is no such user.') from None


def absolute(path: str | Path, base: Path) -> Path:
    """`path` from `base` on, `~` expanded and normalised; Unfit if it is an unknown user's home."""
    expanded = os.path.expanduser(path)
    _fit(path, not str(expanded).startswith("~"))
    return Path(os.path.normpath(os.path.join(base, expanded)))


def _strings(value: Any, _base: Path) -> tuple[str, ...]:
    _fit(value, isinstance(value, list))
    return tuple(_fit(each, isinstance(each, str) and "\0" not in each) for each in value)


def _command(value: Any, base: Path) -> tuple[str, ...]:
    try:
        words = _strings(shlex.split(value) if isinstance(value, str) else value, base)
    except ValueError:  # a quotation that is not closed
        raise Unfit from None
    return tuple(_fit(words, words[:1] not in ((), ("",))))


def _limit(value: Any) -> tuple[str, Any]:
    if type(value) is int:
        return "entries", _fit(value, 0 <= value <= 10**9)
    percent = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", value if type(value) is str else "")
    _fit(value, percent is not None and float(percent[1]) <= 100)
    return "fraction", float(value[:-1]) / 100


def _max_delete(value: Any, _base: Path) -> MaxDelete:
    parts = value if isinstance(value, list) else [value]
    limits = dict(map(_limit, parts))
    return MaxDelete(**_fit(limits, 0 < len(parts) == len(limits)))  # no two of one kind


def _whole(low: int, high: int) -> Rule:
    def parse(value: Any, _base: Path) -> int:
        return int(_fit(value, type(value) is int and low <= value <= high))

    return Rule(f"a whole number from {low} to {high}", parse)


def _seconds(low: float, high: float) -> Rule:
    def parse(value: Any, _base: Path) -> float:
        return float(_fit(value, type(value) in (int, float) and low <= value <= high))

    return Rule(f"a number of seconds from {low} to {high}", parse)


def _one_of(*choices: str) -> Rule:
    right = " or ".join(f'"{choice}"' for choice in choices)
    return Rule(right, lambda value, _base: _fit(value, value in choices))


_FLAG = Rule("true or false", lambda value, _base: _fit(value, type(value) is bool))
_PATH = Rule("a path in quotes", _path)
_SOURCE = Rule(_PATH.right, lambda value, base: os.fsencode(_path(value, base)))
_TARGET = Rule(
    "an sftp:// URL in quotes",
    lambda value, _base: parse_target(_fit(value, isinstance(value, str))),
)
_STRINGS = Rule('a list of strings, as in ["*.tmp", "cache/"]', _strings)
_COMMAND = Rule('a list of strings, as in ["pass", "show", "host"], or one string', _command)
_BANDWIDTH = Rule(
    'a rate as "10M" (MiB a second), "off", or a timetable as "08:00 2M, 18:00 off"',
    lambda value, _base: parse_bandwidth(_fit(value, isinstance(value, str))),
)
_MAX_DELETE = Rule('a share as "50%", a number as 1000, or both: ["50%", 1000]', _max_delete)

KEYS: dict[str, Key] = {
    "source": Key(_SOURCE, "the local directory to mirror"),
    "target": Key(_TARGET, "the remote directory that becomes its mirror"),
    "identity": Key(_PATH, "the private key to log in with", "ssh_config, agent, usual keys"),
    "known_hosts": Key(_PATH, "the file of trusted host keys", "ssh_config, ~/.ssh/known_hosts"),
    "password_command": Key(_COMMAND, "prints the password; no shell runs it", "none"),
    "password_file": Key(_PATH, "a file that holds the password, mode 0600", "none"),
    "compression": Key(_FLAG, "whether SSH compresses what it sends"),
    "connect_timeout": Key(_seconds(0.1, 3600), "how long connecting may take"),
    "timeout": Key(_seconds(0.1, 3600), "how long the server may stay silent"),
    "complete_sync": Key(_FLAG, "whether what is deleted here is deleted there too"),
    "ignore": Key(_STRINGS, "what not to mirror, in gitignore's syntax"),
    "symlinks": Key(_one_of("keep", "skip"), "mirror symlinks as symlinks, or not at all"),
    "empty_dirs": Key(_FLAG, "whether empty directories are mirrored"),
    "foreign": Key(_one_of("ask", "keep", "trash"), "remote files not ours, in complete-sync"),
    "trash": Key(_one_of("deleted", "all"), "what the trash keeps; all: overwritten files too"),
    "trash_days": Key(_whole(0, 36500), "days until the trash may be emptied; 0 deletes at once"),
    "verify_patches": Key(
        _one_of("size", "read-back"), "what is checked of a file made on the server of its parts"
    ),
    "watch": Key(_one_of("auto", "native", "poll", "off"), "how changes are noticed"),
    "max_delete": Key(_MAX_DELETE, "a plan that deletes more is held", '["50%", 1000]'),
    "channels": Key(_whole(1, 64), "how many SSH channels carry data at once"),
    "bwlimit": Key(_BANDWIDTH, "bytes a second sent at most, by this machine's clock", '"off"'),
    "settle": Key(_seconds(0, 3600), "how long a file must be quiet before the daemon sends it"),
    "settle_max": Key(_seconds(1, 86400), "how long it waits at most for a file to be quiet"),
    "scan_interval": Key(_seconds(10, 604800), "how often the daemon looks at everything here"),
    "audit_interval": Key(_seconds(60, 31536000), "how often the daemon lists the whole remote"),
    "state_dir": Key(_PATH, "where skynet remembers what it saw", "the user's state directory"),
}
DEFAULTS = {name: key for name, key in KEYS.items() if name not in ("source", "target")}
UNSHOWN = frozenset({"password_command"})  # messages do not repeat them: they may hold a secret


# Tables


def parse_table(place: str, table: Any, keys: Mapping[str, Key], base: Path) -> dict[str, Any]:
    """The parsed values of one table; relative paths start from `base`.

    `place` names file and table. Raises ConfigError, which begins with it and says what is right.
    """
    refuse_unknown(place, as_table(place, table), keys)
    return {name: _value(place, name, value, base) for name, value in table.items()}


def _value(place: str, name: str, value: Any, base: Path) -> Any:
    rule = KEYS[name].rule
    try:
        return rule.parse(value, base)
    except Unfit:
        shown = "(not shown)" if name in UNSHOWN else _toml(value)
        raise ConfigError(f"{place} {name} = {shown} must be {rule.right}.") from None
    except ConfigError as error:
        raise ConfigError(f"{place} {name}: {error}") from None


def as_table(place: str, value: Any) -> dict[str, Any]:
    """`value`, which is a table. Raises ConfigError where the file has something else."""
    if not isinstance(value, dict):
        raise ConfigError(
            f"{place} = {_toml(value)} must be a table: write [mirror.NAME] or [defaults] "
            "on a line of its own, and the keys below it."
        )
    return value


def refuse_unknown(place: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ConfigError for a key that is not known; its value may be a secret and is not told."""
    for name in table:
        if name not in known:
            hint = did_you_mean(name, known)
            if name in KEYS:
                hint = " It belongs in a [mirror.NAME] table."
            raise ConfigError(
                f'{place} has the unknown key "{printable(name)}".{hint} '
                f"Known are: {', '.join(known)}."
            )


def did_you_mean(word: str, known: Collection[str]) -> str:
    """A question to put behind a message, led by a space; empty when nothing known is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def _toml(value: Any) -> str:
    """`value` much as the file has it, on one short line."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # Python writes no integer of more than some thousand digits
        text = "(an endless number)"
    text = printable(redacted(text))
    return text if len(text) <= 80 else text[:77] + "..."
