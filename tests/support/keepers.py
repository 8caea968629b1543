"""A keeper with a real source, a remote in memory, and a world that the test plays: its clocks, the
network and the orders that come.

All happens on the test's thread. Time passes when the keeper waits or sleeps, and with each call of
the remote; what is to happen then is said before, by the clock or by the number of the call.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from watchdog.events import FileMovedEvent

from skynet.config import Mirror, Target
from skynet.control import COMMANDS
from skynet.cycle import Surroundings
from skynet.errors import ConnectError, SkynetError
from skynet.history import Record, read
from skynet.keeper import Keeper, Means
from skynet.logs import Level
from skynet.marks import Mark, Sight
from skynet.monitor import Connected, Event, Monitor, Stage
from skynet.remote import Remote
from skynet.sightings import Sightings
from skynet.state import Lock, make_private
from skynet.statefile import replace as put_file
from skynet.status import Status, read_status
from skynet.tree import Entry, parent
from tests.support.memory import MemoryRemote
from tests.support.world import put, tree_of

SECOND = 1_000_000_000
CALL_SECONDS = 0.01
MANY_WAITS = 200_000
START = 1000.0
TREE = {"a": b"1", "d": {"b": b"2", "c": b"3"}, "e": {"f": {"g": b"4"}}}


class Runaway(BaseException):
    """The keeper goes on without end; no `except Exception` may hide that."""


class Line(MemoryRemote):
    """A connection to the house's server: what is there outlives it."""

    def __init__(self, house: House) -> None:
        super().__init__({}, at_once=house.at_once)
        self._house = house
        self.tree, self.data = house.tree, house.data
        self.exists = True
        self.clock = lambda: house.now

    def _called(self, verb: str, path: bytes, *, requests: int = 1, mutations: int = 0) -> None:
        if not self._house.is_up:
            self.cut_at = 0
        super()._called(verb, path, requests=requests, mutations=mutations)
        self._house.called(verb, path, self)

    def close(self) -> None:
        super().close()
        self._house.on_close()


