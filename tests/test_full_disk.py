"""A remote disk that takes nothing more: a run says so, and leaves nothing in the way of the next.

Real file systems, small ones; only root can mount them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet.errors import RemoteStopped
from skynet.monitor import Notice
from tests.support.world import World


@contextlib.contextmanager
def mounted(world: World, options: str) -> Iterator[None]:
    """The target is a file system of its own."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(world.remote)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(world.remote)], check=True)


def remount(world: World, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(world.remote)]
    subprocess.run(command, check=True, capture_output=True)


def stops(world: World, code: str, *words: str) -> None:
    """A run ends since the remote as a whole takes nothing."""
    with pytest.raises(RemoteStopped) as caught:
        world.sync()
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in words)


def recovers(world: World) -> None:
    world.sync()
    world.check()
    world.quiet()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.put({"a": b"a", "d": {"b": b"b"}})
    return world


def test_a_disk_that_is_full_from_the_beginning(world: World) -> None:
    with mounted(world, "size=64k"):
        ballast = world.remote / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        stops(world, "disk-full", "0 KiB are free")
        ballast.unlink()
        world.sync()
        assert not [event for event in world.events if isinstance(event, Notice)], "of a lease"
        world.check()


@pytest.mark.parametrize("inodes", range(2, 9))
def test_a_disk_that_takes_no_more_files(world: World, inodes: int) -> None:
    with mounted(world, f"size=1m,nr_inodes={inodes}"):
        stops(world, "disk-full", "as many files as it can hold")
        remount(world, "nr_inodes=100")
        recovers(world)


def test_a_directory_that_a_full_disk_does_not_take(world: World) -> None:
    with mounted(world, "size=1m,nr_inodes=100"):
        world.sync()
        world.put({"new": {"c": b"c"}})
        used = os.statvfs(world.remote)
        remount(world, f"nr_inodes={used.f_files - used.f_ffree}")
        stops(world, "disk-full", "as many files as it can hold")
        remount(world, "nr_inodes=100")
        recovers(world)


def test_a_disk_that_is_read_only_now(world: World) -> None:
    with mounted(world, "size=1m"):
        world.sync()
        remount(world, "ro")
        world.quiet()
        world.put({"c": b"c"})
        stops(world, "read-only", "Have it made writable")
        remount(world, "rw")
        recovers(world)
