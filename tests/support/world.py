"""A world to sync in: a local directory, a real sftp-server over a pipe, and a clock of our own.

    world.put({"a": b"1", "d": {"b": b"2"}, "l": Link("a"), "gone": None})
    world.sync(complete_sync=True)
    world.check()

Names are str or bytes; a dict is a directory, None removes. Every `put` gives its files a later
modification time. The wall clock stands ten seconds ahead of the file system's, so that nothing
looks freshly written; a test of the racy-clean rule sets `ahead_ns` to 0.
"""

from __future__ import annotations

import copy
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from skynet.config import Mirror, Target
from skynet.cycle import Report, Request, Surroundings
from skynet.errors import LinkLost, SkynetError
from skynet.monitor import Event
from skynet.reconcile import run_cycle
from skynet.remote import SftpRemote
from skynet.sftp.client import Client
from tests.support.faults import Act, Fault, FaultConnection, no_fault
from tests.support.frames import Asked
from tests.support.turns import Turn, TurnConnection, Turns

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
EPOCH = 1_700_000_000 * SECOND
REQUEST_FIELDS = {"audit", "adopt", "approve", "dry_run", "bind", "saved"}
OWN = b".skynet"

Name = str | bytes


class Link(NamedTuple):
    """A symbolic link, as content."""

    target: str | bytes


class Node(NamedTuple):
    """One path of a real tree. content: a file's, or a link's target. mtime: seconds, of files."""

    kind: str
    content: bytes
    mode: int
    mtime: int


Content = bytes | Link | Mapping[Any, Any] | None


