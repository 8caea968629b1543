"""A directory of the target that is another file system: no rename leads in or out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet.sftp.replies import FAILURE, PERMISSION_DENIED
from tests.support.faults import POSIX_RENAME
from tests.support.frames import Asked, renamed
from tests.support.versions import MIB, noise
from tests.support.world import World

NOISE = noise(2 * MIB, 3)
PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})


def between_file_systems(_number: int, request: Asked) -> int | None:
    if request.kind not in ("RENAME", POSIX_RENAME):
        return None
    source, path = renamed(request)
    return FAILURE if (b"/far/" in source) != (b"/far/" in path) else None


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_files_are_made_and_replaced_there(tmp_path: Path, without: frozenset[bytes]) -> None:
    world = World(tmp_path, trash_days=0)
    world.without, world.fault = without, between_file_systems
    world.put({"far": {"picture": b"old", "other": b"stays"}, "near": b"old"})
    assert world.sync().outcome == "changed"
    world.check()
    world.put({"far": {"picture": b"new and longer"}, "near": b"new"})
    assert world.sync().outcome == "changed"
    world.check()
    world.quiet()


def test_a_file_is_copied_and_patched_there_and_little_is_sent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fault = between_file_systems
    world.put({"far": {"video": NOISE}, "near": b"1"})
    world.sync()
    world.put({"far": {"copy": NOISE}})
    report = world.sync()
    assert (report.done["copy"], report.counts["bytes"]) == (1, 0)
    world.check()
    world.put({"far": {"video": NOISE + b"more"}})
    report = world.sync()
    assert report.done["patch"] == 1
    assert report.counts["bytes"] < len(NOISE) // 2
    world.check()
    world.quiet()


@pytest.mark.parametrize("what", ["new", "copy"])
def test_into_a_directory_of_somebody_else_nothing_is_sent_twice(tmp_path: Path, what: str) -> None:
    world = World(tmp_path)
    world.put({"theirs": {"a": b"1"}, "video": NOISE})
    world.sync()
    world.put({"theirs": {what: NOISE if what == "copy" else NOISE[::-1]}})

    def theirs(_number: int, request: Asked) -> int | None:
        renames = request.kind in ("RENAME", POSIX_RENAME)
        return PERMISSION_DENIED if renames and b"/theirs/" in renamed(request)[1] else None

    world.fault = theirs
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [
        (b"theirs/" + what.encode(), "permission-denied")
    ]
    assert report.counts["bytes"] == (0 if what == "copy" else len(NOISE))
    assert world.temps() == []
