"""Bandwidth limits as they are written: right ones are understood, wrong ones explained."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import wiring
from skynet.bandwidth import FORM, SLOWEST, UNLIMITED, Bandwidth, parse_bandwidth
from skynet.commands import Request
from skynet.commands_cycle import calls_of
from skynet.config import Mirror, Options, load_mirrors, parse_target
from skynet.errors import ConfigError
from skynet.guard import Hazard
from skynet.render import hazard_lines
from tests.support.command import skynet

DAY = 24 * 60  # minutes
TARGET = "sftp://me@host/srv/photos"

rates = st.none() | st.integers(SLOWEST, 1 << 40)
timetables = st.dictionaries(st.integers(0, DAY - 1), rates, min_size=1, max_size=6)


def written(timetable: dict[int, int | None], order: random.Random) -> str:
    """The timetable as a person may write it."""
    entries = [
        f"{moment // 60:02}:{moment % 60:02} {'off' if rate is None else f'{rate}B'}"
        for moment, rate in timetable.items()
    ]
    order.shuffle(entries)
    return ", ".join(entries)


# Rates and times --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10M", 10 * 2**20),
        ("1.5m", 3 * 2**19),
        ("64k", 64 * 1024),
        ("64K", 64 * 1024),
        ("1G", 2**30),
        ("1024B", 1024),
        ("1024b", 1024),
        (" 2M ", 2 * 2**20),
        ("off", None),
        ("OFF", None),
    ],
)
def test_a_rate_holds_all_day(text: str, rate: int | None) -> None:
    found = parse_bandwidth(text)
    assert {found.rate_at(hour, 59) for hour in range(24)} == {rate}
    assert found.is_limited is (rate is not None)


@given(timetables, st.randoms(use_true_random=False), st.integers(0, DAY - 1))
def test_the_entry_that_began_last_holds(
    timetable: dict[int, int | None], order: random.Random, now: int
) -> None:
    found = parse_bandwidth(written(timetable, order))
    begun = next((now - ago) % DAY for ago in range(DAY) if (now - ago) % DAY in timetable)
    assert found.rate_at(now // 60, now % 60) == timetable[begun]
    assert found.is_limited is any(rate is not None for rate in timetable.values())


def test_hours_may_have_one_digit_and_spaces_do_not_matter() -> None:
    assert parse_bandwidth(" 8:00   2M ,18:30 off") == Bandwidth(
        ((8 * 60, 2 << 20), (18 * 60 + 30, None))
    )


# What is wrong ----------------------------------------------------------------------------------

WRONG = [
    ("", '"" is not a rate'),
    ("fast", '"fast" is not a rate'),
    ("-1M", '"-1M" is not a rate'),
    ("10MB/s", '"10MB/s" is not a rate'),
    ("1e9B", '"1e9B" is not a rate'),
    ("infM", '"infM" is not a rate'),
    ("\u0661M", "is not a rate"),
    ("9" * 5000 + "M", "is not a rate"),
    ("10", '"10" has no unit'),
    ("0", '"0" is slower than 1k'),
    ("0M", '"0M" is slower than 1k'),
    ("1023B", '"1023B" is slower than 1k'),
    ("0.9k", '"0.9k" is slower than 1k'),
    ("10M, 18:00 off", '"10M" does not begin with a time of day'),
    ("24:00 2M", '"24:00 2M" does not begin with a time of day'),
    ("08:60 2M", '"08:60 2M" does not begin with a time of day'),
    ("08:00 2M,", '"" does not begin with a time of day'),
    ("Mon-08:00 2M", "does not begin with a time of day"),
    ("08:00", '"" is not a rate'),
    ("08:00 2", '"2" has no unit'),
    ("08:00 2M, 8:00 off", "names one time of day twice"),
    ("08:00 2M, 08:00 2M", "names one time of day twice"),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_a_wrong_limit_is_explained(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bandwidth(text)
    message = str(caught.value)
    assert why in message
    assert message.endswith(FORM)
    assert message.isprintable()
    assert len(message) < 300


@given(st.text(alphabet="0123456789.:, kMoff\x1b-", max_size=30))
def test_no_text_is_misunderstood_in_another_way(text: str) -> None:
    try:
        found = parse_bandwidth(text)
    except ConfigError:
        return
    assert all(rate is None or rate >= SLOWEST for _, rate in found.entries)
    assert found.entries == tuple(sorted(dict(found.entries).items()))


# Where it is written ----------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Bandwidth]:
    """The limit of the one mirror of a file with these lines, and these options."""

    def run(line: str = "", defaults: str = "", bwlimit: str | None = None) -> Bandwidth:
        text = f'[defaults]\n{defaults}\n[mirror.photos]\nsource = "."\ntarget = "{TARGET}"\n'
        (tmp_path / "skynet.toml").write_text(text + line)
        [mirror] = load_mirrors(Options(bwlimit=bwlimit), {}, tmp_path)
        return mirror.bwlimit

    return run


def test_a_mirror_wins_over_the_defaults_and_the_option_over_both(
    load: Callable[..., Bandwidth],
) -> None:
    assert load() == UNLIMITED
    assert load("", 'bwlimit = "1M"') == parse_bandwidth("1M")
    assert load('bwlimit = "off"', 'bwlimit = "1M"') == UNLIMITED
    assert load('bwlimit = "2M"', 'bwlimit = "1M"', "8:00 3M") == parse_bandwidth("08:00 3M")


@pytest.mark.parametrize("value", ["10", "0", '["1M"]', "true"])
def test_the_key_wants_a_text(value: str, load: Callable[..., Bandwidth]) -> None:
    with pytest.raises(ConfigError, match='must be a rate as "10M"') as caught:
        load(f"bwlimit = {value}")
    assert f"[mirror.photos] bwlimit = {value} must be" in str(caught.value)


def test_errors_name_the_place(load: Callable[..., Bandwidth]) -> None:
    with pytest.raises(ConfigError, match=r'\[mirror\.photos\] bwlimit: "10" has no unit'):
        load('bwlimit = "10"')
    with pytest.raises(ConfigError, match=r'--bwlimit: "0" is slower'):
        load(bwlimit="0")


def test_the_command_refuses_a_wrong_limit_before_it_connects(tmp_path: Path) -> None:
    call = ["sync", "--once", "--source", str(tmp_path), "--target", TARGET]
    result = skynet(*call, "--bwlimit", "10")
    assert result.code == 2
    assert '--bwlimit: "10" has no unit. Write' in result.err


def test_a_held_plan_is_approved_under_the_same_limit() -> None:
    hazards = [Hazard("code", "message", "c0ffee")]
    target = parse_target(TARGET)
    mirror = Mirror(name="photos", source=b"/s", target=target, state_dir=Path("state"))
    calls = calls_of(mirror, Options(bwlimit="2M"), Request(), None)
    look, approve = list(hazard_lines(hazards, calls))[1:]
    assert look.endswith("skynet plan --dry-run photos")
    assert approve.endswith("skynet sync --once photos --bwlimit 2M --approve c0ffee")


# Who keeps to it --------------------------------------------------------------------------------


class Answering:
    """Stands for a connection and for whatever is made of it."""

    description = server_version = "a server"


@pytest.fixture
def paces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """The paces that two connections to a mirror of this limit are given; as their rates."""
    seen: list[Any] = []

    def client(_: object, *, pace: object, **__: object) -> None:
        seen.append(pace)

    monkeypatch.setattr("skynet.sftp.connect.connect", lambda *_, **__: Answering())
    monkeypatch.setattr("skynet.sftp.client.Client", client)
    monkeypatch.setattr("skynet.sftp.pace.Pace", lambda rate: rate)
    monkeypatch.setattr("skynet.remote.SftpRemote", lambda *_, **__: None)

    def run(bwlimit: str) -> list[Any]:
        options = Options(source=tmp_path, target=TARGET, bwlimit=bwlimit)
        [mirror] = load_mirrors(options, {}, tmp_path)
        connect = wiring.connector(mirror, None, {}, lambda _: None)  # type: ignore[arg-type]  # nobody is asked
        connect()
        connect()
        return seen

    return run


@pytest.mark.parametrize("bwlimit", ["off", "08:00 off"])
def test_a_connection_without_a_limit_has_no_pace(
    bwlimit: str, paces: Callable[[str], list[Any]]
) -> None:
    assert paces(bwlimit) == [None, None]


def test_each_connection_follows_the_local_time_of_day(
    paces: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = paces("08:00 2M, 18:00 off")
    assert first is not second
    for hour, minute, rate in [(7, 59, None), (8, 0, 2 << 20), (17, 59, 2 << 20), (18, 0, None)]:
        local = time.struct_time((2026, 3, 29, hour, minute, 30, 6, 88, 1))
        monkeypatch.setattr("time.localtime", lambda local=local: local)
        assert first() == rate
