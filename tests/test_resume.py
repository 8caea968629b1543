"""A large upload that broke off goes on from what was acknowledged, if that is still the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.errors import LinkLost
from skynet.intents import Intents
from skynet.memory import INTENTS
from skynet.monitor import Event, Progress
from skynet.scan import digest_of
from skynet.sftp import wire
from skynet.sftp.pieces import NOTHING, Mark, Piece, Pieces, Trail
from tests.support.breaks import (
    CONTENT,
    IN_FLIGHT,
    PATH,
    PIECE,
    SAMPLE,
    SIZE,
    SMALL_CHANGE,
    cut,
    finish,
    intents,
    is_content,
    make_world,
    sent,
    small,  # noqa: F401  a fixture
    world_of_a_video,  # noqa: F401  a fixture
)
from tests.support.command import DEADLINE, bound_by_modes, environment, make_site
from tests.support.faults import Act, no_fault
from tests.support.frames import Asked, written
from tests.support.sources import BytesSource
from tests.support.sshd import running_sshd
from tests.support.world import World

# Going on.


@pytest.mark.parametrize("audit", [True, False])
@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER, Act.KILL])
@pytest.mark.parametrize("after", [20, 60, 99])
def test_only_what_was_not_acknowledged_is_sent_again(
    world: World, after: int, act: Act, audit: bool
) -> None:
    first = cut(world, after, act)
    report = world.sync(audit=audit)
    assert first + sent(world) <= SIZE + IN_FLIGHT + SMALL_CHANGE
    assert report.counts["resumed"] >= after * PIECE - IN_FLIGHT
    assert report.counts["bytes"] == SIZE - report.counts["resumed"]
    assert report.done["bytes"] == SIZE
    world.check()
    assert intents(world) == {}
    world.quiet()


def test_progress_counts_what_is_there_and_ends_at_the_total(world: World) -> None:
    cut(world, 60)
    world.sync()
    progress = [event for event in world.events if isinstance(event, Progress)]
    assert progress[-1].sent_bytes == progress[-1].total_bytes == SIZE


@pytest.mark.parametrize("size", [10 * PIECE, 10 * PIECE + 1, 30 * PIECE])
def test_a_file_of_which_all_was_acknowledged_is_only_put_in_place(world: World, size: int) -> None:
    world.put({os.fsdecode(PATH): CONTENT[:size]})
    world.fault = lambda number, request: (
        Act.CUT_BEFORE if request.kind == "FSETSTAT" and intends(request) else None
    )
    with pytest.raises(LinkLost):
        world.sync()
    world.fault = no_fault
    assert finish(world).counts["bytes"] == 0


def intends(request: Asked) -> bool:
    """Whether a FSETSTAT sets the mode that local files have, as the probe's does not."""
    return b"\x00\x00\x01\xa4" in request.packet


