"""File systems of a test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of 256 KiB at `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass

    def empty(self) -> None:
        """Let there be room again."""
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """ro or rw."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)

    @property
    def _ballast(self) -> Path:
        return self.place / "ballast"


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """It is mounted for the length of the block; skips the test where that cannot be."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
