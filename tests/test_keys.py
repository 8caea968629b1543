"""The promises of the keys: a right value is taken, a wrong one is refused with what is right."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from skynet.bandwidth import Bandwidth
from skynet.config import Mirror, describe_keys
from skynet.errors import ConfigError
from skynet.keys import DEFAULTS, KEYS, Key, Login, MaxDelete, parse_table
from skynet.target import Target

PLACE = "FILE: [TABLE]"


def parse(text: str, base: Path, keys: dict[str, Key] = KEYS) -> dict[str, Any]:
    return parse_table(PLACE, tomllib.loads(text), keys, base)


def refusal(text: str, base: Path, keys: dict[str, Key] = KEYS) -> str:
    """The message with which the table `text` is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(text, base, keys)
    assert type(caught.value) is ConfigError
    assert caught.value.exit_code == 2
    return str(caught.value)


FULL = """
source = "x/../photos"
target = "sftp://host/srv/photos"
identity = "keys/id"
known_hosts = "~/hosts"
password_command = "pass show 'my host'"
password_file = "../secret"
compression = true
connect_timeout = 5
timeout = 0.5
complete_sync = true
ignore = ["*.tmp", "cache/"]
symlinks = "skip"
empty_dirs = true
foreign = "trash"
trash = "all"
trash_days = 0
verify_patches = "read-back"
watch = "poll"
max_delete = ["10%", 5]
channels = 64
bwlimit = "18:00 off, 08:00 2M"
settle = 0
settle_max = 10
scan_interval = 60.5
audit_interval = 3600
state_dir = "../state"
"""


def test_every_key_is_taken(tmp_path: Path, home: Path) -> None:
    base = tmp_path / "base"
    assert parse(FULL, base) == {
        "source": os.fsencode(base / "photos"),
        "target": Target("host", b"/srv/photos"),
        "identity": base / "keys" / "id",
        "known_hosts": home / "hosts",
        "password_command": ("pass", "show", "my host"),
        "password_file": tmp_path / "secret",
        "compression": True,
        "connect_timeout": 5.0,
        "timeout": 0.5,
        "complete_sync": True,
        "ignore": ("*.tmp", "cache/"),
        "symlinks": "skip",
        "empty_dirs": True,
        "foreign": "trash",
        "trash": "all",
        "trash_days": 0,
        "verify_patches": "read-back",
        "watch": "poll",
        "max_delete": MaxDelete(0.1, 5),
        "channels": 64,
        "bwlimit": Bandwidth(((8 * 60, 2 << 20), (18 * 60, None))),
        "settle": 0.0,
        "settle_max": 10.0,
        "scan_interval": 60.5,
        "audit_interval": 3600.0,
        "state_dir": tmp_path / "state",
    }
    assert set(tomllib.loads(FULL)) == set(KEYS)


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ('"0%"', MaxDelete(0.0, 1000)),
        ("0", MaxDelete(0.5, 0)),
        ('[7, "100%"]', MaxDelete(1.0, 7)),
    ],
)
def test_a_lone_limit_keeps_the_default_of_the_other(
    value: str, limit: MaxDelete, tmp_path: Path
) -> None:
    assert parse(f"max_delete = {value}", tmp_path) == {"max_delete": limit}


AS_SHOWN = {"nan": "NaN", "inf": "Infinity", "1979-05-27": '"1979-05-27"'}


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("source = 1", "a path in quotes"),
        ('source = ""', "a path in quotes"),
        ('source = "a\\u0000b"', "a path in quotes"),
        ("target = 22", "an sftp:// URL in quotes"),
        ("compression = 1", "true or false"),
        ('complete_sync = "yes"', "true or false"),
        ("channels = true", "a whole number from 1 to 64"),
        ("channels = 0", "a whole number from 1 to 64"),
        ("channels = 65", "a whole number from 1 to 64"),
        ("channels = 4.0", "a whole number from 1 to 64"),
        ("trash_days = -1", "a whole number from 0 to 36500"),
        ("timeout = 0", "a number of seconds from 0.1 to 3600"),
        ("timeout = nan", "a number of seconds from 0.1 to 3600"),
        ("connect_timeout = inf", "a number of seconds from 0.1 to 3600"),
        ("connect_timeout = false", "a number of seconds from 0.1 to 3600"),
        ('symlinks = "follow"', '"keep" or "skip"'),
        ('foreign = ["ask"]', '"ask" or "keep" or "trash"'),
        ("watch = true", '"auto" or "native" or "poll" or "off"'),
        ("trash = 1979-05-27", '"deleted" or "all"'),
        ('ignore = "*.tmp"', "a list of strings"),
        ('ignore = ["*.tmp", 1]', "a list of strings"),
        ("password_command = []", 'a list of strings, as in ["pass", "show", "host"]'),
        ('password_command = ""', 'a list of strings, as in ["pass", "show", "host"]'),
        ('password_command = "pass \'show"', 'a list of strings, as in ["pass", "show", "host"]'),
        ("bwlimit = 10", 'a rate as "10M" (MiB a second), "off", or a timetable'),
        ("max_delete = -1", 'a share as "50%"'),
        ("max_delete = 0.5", 'a share as "50%"'),
        ("max_delete = true", 'a share as "50%"'),
        ('max_delete = "101%"', 'a share as "50%"'),
        ('max_delete = "50"', 'a share as "50%"'),
        ("max_delete = []", 'a share as "50%"'),
        ("max_delete = [1, 2]", 'a share as "50%"'),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_right(line: str, right: str, tmp_path: Path) -> None:
    key, _, value = line.partition(" = ")
    shown = "(not shown)" if key == "password_command" else AS_SHOWN.get(value, value)
    message = refusal(line, tmp_path)
    assert message.startswith(f"{PLACE} {key} = {shown} must be {right}")


