"""Sessions: many cycles over one connection of a World, and changes that arrive in their midst."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from skynet.cycle import Report, Request
from skynet.memory import claimed, remembered
from skynet.reconcile import run_in
from skynet.scan import Root
from skynet.session import Session, opened
from tests.support.world import World

Marks = Mapping[bytes, bool]


class Sitting:
    """A session that is open; the world's own `sync` must wait until it is closed."""

    def __init__(self, world: World, session: Session) -> None:
        self.world = world
        self.session = session

    def cycle(self, **wanted: Any) -> Report:
        """One cycle, as the daemon asks for it. Options: the fields of Request."""
        self.world.asked = []
        return run_in(self.session, Request(**({"audit": False, "goes_on": True} | wanted)))

    def quiet(self, **wanted: Any) -> Report:
        """One cycle that must find nothing to do."""
        report = self.cycle(**wanted)
        assert report.outcome == "in-sync", (report.plan.ops, report.problems, report.hazards)
        return report


@contextmanager
def sitting(
    world: World, tokens: dict[str, bool] | None = None, **settings: Any
) -> Iterator[Sitting]:
    """Open a session with a world's remote. tokens: see `opened`. settings: of the mirror."""
    mirror, around = world.mirror(**settings), world.surroundings()
    root = Root(mirror.source, around.now_ns)
    with (
        claimed(mirror) as lock,
        remembered(lock.directory, around.monitor, read_only=False) as memory,
        opened(mirror, root, memory, world.connect, around, tokens) as session,
    ):
        yield Sitting(world, session)


class Arriving:
    """Arrivals from a test. pending: marks that no cycle has taken, or that came back."""

    def __init__(self) -> None:
        self.pending: dict[bytes, bool] = {}
        self.put_backs = 0
        self._taken: dict[bytes, bool] = {}

    def mark(self, marks: Marks) -> None:
        for path, deep in marks.items():
            self.pending[path] = deep or self.pending.get(path, False)

    def take(self, is_busy: Callable[[bytes], bool]) -> Marks:
        self._taken = {p: deep for p, deep in self.pending.items() if not is_busy(p)}
        self.pending = {p: deep for p, deep in self.pending.items() if p not in self._taken}
        return self._taken

    def put_back(self) -> None:
        self.put_backs += 1
        self.mark(self._taken)

    def take_all(self) -> Marks:
        """For a cycle that begins."""
        return dict(self.take(lambda _: False))
