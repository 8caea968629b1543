"""A directory of the target that is another file system: no rename leads in or out of it."""

from __future__ import annotations

from pathlib import Path
from struct import unpack_from

import pytest

from skynet.sftp.replies import FAILURE
from tests.support.frames import Asked
from tests.support.world import World

PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})


def ends(request: Asked) -> tuple[bytes, bytes]:
    """From where to where a rename leads."""
    at = 9 if request.kind == "RENAME" else 13 + len(request.kind)
    at += 4 + len(request.text)
    (length,) = unpack_from(">I", request.packet, at)
    return request.text, request.packet[at + 4 : at + 4 + length]


def between_file_systems(_number: int, request: Asked) -> int | None:
    if request.kind not in ("RENAME", "posix-rename@openssh.com"):
        return None
    source, path = ends(request)
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
