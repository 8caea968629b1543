"""Several who want the lease at once, whatever the order of their requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import OwnedError
from skynet.lease import EXPIRY_SECONDS, Lease, unlock
from tests.support.memory import MemoryRemote
from tests.support.stage import Stage


class Life(NamedTuple):
    """What one does that wants to write: cycles, each after a rest of so many seconds.

    Each is writes, so many seconds after one another. stays: it keeps the lease between cycles.
    """

    cycles: list[tuple[float, list[float]]]
    beats: bool
    stays: bool


RESTS = st.sampled_from([0.0, 0.5, 3.0, 6.0, 19.0, 21.0, 60.0])
GAPS = st.sampled_from([0.0, 0.4, 1.0, 1.5, 4.0, 9.0, 11.0, 25.0])
CYCLES = st.lists(st.tuples(RESTS, st.lists(GAPS, max_size=4)), min_size=1, max_size=4)
LIVES = st.builds(Life, CYCLES, st.booleans(), st.booleans())


class Deed(NamedTuple):
    """Who took the lease, or wrote with it."""

    who: str
    took: bool
    at: float


class SharedRemote(MemoryRemote):
    """Before each of its requests, others may come first."""

    def __init__(self, stage: Stage) -> None:
        super().__init__({})
        self._stage = stage
        self.clock = lambda: stage.now

    def _called(self, verb: str, path: bytes, *, requests: int = 1, mutations: int = 0) -> None:
        self._stage.pause()
        super()._called(verb, path, requests=requests, mutations=mutations)


class World:
    """A remote and those who want it. deeds: what they did, in order."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.stage = Stage(choose)
        self.remote = SharedRemote(self.stage)
        self.remote.prepare()
        self.deeds: list[Deed] = []

    def mirror(self, who: str, life: Life) -> None:
        lease = Lease(self.remote, who, pid_space="", **self._times())
        for rest, gaps in life.cycles:
            self.stage.sleep(rest)
            try:
                self._cycle(lease, who, gaps, beats=life.beats)
                if not life.stays:
                    lease.release()
            except OwnedError:
                continue

    def _cycle(self, lease: Lease, who: str, gaps: Sequence[float], *, beats: bool) -> None:
        was_held = lease.is_held
        lease.ensure()
        if not was_held:
            self._note(who, took=True)
        for gap in gaps:
            self.stage.sleep(gap)
            if beats:
                lease.beat()
            lease.check()
            self._note(who, took=False)

    def unlocker(self, rests: Sequence[float]) -> None:
        for number, rest in enumerate(rests):
            self.stage.sleep(rest)
            try:
                unlock(self.remote, f"u{number}", force=False, pid_space="", **self._times())
            except OwnedError:
                continue

    def _times(self) -> dict[str, Any]:
        return {
            "clock": lambda: self.stage.now,
            "sleep": self.stage.sleep,
            "monitor": lambda event: None,
        }

    def _note(self, who: str, *, took: bool) -> None:
        self.deeds.append(Deed(who, took, self.stage.now))


def intruders(deeds: Sequence[Deed]) -> Iterator[tuple[Deed, float]]:
    """What was written by another than who took the lease last, and how long after that."""
    holder, since = "", 0.0
    for deed in deeds:
        if deed.took:
            holder, since = deed.who, deed.at
        elif deed.who != holder:
            yield deed, deed.at - since


def played(lives: Sequence[Life], rests: Sequence[float], order: Random) -> list[Deed]:
    """What they did, each request in an order of chance. rests: those of one who unlocks."""
    world = World(order.randrange)
    for number, life in enumerate(lives):
        world.stage.add(partial(world.mirror, f"m{number}", life))
    world.stage.add(partial(world.unlocker, rests))
    world.stage.run()
    return world.deeds


@given(LIVES, LIVES, st.randoms())
def test_of_two_only_the_one_that_took_the_lease_last_writes(
    one: Life, other: Life, order: Random
) -> None:
    assert list(intruders(played([one, other], [], order))) == []


@given(st.lists(LIVES, min_size=2, max_size=4), st.lists(RESTS, max_size=2), st.randoms())
def test_of_many_none_writes_for_long_after_another_took_the_lease(
    lives: list[Life], rests: list[float], order: Random
) -> None:
    """A lease taken by mistake is put back, but a third may be quicker, by one request."""
    for deed, late in intruders(played(lives, rests, order)):
        assert late <= EXPIRY_SECONDS / 2, deed
