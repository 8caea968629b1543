"""Configuration: skynet.toml and the command line's options become frozen Mirrors.

Which file is read, what wins over what, and whether the whole makes sense; what one key may hold
is in keys.py. Nothing here opens a connection or writes a file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

import platformdirs

from skynet.bandwidth import UNLIMITED, Bandwidth, parse_bandwidth
from skynet.errors import ConfigError, SourceError, UsageError
from skynet.keys import (
    DEFAULTS,
    KEYS,
    Login,
    MaxDelete,
    Unfit,
    absolute,
    as_table,
    did_you_mean,
    parse_table,
    refuse_unknown,
)
from skynet.target import TARGET_FORM, Target, parse_target, printable

__all__ = [
    "Login",
    "MaxDelete",
    "Mirror",
    "Options",
    "Target",
    "check",
    "config_file",
    "describe_keys",
    "load_mirrors",
    "parse_target",
]

FILE_NAME = "skynet.toml"
FILE_LIMIT = 1 << 20  # bytes; a configuration longer than this is some other file
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
NO_MIRROR = """There is no {file} in {cwd} or above it, and no {user_file}.
Either write one:

    [mirror.photos]
    source = "/data/photos"
    target = "sftp://me@host/srv/photos"

or name both ends: skynet sync --once --source DIR --target sftp://me@host/srv/photos"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A configured source and target. source: absolute, normalised, in the system's bytes.

    origin: opens what is said of the source; it tells where the source was named.
    """

    name: str
    origin: str = field(default="source =", compare=False)
    source: bytes
    target: Target
    login: Login = field(default_factory=Login)
    complete_sync: bool = False
    ignore: tuple[str, ...] = ()
    symlinks: Literal["keep", "skip"] = "keep"
    empty_dirs: bool = False
    foreign: Literal["ask", "keep", "trash"] = "ask"
    trash: Literal["deleted", "all"] = "deleted"
    trash_days: int = 7
    verify_patches: Literal["size", "read-back"] = "size"
    watch: Literal["auto", "native", "poll", "off"] = "auto"
    max_delete: MaxDelete = field(default_factory=MaxDelete)
    channels: int = 9
    bwlimit: Bandwidth = UNLIMITED
    settle: float = 2.0
    settle_max: float = 300.0
    scan_interval: float = 3600.0
    audit_interval: float = 86400.0
    state_dir: Path


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gave; None or () where it gave nothing."""

    names: tuple[str, ...] = ()
    config: Path | None = None
    source: Path | None = None
    target: str | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    complete_sync: bool | None = None
    state_dir: Path | None = None
    bwlimit: str | None = None


def state_base(options: Options, environ: Mapping[str, str], cwd: Path) -> Path:
    """The state directory where no configuration file has a say."""
    chosen: Path = _overrides(options, environ, cwd).get("state_dir", _default_state_dir())
    return chosen


def config_file(options: Options, environ: Mapping[str, str], cwd: Path) -> Path:
    """The configuration file that `load_mirrors` reads; ConfigError if there is none."""
    return _find_file(options, environ, cwd)[0]


def load_mirrors(options: Options, environ: Mapping[str, str], cwd: Path) -> list[Mirror]:
    """The mirrors that the command line asks for, in the order named, else in the file's.

    Each is to be given to `check` before it is used. Raises UsageError when options contradict
    each other, ConfigError when a file or value is wrong. `cwd` is absolute.
    """
    if options.source is not None or options.target is not None:
        drafts = [_ad_hoc_draft(options, cwd)]
    else:
        drafts = _file_drafts(options, environ, cwd)
    overrides = _overrides(options, environ, cwd)
    return [_finish(draft, overrides) for draft in drafts]


def check(mirror: Mirror) -> None:
    """Raise SourceError or ConfigError unless the source is there and apart from what is written.

    It is asked when the mirror's turn comes, so that a missing source stops no other mirror.
    """
    shown = f'{mirror.origin} "{printable(os.fsdecode(mirror.source))}"'
    _check_source(shown, mirror.source)
    _check_nesting(shown, mirror)


def describe_keys() -> list[tuple[str, str, str]]:
    """Every key of a mirror's table: its name, what is right and what for, its default."""
    return [
        (name, f"{key.rule.right}: {key.purpose}", key.default or _default(name))
        for name, key in KEYS.items()
    ]


def _default(name: str) -> str:
    """The default that the dataclasses hold for a key, as TOML would write it."""
    defaults = {each.name: each.default for each in (*fields(Login), *fields(Mirror))}
    return "required" if defaults[name] is MISSING else json.dumps(defaults[name])


# Files and options