class World:
    """See the module's text. `settings` are the mirror's own, over the defaults."""

    def __init__(self, base: Path, **settings: Any) -> None:
        self.base = base
        self.local, self.remote, self.state = base / "local", base / "remote", base / "state"
        self.local.mkdir()
        self.remote.mkdir()
        self.settings = settings
        self.fault: Fault = no_fault
        self.asked: list[Asked] = []  # the requests of the last cycle
        self.on_request: Callable[[Asked], None] = lambda request: None
        self.events: list[Event] = []
        self.ahead_ns = 10 * SECOND
        self.monotonic = 1000.0
        self.host = "here"
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_sleep: Callable[[], None] = lambda: None
        self.without: frozenset[bytes] = frozenset()  # extensions that the server lacks
        self.max_write = 0  # the limit that the server is made to state
        self.turns: Turns | None = None
        self.prefix: Sequence[str] = ()  # of the server's command, as from `bound_by_modes`
        self._moment = EPOCH

    # Making trees.

    def put(self, tree: Mapping[Any, Any], *, at: int | None = None) -> None:
        """Change the local tree; `at`: modification time of its files, in nanoseconds."""
        self._moment += SECOND + 1
        put(os.fsencode(self.local), tree, self._moment if at is None else at)

    def put_remote(self, tree: Mapping[Any, Any], *, at: int | None = None) -> None:
        """Change the remote tree behind skynet's back."""
        self._moment += SECOND + 1
        put(os.fsencode(self.remote), tree, self._moment if at is None else at)

    def move(self, source: str, path: str) -> None:
        (self.local / path).parent.mkdir(parents=True, exist_ok=True)
        (self.local / source).rename(self.local / path)

    # Running cycles.

    def mirror(self, **settings: Any) -> Mirror:
        plain = Mirror(
            name="test",
            source=os.fsencode(self.local),
            target=Target("host", os.fsencode(self.remote)),
            state_dir=self.state,
            channels=1,
        )
        return replace(plain, **(self.settings | settings))

    def sync(self, **options: Any) -> Report:
        """Run one cycle. Options: the fields of Request and Mirror."""
        self.asked, self.events = [], []
        wanted = {key: value for key, value in options.items() if key in REQUEST_FIELDS}
        settings = {key: value for key, value in options.items() if key not in REQUEST_FIELDS}
        return run_cycle(
            self.mirror(**settings), self.connect, Request(**wanted), self.surroundings()
        )

    def plan(self, **options: Any) -> Report:
        return self.sync(dry_run=True, **options)

    def quiet(self, **options: Any) -> Report:
        """Run one cycle that must find nothing to do."""
        report = self.sync(**options)
        assert report.outcome == "in-sync", (report.plan.ops, report.problems, report.hazards)
        assert not report.plan.ops
        assert report.counts["mutations"] == 0, self.requests()
        return report

    def approve(self, **options: Any) -> Report:
        """Run a cycle that must be held, and approve what it shows."""
        held = self.sync(**options)
        assert held.outcome == "held", held
        assert held.counts["mutations"] == 0
        return self.sync(approve=held.hazards[0].approve, **options)

    def sync_in(self, *turns: Turn, **options: Any) -> Report:
        """Run one cycle that costs these turns and no more. Options: as of `sync`."""
        self.turns = Turns(*turns)
        try:
            report = self.sync(**options)
        except LinkLost:
            self.turns.check()  # which says where it waits for an answer
            raise
        self.turns.check()
        self.turns = None
        return report

    def connect(self) -> SftpRemote:
        connection = FaultConnection(self._meet, without=self.without, max_write=self.max_write)
        if self.turns is not None:
            connection = TurnConnection(self.turns, self._meet)
        connection.prefix = self.prefix
        client = Client(connection, channels=1, timeout=20.0)
        return SftpRemote(client, os.fsencode(self.remote), os.urandom(5).hex())

    def _meet(self, number: int, request: Asked) -> Act | int | None:
        self.asked.append(request)
        self.on_request(request)
        return self.fault(number, request)

    def surroundings(self) -> Surroundings:
        return Surroundings(
            clock=lambda: self.monotonic,
            sleep=self._sleep,
            now_ns=lambda: time.time_ns() + self.ahead_ns,
            token=os.urandom,
            host=self.host,
            pid_space="",
            monitor=self._note,
        )

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def _sleep(self, seconds: float) -> None:
        self.monotonic += seconds
        self.on_sleep()

    def at_open(self, part: bytes, action: Callable[[], None]) -> None:
        """In the next cycle, act once: when a path of skynet's own with `part` in it is opened.

        The lease is opened when the plan is made and nothing of it is done, tmp/ by an upload.
        """
        seen: list[Asked] = []

        def on_request(request: Asked) -> None:
            if request.kind == "OPEN" and b"/.skynet/" + part in request.text and not seen:
                seen.append(request)
                action()

        self.on_request = on_request

    def twin(self) -> World:
        """Another skynet on this machine with the same source and target, and its own state."""
        other = copy.copy(self)
        other.state = self.base / "twin"
        other.asked, other.events = [], []
        return other

    def lose_state(self) -> None:
        """Delete the state directory."""
        shutil.rmtree(self.state)

    # Looking.

    def requests(self) -> list[str]:
        """The last cycle's requests, in order: "OPEN", "posix-rename", ..."""
        return [request.kind.partition("@")[0] for request in self.asked]

    def check(self, extra: Mapping[str, bytes] | None = None, *, empty_dirs: bool = False) -> None:
        """Assert that the remote equals the local tree, `extra` files of the remote apart.

        Without `empty_dirs` an empty local directory may be on the remote or not.
        """
        local, found = tree_of(self.local), tree_of(self.remote)
        for name, content in (extra or {}).items():
            path = os.fsencode(name)
            assert found.pop(path).content == content
            while (path := path.rpartition(b"/")[0]) and path not in local:
                found.pop(path, None)
        if empty_dirs:
            assert found == local
        else:
            assert without_empty(found) == without_empty(local)
            assert found.items() <= local.items()
        assert self.temps() == []

    def files(self) -> dict[str, bytes]:
        """Path and content of the remote's files."""
        nodes = tree_of(self.remote).items()
        return {os.fsdecode(path): node.content for path, node in nodes if node.kind == "f"}

    def trashed(self) -> dict[str, bytes]:
        """Path, without the stamp, and content of what is in the remote's trash."""
        trash = self.remote / ".skynet" / "trash"
        found: dict[str, bytes] = {}
        for stamp in sorted(trash.iterdir()) if trash.exists() else ():
            for path, node in tree_of(stamp).items():
                if node.kind != "d":
                    found[os.fsdecode(path)] = node.content
        return found

    def age_trash(self, days: int) -> None:
        """Let the server's clock have gone on by so many days since the trash was filled."""
        for stamp in (self.remote / ".skynet" / "trash").iterdir():
            then = stamp.stat().st_mtime_ns - days * DAY
            os.utime(stamp, ns=(then, then))

    def let_days_pass(self, days: int) -> None:
        """By all clocks."""
        self.ahead_ns += days * DAY
        self.age_trash(days)

    def temps(self) -> list[str]:
        """Names of temporary files anywhere on the remote."""
        temps = self.remote / ".skynet" / "tmp"
        found = [path.name for path in temps.rglob("*") if not path.is_dir()]
        return found + [os.fsdecode(p) for p in tree_of(self.remote) if b".skynet-tmp-" in p]


