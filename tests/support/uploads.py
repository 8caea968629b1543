"""A target with an old version of one file in it, and attempts to upload the new one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.faults import Fault, FaultConnection
from tests.support.pipes import client_over
from tests.support.sources import Sending, raised

OLD, NEW = b"the old picture", b"the new picture, larger"
ONE_WRITE = ["OPEN", "WRITE", "FSETSTAT", "FSTAT", "CLOSE", "posix-rename@openssh.com"]
HEALED = {"FSETSTAT", "FSTAT"}  # what they were for is done by path instead


class World:
    """A target directory with an old version of one file in it, and that file's upload."""

    def __init__(self, directory: Path) -> None:
        self.temps = directory / "tmp"
        self.temps.mkdir()
        self.sending = Sending(os.fsencode(directory))
        self.path = directory / "picture"
        self.path.write_bytes(OLD)

    @property
    def left(self) -> list[str]:
        """Temporary files, by the beginning of their names."""
        return sorted(temp.name.partition("-")[0] for temp in self.temps.iterdir())


def attempt(
    world: World, connection: FaultConnection, fault: Fault, content: bytes = NEW
) -> BaseException | None:
    """Upload with a fault; the error. The server has ended when this returns."""
    with client_over(connection) as client:
        connection.arm(fault)
        return raised(lambda: world.sending.send(client, content))