@dataclass(frozen=True, slots=True)
class _Draft:
    """A mirror before its overrides."""

    origin: str
    name: str
    values: dict[str, Any]


def _ad_hoc_draft(options: Options, cwd: Path) -> _Draft:
    if options.source is None or options.target is None:
        raise UsageError(f"--source and --target go together: give both, or neither. {TARGET_FORM}")
    if options.names or options.config:
        raise UsageError(
            "--source and --target name the whole mirror; leave out --config and mirror names."
        )
    source = os.fsencode(_option_path("--source", options.source, cwd))
    try:
        target = parse_target(options.target)
    except ConfigError as error:
        raise ConfigError(f"--target: {error}") from None
    name = printable(os.fsdecode(os.path.basename(source))) or "root"
    return _Draft("--source", name, {"source": source, "target": target})


def _option_path(place: str, path: str | Path, cwd: Path) -> Path:
    try:
        return absolute(path, cwd)
    except Unfit:
        raise UsageError(f"{place} {printable(str(path))}: there is no such user.") from None


def _overrides(options: Options, environ: Mapping[str, str], cwd: Path) -> dict[str, Any]:
    """What the command line and the environment say, by key; it wins over every file."""
    state_dir = ("SKYNET_STATE_DIR", environ.get("SKYNET_STATE_DIR"))
    if options.state_dir:
        state_dir = ("--state-dir", str(options.state_dir))
    paths = {
        "identity": ("--identity", options.identity),
        "known_hosts": ("--known-hosts", options.known_hosts),
        "state_dir": state_dir,
    }
    found: dict[str, Any] = {
        key: _option_path(place, path, cwd) for key, (place, path) in paths.items() if path
    }
    if options.complete_sync is not None:
        found["complete_sync"] = options.complete_sync
    if options.bwlimit is not None:
        try:
            found["bwlimit"] = parse_bandwidth(options.bwlimit)
        except ConfigError as error:
            raise ConfigError(f"--bwlimit: {error}") from None
    return found


def _find_file(options: Options, environ: Mapping[str, str], cwd: Path) -> tuple[Path, bool]:
    """The file to read, and whether the user chose it; if not, it merely lies in or above `cwd`."""
    named = options.config or environ.get("SKYNET_CONFIG")
    if named:
        return _option_path("--config" if options.config else "SKYNET_CONFIG", named, cwd), True
    for directory in (cwd, *cwd.parents):
        if os.path.isfile(directory / FILE_NAME):
            return directory / FILE_NAME, False
    user_file = Path(platformdirs.user_config_dir("skynet", appauthor=False), FILE_NAME)
    if os.path.isfile(user_file):
        return user_file, True
    raise ConfigError(NO_MIRROR.format(file=FILE_NAME, cwd=cwd, user_file=user_file))


def _refuse_stranger(file: Path, stream: BinaryIO) -> None:
    """Raise ConfigError if the open file, or a link that stands for it, is another user's.

    Its password_command would run, so that whoever can write to a directory above the working
    directory, such as /tmp, could run a program as the user.
    """
    if sys.platform == "win32":
        return  # where no number says whose a file is
    owners = {os.lstat(file).st_uid, os.fstat(stream.fileno()).st_uid}
    for owner in sorted(owners - {os.getuid(), 0}):
        raise ConfigError(
            f"{file} belongs to user id {owner}, neither to you nor to root, and its "
            "password_command would run as you. If you trust it, name it: "
            f"-c {shlex.quote(str(file))}"
        )


def _read_file(file: Path, is_chosen: bool) -> bytes:
    """The bytes of `file`, at most FILE_LIMIT; unless it was chosen, its owner must be trusted."""
    try:
        with file.open("rb") as stream:
            if not is_chosen:
                _refuse_stranger(file, stream)
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}. Correct its path or permissions."
        ) from error
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{file} is longer than {FILE_LIMIT} bytes: it is no configuration.")
    return data


def _parse_toml(file: Path, data: bytes) -> dict[str, Any]:
    """The tables that `data`, read from `file`, holds."""
    try:
        text = data.decode("utf-8-sig")  # some editors put a byte order mark in front
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8 text. Save the file as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        last = text.count("\n") + 1, len(text) - text.rfind("\n")
        where = str(error).replace("at end of document", "at line {}, column {}".format(*last))
        raise ConfigError(f"{file} is not valid TOML: {where}.") from None