@pytest.mark.parametrize("key", ["source", "identity", "state_dir"])
def test_a_home_of_nobody_is_told_as_such(key: str, tmp_path: Path) -> None:
    message = refusal(f'{key} = "~no such user/x"', tmp_path)
    assert message == f'{PLACE} {key}: "~no such user/x": there is no such user.'


def test_a_value_is_shown_short_and_harmless(tmp_path: Path) -> None:
    endless = "0x" + "f" * 5000
    assert "endless" in refusal(f"channels = {endless}", tmp_path)
    escape = refusal(f'trash = "\\u001b[2J{"x" * 500}"', tmp_path)
    assert escape.isprintable()
    assert len(escape) < 200


@pytest.mark.parametrize("key", ["target", "timeout", "password_file"])
def test_no_message_repeats_a_password(key: str, tmp_path: Path) -> None:
    for value in ('"sftp://me:hunter2@host/srv"', '"me:hunter2@host:/srv"'):
        wrong = f"[{value}]" if key == "password_file" else value
        message = refusal(f"{key} = {wrong}", tmp_path)
        assert message.startswith(f"{PLACE} {key}")
        assert "hunter2" not in message
    assert "hunter2" not in refusal('password_command = ["hunter2", 1]', tmp_path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("complte_sync = true", ['"complte_sync"', 'Did you mean "complete_sync"?']),
        ("max-delete = 5", ['Did you mean "max_delete"?']),
        ('password = "hunter2"', ['Did you mean "password_file"?']),
        ("zzz = 1", ['unknown key "zzz"', "Known are: source, target"]),
        ('"a\\nb" = 1', ['unknown key "a\\nb"']),
    ],
)
def test_an_unknown_key_is_refused_with_what_is_near(
    text: str, parts: list[str], tmp_path: Path
) -> None:
    message = refusal(text, tmp_path)
    for part in (PLACE, *parts):
        assert part in message
    assert "hunter2" not in message


@pytest.mark.parametrize("key", ["source", "target"])
def test_the_ends_of_a_mirror_have_no_default(key: str, tmp_path: Path) -> None:
    message = refusal(f'{key} = "x"', tmp_path, DEFAULTS)
    assert "belongs in a [mirror.NAME] table" in message


def test_a_password_command_may_be_a_list_and_no_repr_shows_it(tmp_path: Path) -> None:
    login = Login(**parse('password_command = ["echo", "hunter2"]', tmp_path))
    assert login.password_command == ("echo", "hunter2")
    assert "hunter2" not in repr(login)


# The table and the dataclasses


def test_describe_keys_covers_the_table_and_tells_real_defaults() -> None:
    told = {key: default for key, _, default in describe_keys()}
    assert list(told) == list(KEYS)
    assert (told["source"], told["channels"], told["foreign"]) == ("required", "9", '"ask"')
    assert (told["timeout"], told["empty_dirs"], told["ignore"]) == ("60.0", "false", "[]")
    assert tomllib.loads(f"x = {told['max_delete']}")["x"] == ["50%", MaxDelete().entries]
    assert all(": " in right for _, right, _ in describe_keys())


def test_every_key_is_a_field_and_every_field_a_key() -> None:
    named = {each.name for each in (*fields(Login), *fields(Mirror))}
    assert set(KEYS) == named - {"name", "origin", "login"}
