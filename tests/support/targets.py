"""A target in memory and one on disk behind a real sftp-server, with one way to look at both."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from skynet.errors import RequestError
from skynet.ops import Op, Upload
from skynet.remote import Outcome, Remote, SftpRemote
from skynet.remote.verbs import OWN
from skynet.scan import digest_of
from skynet.sftp.client import Client
from skynet.sftp.pieces import Source
from skynet.tree import DIR, FILE, LINK, Entry, Kind, join
from tests.support.memory import MemoryRemote, MemorySource
from tests.support.pipes import PipeConnection

KINDS = ["memory", "sftp-server"]
SECOND = 1_000_000_000
TIME = 1_234_567_890
DEADLINE = 60.0
TEMPS = join(OWN, b"tmp")


class Held(NamedTuple):
    """What is at one path: a file's content or a link's target; times in whole seconds."""

    kind: Kind
    content: bytes = b""
    mode: int = 0
    mtime: int = 0


class Place(Protocol):
    """A target, its remote, and a look at it that does not go through the remote."""

    remote: Remote

    def put(self, path: bytes, content: bytes) -> None:
        """Somebody else puts a file there, mode 0o640, time TIME."""

    def mkdir(self, path: bytes) -> None:
        """Somebody else makes a directory."""

    def holds(self, path: bytes) -> Held | None:
        """What is there now."""

    def everything(self) -> set[bytes]:
        """All paths below the target."""


class InMemory:
    """See Place."""

    def __init__(self) -> None:
        self.memory = MemoryRemote({})
        self.remote: Remote = self.memory

    def put(self, path: bytes, content: bytes) -> None:
        self.memory.tree[path] = Entry(FILE, len(content), TIME * SECOND, 0o640)
        self.memory.data[path] = content

    def mkdir(self, path: bytes) -> None:
        self.memory.tree[path] = Entry(DIR, mode=0o755)

    def holds(self, path: bytes) -> Held | None:
        entry = self.memory.tree.get(path)
        if entry is None:
            return None
        content = entry.link or self.memory.data.get(path, b"")
        return Held(entry.kind, content, entry.mode or 0, entry.mtime_ns // SECOND)

    def everything(self) -> set[bytes]:
        return set(self.memory.tree)


class OnDisk:
    """See Place."""

    def __init__(self, directory: Path, client: Client) -> None:
        self._root = os.fsencode(directory)
        self.remote: Remote = SftpRemote(client, self._root, "nonce")

    def put(self, path: bytes, content: bytes) -> None:
        full = os.path.join(self._root, path)
        with open(full, "wb") as file:
            file.write(content)
        os.chmod(full, 0o640)
        os.utime(full, (TIME, TIME))

    def mkdir(self, path: bytes) -> None:
        os.mkdir(os.path.join(self._root, path))

    def holds(self, path: bytes) -> Held | None:
        full = os.path.join(self._root, path)
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            return None
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return Held(LINK, os.readlink(full))
        if stat.S_ISDIR(status.st_mode):
            return Held(DIR, mode=mode)
        with open(full, "rb") as file:
            return Held(FILE, file.read(), mode, int(status.st_mtime))

    def everything(self) -> set[bytes]:
        found: set[bytes] = set()
        for where, directories, files in os.walk(self._root):
            found |= {os.path.join(where, name) for name in [*directories, *files]}
        return {path.removeprefix(self._root + b"/") for path in found}


@contextlib.contextmanager
def on_disk(directory: Path) -> Iterator[OnDisk]:
    """A target behind a server process, which ends with the block."""
    client = Client(PipeConnection(), channels=1, timeout=DEADLINE)
    try:
        yield OnDisk(directory, client)
    finally:
        client.close()


@contextlib.contextmanager
def prepared(kind: str, directory: Path) -> Iterator[Place]:
    """An empty target of one of KINDS that has been prepared."""
    if kind == "memory":
        in_memory = InMemory()
        in_memory.remote.prepare()
        yield in_memory
        return
    with on_disk(directory / "target") as place:
        place.remote.prepare()
        yield place


def entry_of(content: bytes, mode: int = 0o644, mtime: int = TIME) -> Entry:
    return Entry(FILE, len(content), mtime * SECOND + 5, mode, digest_of([content]))


def source(content: bytes) -> Callable[[], Source]:
    return lambda: MemorySource(content, b"identity")


def do(remote: Remote, op: Op, content: bytes = b"") -> Outcome:
    """Carry out one operation."""
    remote.submit(op, source(content))
    (outcome,) = remote.wait(DEADLINE)
    return outcome


def succeed(remote: Remote, op: Op, content: bytes = b"") -> Outcome:
    outcome = do(remote, op, content)
    assert outcome.error is None
    return outcome


def refused(remote: Remote, op: Op, content: bytes = b"") -> str:
    """The code with which one operation is refused."""
    outcome = do(remote, op, content)
    assert isinstance(outcome.error, RequestError)
    assert outcome.op == op
    return outcome.error.code


def upload(path: bytes, content: bytes, replaces: Entry | None = None, **more: bool) -> Upload:
    unhashed = msgspec.structs.replace(entry_of(content), digest=b"")
    return Upload(path, unhashed, replaces, **more)


def visible(place: Place) -> set[bytes]:
    """All that is at the target but skynet's own."""
    return {path for path in place.everything() if path != OWN and not path.startswith(OWN + b"/")}


def temps(place: Place) -> set[bytes]:
    return {path for path in place.everything() if path.startswith(TEMPS + b"/")}
