"""What was read for the plan and is another by the time it is sent, with its size and its time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skynet.ops import Copy
from tests.support.world import World

OLD, NEW = b"1" * 70_000, b"2" * 70_000


def rewrite(path: Path, content: bytes) -> None:
    """As `exiftool -P` and `touch -r` do."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("before", [None, b"an old version of both"])
def test_a_copy_of_what_was_sent_otherwise_is_sent_as_well(
    tmp_path: Path, before: bytes | None
) -> None:
    world = World(tmp_path)
    other = b"0" * len(OLD)
    world.put({"gone": other, "one.jpg": before, "two.jpg": before, "three.jpg": before})
    world.sync()
    # What is as large as a file that is gone may be that file, so it is read for the plan.
    world.put({"gone": None, "one.jpg": OLD, "two.jpg": OLD, "three.jpg": OLD})
    world.at_open(b"lease", lambda: rewrite(world.local / "one.jpg", NEW))
    report = world.sync()
    assert [op.source for op in report.plan.ops if isinstance(op, Copy)] == [b"one.jpg"] * 2
    assert report.done["upload"] == 3
    assert not report.problems
    world.check({"gone": other})
    world.quiet()