class House:
    """See the module's text. `settings` are the mirror's own, over the defaults.

    refusals: what the next connections fail with. is_up: whether the server can be reached.
    """

    def __init__(self, base: Path, **settings: Any) -> None:
        self.local, self.state = base / "local", base / "state"
        self.local.mkdir()
        make_private(self.state)
        self.settings = settings
        self.tree: dict[bytes, Entry] = {}
        self.data: dict[bytes, bytes] = {}
        self.now = START
        self.slept = 0.0  # what only the wall clock knows of
        self._wall_ns = time.time_ns() + 1000 * SECOND - int(START * SECOND)
        self.is_up = True
        self.at_once = 1
        self.route = "home"
        self.call_seconds = CALL_SECONDS
        self.refusals: deque[SkynetError] = deque()
        self.connects: list[float] = []
        self.calls: list[tuple[str, bytes]] = []
        self.log: list[tuple[Level, str]] = []
        self.stages: list[str] = []
        self.failures: list[AssertionError] = []
        self.at_call: dict[int, Callable[[], object]] = {}
        self.on_call: Callable[[Line], None] = lambda line: None
        self.on_connect: Callable[[], object] = lambda: None
        self.on_close: Callable[[], object] = lambda: None
        self._plans: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._waits = 0
        self.keeper = self._new()

    # What happens.

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Let it happen so many seconds from now, when the keeper waits or sleeps next."""
        heapq.heappush(self._plans, (self.now + seconds, next(self._numbers), action))

    def order(self, verb: str, argument: str = "") -> str:
        """Give an order, as `skynet VERB` does; its id."""
        name = f"{next(self._numbers)}"
        asked = {"asked": time.time(), "command": {"verb": verb, "argument": argument}}
        put_file(self.state / COMMANDS / f"{name}.command", msgspec.json.encode(asked))
        return name

    def answer(self, order: str) -> str:
        data = (self.state / COMMANDS / f"{order}.answer").read_bytes()
        return str(msgspec.json.decode(data)["message"])

    def put(self, tree: dict[str, Any], *, tell: bool = True) -> None:
        """Change the source; `tell`: and the watcher says so."""
        put(os.fsencode(self.local), tree, time.time_ns() - SECOND)
        if tell:
            self.tell(*(Sight(Mark(os.fsencode(name), True)) for name in tree))

    def move(self, old: str, new: str) -> None:
        """Rename a file of the source; the watcher says so as it does."""
        source, target = os.fsencode(self.local / old), os.fsencode(self.local / new)
        os.rename(source, target)
        sightings = Sightings(os.fsencode(self.local), lambda path, is_dir: False)
        self.tell(*sightings.of(FileMovedEvent(source, target)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the source now, by the house's clock, and tell nobody."""
        path, now = self.local / name, self._wall_ns + int((self.now + self.slept) * SECOND)
        path.write_bytes(content)
        os.utime(path, ns=(now, now))

    def tell(self, *sights: Sight) -> None:
        self.keeper.agenda.saw(list(sights))

    # Running it.

    def run(self, seconds: float) -> None:
        """Let the keeper live for so long; where one has ended, another, as on a restart."""
        if self.keeper.status.state == "stopping":
            self.keeper = self._new()
        self.at(seconds, lambda: self.keeper.stop())
        self.live()
        if self.failures:
            raise self.failures[0]
        assert self.status.state == "stopping", self.log
        self._plans = []

    def live(self) -> None:
        """Let the keeper live until it ends."""
        self.lock.take()
        try:
            self.keeper.run()
        finally:
            self.lock.release()

    def _new(self) -> Keeper:
        self.lock = Lock(self.state)
        target = Target("host", b"/target")
        plain = Mirror(
            name="test",
            source=os.fsencode(self.local),
            target=target,
            state_dir=self.state,
            watch="off",
        )
        around = Surroundings(
            clock=lambda: self.now,
            sleep=self._sleep,
            now_ns=lambda: self._wall_ns + int((self.now + self.slept) * SECOND),
            token=os.urandom,
            host="here",
            pid_space="",
            monitor=self._note,
        )
        means = Means(
            connect=self._connect,
            around=around,
            random=lambda: 1.0,
            log=lambda level, message: self.log.append((level, message)),
            route=lambda: self.route,
            wait=self._wait,
        )
        return Keeper(replace(plain, **self.settings), self.lock, means)

    def _note(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.stages.append(event.doing)

    def _connect(self, monitor: Monitor) -> Remote:
        self.connects.append(self.now)
        self.on_connect()
        if self.refusals:
            raise self.refusals.popleft()
        if not self.is_up:
            raise ConnectError("No route.")
        monitor(Connected("the test"))
        return Line(self)

    def _wait(self, event: threading.Event, seconds: float) -> None:
        self._waits += 1
        if self._waits > MANY_WAITS:
            raise Runaway
        if not event.is_set():
            self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._plans and self._plans[0][0] <= self.now:
            self._do(heapq.heappop(self._plans)[2])

    def _do(self, action: Callable[[], object]) -> None:
        """Do it; what it finds wrong is kept for `run`, as the keeper would survive it."""
        try:
            action()
        except AssertionError as error:
            self.failures.append(error)

    def called(self, verb: str, path: bytes, line: Line) -> None:
        """A connection was asked for something."""
        self.calls.append((verb, path))
        self.now += self.call_seconds
        self._do(self.at_call.pop(len(self.calls), lambda: None))
        self.on_call(line)

    # Looking.

    @property
    def status(self) -> Status:
        status = read_status(self.state)
        assert status is not None
        return status

    @property
    def history(self) -> list[Record]:
        return read(self.state, 1000)

    def cycles(self) -> int:
        """How often trees were compared."""
        return self.stages.count("comparing")

    def done(self, verb: str) -> list[bytes]:
        """The paths of the remote's operations of this kind."""
        return [path for name, path in self.calls if name == verb]

    def check(self) -> None:
        """Assert that the remote has the files of the source, as they are, and no other."""
        here = tree_of(self.local)
        files = {path: node for path, node in here.items() if node.kind == "f"}
        there = {path: data for path, data in self.data.items() if not _is_own(path)}
        assert there == {path: node.content for path, node in files.items()}
        for path, node in files.items():
            entry = self.tree[path]
            assert (entry.mode, entry.mtime_ns // SECOND) == (node.mode, node.mtime)
        temps = [path for path in self.tree if path.startswith(b".skynet/tmp/")]
        assert not temps
        assert {p for p, e in self.tree.items() if e.kind == "d" and not _is_own(p)} <= here.keys()

    @property
    def is_even(self) -> bool:
        """Whether the remote has what the source has."""
        try:
            self.check()
        except AssertionError:
            return False
        return True


def _is_own(path: bytes) -> bool:
    while parent(path):
        path = parent(path)
    return path == b".skynet"