def put(root: bytes, tree: Mapping[Any, Any], at: int) -> None:
    """Write `tree` below the directory `root`, replacing whatever is in the way."""
    for name, content in tree.items():
        path = os.path.join(root, os.fsencode(name))
        _clear(path, content)
        _put_one(path, content, at)


def _clear(path: bytes, content: Content) -> None:
    """Remove what `content` cannot be written into; a file that is written keeps its inode."""
    if os.path.isdir(path) and not os.path.islink(path):
        if not isinstance(content, Mapping):
            shutil.rmtree(path)
    elif os.path.islink(path) or (os.path.lexists(path) and not isinstance(content, bytes)):
        os.unlink(path)


def _put_one(path: bytes, content: Content, at: int) -> None:
    if isinstance(content, Link):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.fsencode(content.target), path)
    elif isinstance(content, bytes):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, ns=(at, at))
    elif content is not None:
        os.makedirs(path, exist_ok=True)
        put(path, content, at)


def tree_of(root: Path | bytes) -> dict[bytes, Node]:
    """What a directory holds, without skynet's own at its root and without special files."""
    return dict(_nodes(os.fsencode(root), b""))


def _nodes(root: bytes, directory: bytes) -> Iterator[tuple[bytes, Node]]:
    for name in sorted(os.listdir(os.path.join(root, directory))):
        path = os.path.join(directory, name)
        if path == OWN:
            continue
        node = _node(os.path.join(root, path))
        if node is not None:
            yield path, node
            if node.kind == "d":
                yield from _nodes(root, path)


def _node(full: bytes) -> Node | None:
    status = os.lstat(full)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Node("d", b"", mode, 0)
    if stat.S_ISLNK(status.st_mode):
        return Node("l", os.readlink(full), 0, 0)
    if not stat.S_ISREG(status.st_mode):
        return None
    with open(full, "rb") as file:
        return Node("f", file.read(), mode, status.st_mtime_ns // SECOND)


def without_empty(tree: Mapping[bytes, Node]) -> dict[bytes, Node]:
    """The tree without directories below which nothing but directories is."""
    filled: set[bytes] = set()
    for path, node in tree.items():
        while node.kind != "d" and (path := path.rpartition(b"/")[0]):
            filled.add(path)
    return {path: node for path, node in tree.items() if node.kind != "d" or path in filled}


def frozen(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a directory, skynet's own as well: mode, mtime in ns, content."""
    found = {}
    for place, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(place, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, root)] = (status.st_mode, status.st_mtime_ns, content)
    return found


class Died(SkynetError):
    """What a test makes a room raise, as if skynet had died there."""
