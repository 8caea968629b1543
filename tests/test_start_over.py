"""A large upload that broke off starts over if anything is not as it was, and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from skynet.monitor import Notice
from skynet.scan import identity
from tests.support.breaks import (
    CONTENT,
    PATH,
    PIECE,
    SAMPLE,
    cut,
    finish,
    intents,
    intents_of,
    is_content,
    rewrite,
    small,  # noqa: F401  a fixture
    temp_of,
    world_of_a_video,  # noqa: F401  a fixture
)
from tests.support.faults import no_fault
from tests.support.frames import Asked
from tests.support.world import World, frozen

# Starting over.


def test_a_file_that_was_written_again_is_sent_from_its_beginning(world: World) -> None:
    cut(world, 60)
    status = (world.local / "video").stat()
    world.put({os.fsdecode(PATH): CONTENT[::-1]}, at=status.st_mtime_ns)
    assert finish(world).counts["resumed"] == 0


def test_other_bytes_under_the_same_identity_are_found_by_the_digest(world: World) -> None:
    cut(world, 60)
    status = (world.local / "video").stat()
    changed = CONTENT[:9] + b"\0" + CONTENT[10:]
    assert changed != CONTENT
    world.put({os.fsdecode(PATH): changed}, at=status.st_mtime_ns)
    # The sample on the server is elsewhere, so only the digest can tell.
    same = identity((world.local / "video").stat())
    rewrite(world, lambda intent: msgspec.structs.replace(intent, identity=same))
    assert finish(world).counts["resumed"] == 0


def remove(temp: Path) -> None:
    temp.unlink()


def truncate(temp: Path) -> None:
    os.truncate(temp, 20 * PIECE)


def zero_recent(temp: Path) -> None:
    with temp.open("r+b") as file:
        file.seek(30 * PIECE)
        file.write(bytes(3 * PIECE))


def zero_old(temp: Path) -> None:
    with temp.open("r+b") as file:
        file.write(bytes(5 * PIECE))


def become_a_directory(temp: Path) -> None:
    temp.unlink()
    temp.mkdir()


@pytest.mark.parametrize("damage", [remove, truncate, zero_recent, zero_old, become_a_directory])
def test_a_temporary_file_that_is_not_what_it_was_is_given_up(
    world: World, damage: Callable[[Path], None]
) -> None:
    cut(world, 60)
    damage(temp_of(world))
    assert finish(world).counts["resumed"] == 0


def test_a_link_in_place_of_the_temporary_file_is_not_followed(world: World) -> None:
    cut(world, 60)
    temp = temp_of(world)
    outside = world.base / "outside"
    temp.rename(outside)
    before = outside.read_bytes()
    temp.symlink_to(outside)
    assert finish(world).counts["resumed"] == 0
    assert outside.read_bytes() == before


@pytest.mark.parametrize("kind", ["OPEN", "READ", "LSTAT"])
def test_a_server_that_refuses_to_go_on_gets_it_all(world: World, kind: str) -> None:
    cut(world, 60)
    name = os.fsencode(temp_of(world).name)
    sample = SAMPLE.to_bytes(4, "big")

    def fault(number: int, request: Asked) -> int | None:
        is_meant = request.packet.endswith(sample) if kind == "READ" else name in request.text
        return 4 if request.kind == kind and is_meant else None

    world.fault = fault
    assert world.sync().counts["resumed"] == 0
    assert [request.kind for request in world.asked].count(kind)
    world.check()


def test_lost_intents_cost_the_whole_file(world: World) -> None:
    cut(world, 60)
    world.lose_state()
    assert finish(world).counts["resumed"] == 0


def test_damaged_intents_cost_the_whole_file_and_a_notice(world: World) -> None:
    cut(world, 60)
    for file in intents_of(world)._directory.iterdir():
        file.write_bytes(b"rubbish" * 1000)
    report = world.sync()
    codes = [event.code for event in world.events if isinstance(event, Notice)]
    assert "intents-damaged" in codes
    assert report.outcome == "changed"
    assert report.counts["resumed"] == 0
    world.check()
    world.quiet()


# What is left of those that nobody wants any more.


def delete_it(world: World) -> None:
    world.put({os.fsdecode(PATH): None, "small": b"1"})


def shorten_it(world: World) -> None:
    world.put({os.fsdecode(PATH): CONTENT[: 20 * PIECE]})


def rename_it(world: World) -> None:
    world.move("video", "d/renamed")


@pytest.mark.parametrize("change", [delete_it, shorten_it, rename_it])
@pytest.mark.parametrize("audit", [True, False])
def test_the_temporary_file_of_an_upload_nobody_wants_is_removed(
    world: World, change: Callable[[World], None], audit: bool
) -> None:
    cut(world, 60)
    change(world)
    assert finish(world, audit=audit).counts["resumed"] == 0


def test_a_recovery_removes_all_but_what_is_gone_on_with(world: World) -> None:
    cut(world, 60)
    temps = world.remote / ".skynet/tmp"
    (temps / "left").write_bytes(b"by another")
    (temps / "3").mkdir()
    (temps / "3/left").write_bytes(b"by another")
    moved = temp_of(world).rename(temps / "3" / temp_of(world).name)
    rewrite(world, lambda i: msgspec.structs.replace(i, temp=b"tmp/3/" + os.fsencode(moved.name)))
    report = world.sync()
    assert report.counts["resumed"] > 0
    assert world.files() == {"video": CONTENT}
    assert list(temps.rglob("*")) == [temps / "3"]


def test_a_problem_leaves_nothing_to_go_on_with(world: World) -> None:
    cut(world, 60)
    world.fault = lambda number, request: 3 if is_content(request) else None
    assert world.sync().outcome == "problems"
    assert world.temps() == []
    assert intents(world) == {}
    world.fault = no_fault
    assert finish(world).counts["resumed"] == 0


def test_a_dry_run_writes_nothing(world: World) -> None:
    cut(world, 60)
    before = frozen(world.base)
    assert world.plan().outcome == "planned"
    assert frozen(world.base) == before


def test_small_files_need_no_intents(world: World) -> None:
    world.put({os.fsdecode(PATH): b"small"})
    world.sync()
    assert not intents_of(world)._directory.exists()