@settings(max_examples=20)
@given(
    st.integers(10 * PIECE, SIZE),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([Act.CUT_BEFORE, Act.CUT_AFTER]))),
)
def test_however_often_it_is_cut(size: int, cuts: list[tuple[int, Act]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        world = make_world(Path(base))
        world.put({os.fsdecode(PATH): CONTENT[:size], "other": CONTENT[: 30 * PIECE]})
        total = size + 30 * PIECE
        content = 0
        for after, act in cuts:
            if after * PIECE + 2 * IN_FLIGHT > total - content:
                break
            content += cut(world, after, act)
        assert world.sync().outcome == "changed"
        world.check()
        assert intents(world) == {}
        # Both files may have had so much in flight whenever it was cut.
        again = len(cuts) * (2 * IN_FLIGHT + SMALL_CHANGE)
        assert content + sent(world) <= total + again + SMALL_CHANGE


def test_a_break_while_it_is_compared_costs_nothing(world: World) -> None:
    cut(world, 60)
    (before,) = intents(world).values()
    sample = SAMPLE.to_bytes(4, "big")
    world.fault = lambda number, request: (
        Act.CUT_AFTER if request.kind == "READ" and request.packet.endswith(sample) else None
    )
    with pytest.raises(LinkLost):
        world.sync()
    world.fault = no_fault
    assert intents(world) == {PATH: before}
    assert finish(world).counts["resumed"] == before.length


def test_an_interrupted_run_is_gone_on_with(world: World) -> None:
    def press(event: Event) -> None:
        if isinstance(event, Progress) and event.sent_bytes:
            raise KeyboardInterrupt

    stall_after(world, 50)
    world.on_event = press
    with pytest.raises(KeyboardInterrupt):
        world.sync()
    world.on_event = lambda event: None
    world.fault = no_fault
    assert finish(world).counts["resumed"] >= 50 * PIECE - IN_FLIGHT


def test_a_run_that_died_goes_on_from_what_was_noted(world: World) -> None:
    def die(event: Event) -> None:
        world.monotonic += 2  # so that it is time to note
        if intents(world):
            raise SystemExit  # no room handles it: nothing is saved

    stall_after(world, 50)
    world.on_event = die
    with pytest.raises(SystemExit):
        world.sync()
    world.on_event = lambda event: None
    world.fault = no_fault
    (noted,) = intents(world).values()
    assert finish(world).counts["resumed"] == noted.length > 0


def stall_after(world: World, number: int) -> None:
    """Let no content write behind this one be answered."""
    seen = 0

    def fault(_: int, request: Asked) -> Act | None:
        nonlocal seen
        seen += is_content(request)
        return Act.STALL if is_content(request) and seen > number else None

    world.fault = fault


DIES = """
import os, signal
from skynet import apply, cli
from skynet.intents import Intents
apply.NOTE_SECONDS, apply.WAIT_SECONDS = 0.0, 0.001
note = Intents.note
def note_and_die(self, intents):
    note(self, intents)
    if self.noted():
        os.kill(os.getpid(), signal.SIGKILL)
Intents.note = note_and_die
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")
def test_a_killed_skynet_goes_on_against_a_real_server(tmp_path: Path) -> None:
    size = 96 << 20
    with running_sshd(tmp_path / "sshd") as sshd:
        site = make_site(sshd, tmp_path)
        with (site.source / "video").open("wb") as file:
            file.truncate(size)
        words = ["sync", "--once", "--state-dir", str(tmp_path / "state")]
        slowly = ["--bwlimit", "40M"]  # or it may be there before anything is noted
        died = subprocess.run(
            [sys.executable, "-c", DIES, *words, *slowly, *map(str, site.options())],
            env=environment(),
            timeout=DEADLINE,
            capture_output=True,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        (state,) = (tmp_path / "state").glob(f"*/{INTENTS}")
        intents = Intents(state, lambda event: None)
        noted = intents.noted()[b"video"].length
        intents.close()
        done = site.sync("--json", "--state-dir", tmp_path / "state")
        assert done.json["outcome"] == "changed"
        assert done.json["sent_bytes"] <= size - noted + 100  # and the two small files
        assert (site.target / "video").read_bytes() == bytes(size)
        assert not list((site.target / ".skynet/tmp").iterdir())


# The parts.


@given(st.permutations(range(12)))
def test_a_trail_counts_the_beginning_without_a_gap(order: list[int]) -> None:
    content = random.Random(2).randbytes(12 * 10)
    pieces = Pieces(BytesSource(content), 10)
    handed_out = [pieces.next(1 << 20) for _ in range(12)]
    trail = Trail(lambda count: None)
    trail.begin(b"identity", NOTHING)
    done: set[int] = set()
    for number in order:
        trail.acknowledge(handed_out[number])
        done.add(number)
        whole = next(n for n in range(13) if n not in done)
        expected = Mark(whole * 10, digest_of([content[: whole * 10]]))
        assert trail.reached() == (b"identity", expected)
        runs = sum(1 for n in done if n - 1 not in done)
        assert len(trail._ends) <= runs + 1


def test_a_trail_that_goes_on_begins_where_the_last_one_ended() -> None:
    told: list[int] = []
    trail = Trail(told.append)
    mark = Mark(50, b"d" * 16)
    trail.begin(b"identity", mark)
    assert trail.reached() == (b"identity", mark)
    trail.acknowledge(Piece(50, b"x" * 10, Mark(60, b"e" * 16)))
    assert trail.reached() == (b"identity", Mark(60, b"e" * 16))
    assert told == [50]


def test_a_file_that_nobody_may_write_is_gone_on_with(world: World) -> None:
    world.prefix = bound_by_modes()
    (world.local / os.fsdecode(PATH)).chmod(0o444)
    first = cut(world, 60)
    report = finish(world)
    assert first + sent(world) <= SIZE + IN_FLIGHT + SMALL_CHANGE
    assert report.counts["resumed"] >= 60 * PIECE - IN_FLIGHT


def test_what_goes_in_order_to_one_writer_is_not_noted(world: World) -> None:
    world.without = frozenset({b"statvfs@openssh.com"})

    def fault(number: int, request: Asked) -> Act | int | None:
        if request.kind == "OPEN" and b"/tmp/" in request.text:  # an object store has no second
            flags = int.from_bytes(request.packet[13 + len(request.text) :][:4], "big")
            return 4 if flags == wire.WRITE_EXISTING else None
        return Act.CUT_BEFORE if is_content(request) and written(request)[0] > SIZE // 2 else None

    world.fault = fault
    with pytest.raises(LinkLost):
        world.sync()
    world.fault = no_fault
    assert intents(world) == {}
    assert finish(world).counts["resumed"] == 0