def _file_drafts(options: Options, environ: Mapping[str, str], cwd: Path) -> list[_Draft]:
    file, is_chosen = _find_file(options, environ, cwd)
    tables = _parse_toml(file, _read_file(file, is_chosen))
    refuse_unknown(f"{file}:", tables, ("mirror", "defaults"))
    defaults = parse_table(f"{file}: [defaults]", tables.get("defaults", {}), DEFAULTS, file.parent)
    mirrors = as_table(f"{file}: mirror", tables.get("mirror", {}))
    drafts = {name: _draft(file, name, mirrors[name], defaults) for name in mirrors}
    if not drafts:
        raise ConfigError(f"{file} has no mirror: add [mirror.NAME] with source and target.")
    for name in options.names:
        if name not in drafts:
            raise ConfigError(
                f'{file} has no mirror "{printable(name)}".{did_you_mean(name, drafts)} '
                f"Its mirrors: {', '.join(drafts)}."
            )
    chosen = [drafts[name] for name in dict.fromkeys(options.names or drafts)]
    _refuse_twins(file, chosen)
    return chosen


def _refuse_twins(file: Path, drafts: Iterable[_Draft]) -> None:
    """Two of the same source and target would have one state, and each the other's in its way."""
    seen: dict[Any, str] = {}
    for draft in drafts:
        first = seen.setdefault((draft.values["source"], draft.values["target"]), draft.name)
        if first != draft.name:
            raise ConfigError(
                f"{file}: [mirror.{first}] and [mirror.{draft.name}] have the same source and "
                "target: correct one of them, or leave it out."
            )


def _draft(file: Path, name: str, table: Any, defaults: Mapping[str, Any]) -> _Draft:
    if not re.fullmatch(r"\w[\w .-]{0,63}", name):
        raise ConfigError(
            f'{file}: the mirror name "{printable(name)}" must be 1 to 64 letters, digits, '
            "spaces or _ . - and begin with a letter, digit or _."
        )
    place = f"{file}: [mirror.{name}]"
    values = {**defaults, **parse_table(place, table, KEYS, file.parent)}
    for key, example in (("source", "/data/photos"), ("target", "sftp://me@host/srv/photos")):
        if key not in values:
            raise ConfigError(f'{place} has no {key}: add {key} = "{example}"')
    if values.get("trash") == "all" and values.get("trash_days") == 0:
        raise ConfigError(
            f'{place} trash = "all" with trash_days = 0 would keep replaced files for ever: '
            'choose some trash_days, or leave out trash = "all".'
        )
    return _Draft(f"{place} source =", name, values)


def _default_state_dir() -> Path:
    return Path(platformdirs.user_state_dir("skynet", appauthor=False))


def _finish(draft: _Draft, overrides: Mapping[str, Any]) -> Mirror:
    values = {"state_dir": _default_state_dir(), **draft.values, **overrides}
    of_login = [each.name for each in fields(Login) if each.name in values]
    login = Login(**{name: values.pop(name) for name in of_login})
    return Mirror(name=draft.name, origin=draft.origin, login=login, **values)


# Checks


def _check_source(shown: str, source: bytes) -> None:
    try:
        with os.scandir(source):
            return
    except FileNotFoundError:
        why = "there is no such directory. Create or mount it, or correct the path."
    except NotADirectoryError:
        why = "it is not a directory. Name the directory that holds what is to be mirrored."
    except OSError as error:
        why = f"it cannot be read: {error.strerror}. Check the permissions of it and those above."
    raise SourceError(f"{shown}: {why}")


def _check_nesting(shown: str, mirror: Mirror) -> None:
    source, state = os.fsdecode(mirror.source), str(mirror.state_dir)
    if _is_within(state, source):
        raise ConfigError(
            f'{shown} holds the state directory "{printable(state)}", which would be mirrored '
            "while it changes. Choose one outside: state_dir, SKYNET_STATE_DIR or --state-dir."
        )
    target = _local_path(mirror.target)
    if target and (_is_within(source, target) or _is_within(target, source)):
        raise SourceError(
            f"{shown} and its target {mirror.target} are on this machine, and one holds the other. "
            "Choose two directories apart; if that server shows other directories than this "
            "machine's own, give its host an alias in ssh_config."
        )


def _is_within(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it, links resolved; neither need exist."""
    path, directory = (os.path.normcase(os.path.realpath(each)) for each in (path, directory))
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def _local_path(target: Target) -> str | None:
    """The directory of this machine that `target` is, as far as that can be known."""
    if target.host.lower() not in LOOPBACK:
        return None
    # The root behind another port is most often a server that is confined to one directory.
    if target.path == b"/" and target.port not in (None, 22):
        return None
    path = os.fsdecode(target.path)
    if path.startswith("~"):
        path = os.path.expanduser(f"~{target.user or ''}{path[1:]}")
    if os.name == "nt":
        path = path.lstrip("/")  # such servers write C:/data as /C:/data
    return path if os.path.isabs(path) else None
