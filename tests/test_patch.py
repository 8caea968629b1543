"""A patch publishes what the local file holds, sends what is new of it, and risks nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.errors import LinkLost, NotPublished, RemoteStopped, RequestError, TornRead
from skynet.ops import Patch, Upload, tally
from skynet.remote import Facts, Outcome, Trash, copies
from skynet.sftp import patch
from skynet.sftp.replies import FAILURE, PERMISSION_DENIED, UNSUPPORTED
from tests.support.command import bound_by_modes
from tests.support.faults import ALMOST_FULL, Act, FaultConnection, at, every, nth
from tests.support.frames import Asked
from tests.support.patching import (
    COPY,
    NEW,
    OLD,
    PATH,
    PIECE,
    Target,
    apply_patch,
    apply_reading,
    delta_of,
    edited,
    inserted,
    patch_of,
    target,
)
from tests.support.sources import BytesSource
from tests.support.targets import TIME, Held, entry_of
from tests.support.versions import MIB, noise, signed

CHANNELS = 3
MAX_READ = 1 << 15  # bytes, as a FaultConnection states it together with max_write
ASKED = ["LSTAT", "OPEN", "OPEN", *["CLOSE", "LSTAT", "FSETSTAT", "FSTAT", "CLOSE"]]
WITHOUT = frozenset({b"copy-data"})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "COPY_PIECE", 5 * PIECE)


def make() -> FaultConnection:
    return FaultConnection(max_write=PIECE)


def is_patched(there: Target, outcome: Outcome, new: bytes = NEW) -> bool:
    """Whether the new content is there, all is as it should be, and it came of a patch."""
    assert outcome.error is None
    assert isinstance(outcome.op, Patch | Upload)
    assert outcome.op.entry == entry_of(new, mtime=TIME + 60)
    assert outcome.identity == b"identity"
    held = there.holds(PATH)
    assert held is not None
    assert held[2:] == (0o644, TIME + 60)
    assert held.content == new
    assert there.left == []
    return isinstance(outcome.op, Patch)


def attempt(there: Target, new: bytes = NEW) -> Outcome:
    """Put the old version there, and patch it."""
    there.put(PATH, OLD)
    op, delta = patch_of(OLD, new)
    return apply_patch(there.remote, op, delta, new)


# What it sends.


def test_a_patch_sends_only_what_is_new(tmp_path: Path) -> None:
    with target(tmp_path / "t", make()) as there:
        before = there.remote.counts
        outcome = attempt(there)
        assert is_patched(there, outcome)
        made = there.remote.counts - before
        delta = delta_of(OLD, NEW)
        assert made["bytes"] == delta.sent == tally([outcome.op])["bytes"] < 12 * PIECE
        copied = there.connection.seen.count(COPY)
        assert sorted(there.connection.seen) == sorted(
            [*ASKED, *[COPY] * copied]
            + ["WRITE"] * there.connection.seen.count("WRITE")
            + ["posix-rename@openssh.com"]
        )
        assert made["requests"] == len(there.connection.seen)


BARS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "1 MiB in front": (lambda old: noise(MIB, 5) + old, MIB + MIB // 4),
    "100 edits of 4 KiB": (lambda old: edited(old, 1, 100, 4096), 8 * MIB // 4),
    "10 insertions": (lambda old: inserted(old, 2, 10, 1000), 4 * MIB // 16),
    "appended": (lambda old: old + noise(4 * MIB, 6), 4 * MIB + MIB // 16),
    "truncated": (lambda old: old[: 40 * MIB + 5], 8192),
    "cut out of the middle": (lambda old: old[: 7 * MIB + 1] + old[9 * MIB :], 16384),
}


@pytest.mark.parametrize("case", BARS)
def test_bars_of_the_issue_scaled_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(patch, "COPY_PIECE", 8 * MIB)
    old = noise(64 * MIB)
    change, bar = BARS[case]
    new = change(old)
    with target(tmp_path / "t", FaultConnection(), channels=CHANNELS) as there:
        there.put(PATH, old)
        op, delta = patch_of(old, new)
        outcome = apply_patch(there.remote, op, delta, new)
        assert is_patched(there, outcome, new)
        assert there.remote.counts["bytes"] <= bar
        assert outcome.signature == signed(new)
        if op.entry.size >= copies.WIDE_FROM:
            assert there.connection.seen.count("OPEN") == 1 + 2 * CHANNELS


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Target]]:
    """Targets whose patches go over one channel, and over all of them."""
    base = tmp_path_factory.mktemp("shared")
    with (
        target(base / "lanes", make()) as lanes,
        target(base / "wide", make(), channels=CHANNELS, reads_back=True) as wide,
    ):
        yield {False: lanes, True: wide}


# (where in the content it is, how many bytes go, how many come)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 9 * PIECE), st.integers(0, 3 * PIECE)), max_size=6
)


@settings(max_examples=60)
@given(st.integers(0, 40 * PIECE), EDITS, st.booleans())
def test_any_edits_through_a_real_server(
    shared: dict[bool, Target], size: int, edits: list[tuple[float, int, int]], wide: bool
) -> None:
    old = new = OLD[:size]
    for number, (where, gone, come) in enumerate(edits):
        begin = int(where * len(new))
        new = new[:begin] + noise(come, number) + new[begin + gone :]
    there = shared[wide]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(patch, "COPY_PIECE", 5 * PIECE)
        monkeypatch.setattr(copies, "WIDE_FROM", 0 if wide else 1 << 40)
        there.put(PATH, old)
        op, delta = patch_of(old, new)
        before = there.remote.counts["bytes"]
        assert is_patched(there, apply_patch(there.remote, op, delta, new), new)
        assert there.remote.counts["bytes"] - before == delta.sent


# The old file.


def touch(there: Target) -> None:
    os.utime(there.directory / "video", (TIME, TIME + 1))


def grow(there: Target) -> None:
    with (there.directory / "video").open("ab") as file:
        file.write(b"more")
    os.utime(there.directory / "video", (TIME, TIME))


def link(there: Target) -> None:
    (there.directory / "video").rename(there.directory / "elsewhere")
    (there.directory / "video").symlink_to("elsewhere")


def remove(there: Target) -> None:
    (there.directory / "video").unlink()


@pytest.mark.parametrize("change", [touch, grow, link, remove])
def test_an_old_file_in_doubt_is_not_copied_from(
    tmp_path: Path, change: Callable[[Target], None]
) -> None:
    with target(tmp_path / "t", make()) as there:
        there.put(PATH, OLD)
        change(there)
        op, delta = patch_of(OLD, NEW)
        assert not is_patched(there, apply_patch(there.remote, op, delta, NEW))
        assert COPY not in there.connection.seen
        assert there.remote.counts["bytes"] == len(NEW)
        assert there.remote.can_copy
        assert there.connection.seen.count("OPEN") == 2  # of temporary files alone


@pytest.mark.parametrize("change", [touch, grow, remove])
@pytest.mark.parametrize("channels", [1, CHANNELS])
def test_an_old_file_that_changes_meanwhile_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Target], None], channels: int
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0 if channels > 1 else 1 << 40)
    with target(tmp_path / "t", make(), channels=channels) as there:
        pending = [change]

        def fault(number: int, request: Asked) -> None:
            if request.kind == COPY and pending:
                pending.pop()(there)

        there.connection.arm(fault)
        assert not is_patched(there, attempt(there))
        assert not pending


def test_times_that_the_server_does_not_keep_are_not_compared(tmp_path: Path) -> None:
    with target(tmp_path / "t", make()) as there:
        there.put(PATH, OLD)
        touch(there)
        there.remote.facts = Facts(keeps_times=False)
        op, delta = patch_of(OLD, NEW)
        assert isinstance(apply_patch(there.remote, op, delta, NEW).op, Patch)
        assert there.content() == NEW


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_file_that_nobody_may_write_is_patched_by_all_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0)
    connection = make()
    connection.prefix = bound_by_modes()
    with target(tmp_path / "t", connection, channels=CHANNELS) as there:
        there.put(PATH, OLD)
        op, delta = patch_of(OLD, NEW)
        op = msgspec.structs.replace(op, entry=msgspec.structs.replace(op.entry, mode=mode))
        assert isinstance(apply_patch(there.remote, op, delta, NEW).op, Patch)
        assert there.holds(PATH) == Held("f", NEW, mode, TIME + 60)


def test_a_replaced_version_goes_to_the_trash_on_request(tmp_path: Path) -> None:
    with target(tmp_path / "t", make()) as there:
        there.remote.trash = Trash(b"stamp", keep_replaced=True)
        assert is_patched(there, attempt(there))
        assert there.holds(b".skynet/trash/stamp/video") == Held("f", OLD, 0o640, TIME)


# Cuts and refusals, everywhere.


def requests_of_a_patch(base: Path, channels: int) -> list[str]:
    with target(base, make(), channels=channels) as there:
        assert is_patched(there, attempt(there))
        return there.connection.seen.copy()


@pytest.mark.parametrize("channels", [1, CHANNELS])
@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER, Act.KILL])
def test_whenever_it_is_cut_the_path_holds_a_whole_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Act, channels: int
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0 if channels > 1 else 1 << 40)
    total = len(requests_of_a_patch(tmp_path / "plain", channels))
    for number in range(total):
        with target(tmp_path / f"{number}", make(), channels=channels) as there:
            there.connection.arm(at(number, act))
            outcome = attempt(there)
            if outcome.error is not None:
                assert isinstance(outcome.error, LinkLost)
        assert there.content() == (OLD if number < total - 1 or act != Act.CUT_AFTER else NEW)


@pytest.mark.parametrize("status", [FAILURE, UNSUPPORTED, PERMISSION_DENIED])
@pytest.mark.parametrize("channels", [1, CHANNELS])
def test_whatever_is_refused_once_the_new_version_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, status: int
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0 if channels > 1 else 1 << 40)
    kinds = requests_of_a_patch(tmp_path / "plain", channels)
    for number, kind in enumerate(kinds):
        with target(tmp_path / f"{number}", make(), channels=channels) as there:
            there.connection.arm(at(number, status))
            outcome = attempt(there)
            assert there.connection._open == 0
            if number == len(kinds) - 1 and status != FAILURE:
                # Nothing else would be put in place either, so nothing else is sent.
                assert isinstance(outcome.error, NotPublished)
                assert (there.content(), there.left) == (OLD, [])
                continue
            patched = is_patched(there, outcome)
            if channels == 1:  # else it is not the same request each time
                assert patched == (kind in ("FSETSTAT", "FSTAT", kinds[-1]))
                assert there.remote.can_copy == (kind != COPY or status == FAILURE)


def test_what_is_refused_always_leaves_the_old_version(tmp_path: Path) -> None:
    with target(tmp_path / "t", make()) as there:
        there.connection.arm(every("posix-rename@openssh.com", PERMISSION_DENIED))
        assert isinstance(attempt(there).error, RequestError)
        assert (there.content(), there.left) == (OLD, [])


def test_a_server_that_does_not_copy_gets_the_whole_file(tmp_path: Path) -> None:
    with target(tmp_path / "t", FaultConnection(max_write=PIECE, without=WITHOUT)) as there:
        assert not there.remote.can_copy
        assert not is_patched(there, attempt(there))
        assert there.connection.seen[0] == "OPEN"  # nothing was tried


@pytest.mark.parametrize("status", [UNSUPPORTED, PERMISSION_DENIED, FAILURE])
def test_a_server_that_refuses_to_copy_is_not_asked_again(tmp_path: Path, status: int) -> None:
    with target(tmp_path / "t", make()) as there:
        there.connection.arm(every(COPY, status))
        assert not is_patched(there, attempt(there))
        there.connection.seen.clear()
        assert not is_patched(there, attempt(there))
        # A failure may have been about that file.
        assert (COPY in there.connection.seen) == there.remote.can_copy == (status == FAILURE)


def test_without_a_delta_all_is_sent(tmp_path: Path) -> None:
    with target(tmp_path / "t", make()) as there:
        there.put(PATH, OLD)
        op, _ = patch_of(OLD, NEW)
        assert not is_patched(there, apply_patch(there.remote, op, None, NEW))


def test_a_full_disk_stops_the_cycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skynet.remote.send.parse_space", lambda body: ALMOST_FULL)
    with target(tmp_path / "t", make()) as there:
        there.connection.arm(nth(COPY, 3, FAILURE))
        outcome = attempt(there)
        assert isinstance(outcome.error, RemoteStopped)
        assert outcome.error.code == "disk-full"
        assert there.content() == OLD
        assert there.left == []


def test_more_patches_than_the_server_opens_files_for(tmp_path: Path) -> None:
    without = frozenset({b"limits@openssh.com"})  # so that nobody knows
    connection = FaultConnection(open_files=20, without=without)
    with target(tmp_path / "t", connection) as there:
        paths = [b"%d" % number for number in range(100)]
        for path in paths:
            there.put(path, OLD)
            op, delta = patch_of(OLD, NEW, path)
            there.remote.submit(op, lambda: BytesSource(NEW), None, delta)
        ended: list[Outcome] = []
        while len(ended) < len(paths):
            ended += there.remote.wait(20)
        patched = sum(isinstance(outcome.op, Patch) for outcome in ended)
        assert patched > 90  # where all wait for each other, one gives way and is sent whole
        assert all(there.content(path) == NEW for path in paths)


# The local file.


class _Torn(BytesSource):
    def verify(self) -> bytes:
        raise TornRead("The test changed it.")


SHORT = NEW[:-1]
OTHER = NEW[:9] + bytes([NEW[9] ^ 1]) + NEW[10:]  # in what is copied
LOCAL: dict[str, BytesSource] = {
    "torn": _Torn(NEW),
    "shorter": BytesSource(SHORT),
    "longer": BytesSource(NEW + b"x"),
    "changed where it is copied": BytesSource(OTHER),
    "changed where it is sent": BytesSource(NEW[:-1] + b"x"),
    "unreadable": BytesSource(NEW, fails_at=30 * PIECE),
}


@pytest.mark.parametrize("case", LOCAL)
@pytest.mark.parametrize("channels", [1, CHANNELS])
def test_a_local_file_that_is_not_what_was_compared_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, channels: int
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0 if channels > 1 else 1 << 40)
    source = LOCAL[case]
    source.offset = source.closed = 0
    with target(tmp_path / "t", make(), channels=channels) as there:
        there.put(PATH, OLD)
        op, delta = patch_of(OLD, NEW)
        outcome = apply_reading(there.remote, op, delta, lambda: source)
        assert isinstance(outcome.error, OSError if case == "unreadable" else TornRead)
        assert there.holds(PATH) == Held("f", OLD, 0o640, TIME)
        assert there.left == []
        assert source.closed == 1


# Reading back.


@pytest.mark.parametrize("reads_back", [True, False])
def test_reading_back_finds_what_size_and_time_did_not(tmp_path: Path, reads_back: bool) -> None:
    with target(tmp_path / "t", make(), reads_back=reads_back) as there:
        there.put(PATH, bytes([OLD[0] ^ 1]) + OLD[1:])
        op, delta = patch_of(OLD, NEW)
        outcome = apply_patch(there.remote, op, delta, NEW)
        assert isinstance(outcome.op, Upload if reads_back else Patch)
        assert (there.content() == NEW) == reads_back
        assert there.left == []


def test_reading_back_costs_a_reading_of_the_whole(tmp_path: Path) -> None:
    with target(tmp_path / "t", make(), reads_back=True) as there:
        assert is_patched(there, attempt(there))
        assert there.connection.seen.count("READ") == -(-len(NEW) // MAX_READ)
