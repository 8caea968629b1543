"""The threads of a process on one processor, and on all of them again."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path

import pytest

from skynet.cycle import Surroundings
from skynet.processors import Processors
from tests.support.frames import Asked
from tests.support.world import World

if sys.platform != "linux":
    pytest.skip("there is no such thing here", allow_module_level=True)


class Other:
    """A thread that says which processors it may run on, whenever it is asked."""

    def __init__(self) -> None:
        self._asked = threading.Semaphore(0)
        self._told = threading.Semaphore(0)
        self._ended = False
        self._may_use: Set[int] = frozenset()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def may_use(self) -> Set[int]:
        self._asked.release()
        assert self._told.acquire(timeout=30)
        return self._may_use

    def end(self) -> None:
        self._ended = True
        self._asked.release()
        self._thread.join(30)

    def _run(self) -> None:
        while self._asked.acquire() and not self._ended:
            self._may_use = os.sched_getaffinity(0)
            self._told.release()


@pytest.fixture
def other() -> Iterator[Other]:
    thread = Other()
    yield thread
    thread.end()


def test_all_threads_share_one_processor_and_have_all_again_afterwards(other: Other) -> None:
    before = os.sched_getaffinity(0)
    with Processors().one():
        mine = os.sched_getaffinity(0)
        begun_meanwhile = Other()
        assert len(mine) == 1
        assert mine <= before
        assert other.may_use() == mine
        assert begun_meanwhile.may_use() == mine
    assert os.sched_getaffinity(0) == before
    assert other.may_use() == before
    assert begun_meanwhile.may_use() == before
    begun_meanwhile.end()


def test_they_have_all_again_after_an_error(other: Other) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), Processors().one():
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
    assert other.may_use() == before


def test_two_at_once_leave_nothing_behind(other: Other) -> None:
    before = os.sched_getaffinity(0)
    processors = Processors()
    with processors.one(), processors.one():
        assert len(other.may_use()) == 1
    assert other.may_use() == before


def test_where_the_system_does_not_say_or_forbids_it_all_goes_on(
    monkeypatch: pytest.MonkeyPatch, other: Other
) -> None:
    before = os.sched_getaffinity(0)
    processors = Processors()

    def forbidden(_thread: int, _processors: Set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    with processors.one():
        assert other.may_use() == before
    monkeypatch.undo()
    monkeypatch.setattr("skynet.processors._FIELDS_BEFORE", 10_000)
    with processors.one():
        assert other.may_use() == before


class Watched(World):
    """A world with the real processors."""

    def surroundings(self) -> Surroundings:
        return replace(super().surroundings(), on_one_processor=Processors().one)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor only")
def test_a_plan_is_carried_out_on_one_processor_and_differences_are_looked_for_on_all(
    tmp_path: Path,
) -> None:
    world = Watched(tmp_path)
    world.put({"d": {str(number): b"content" for number in range(5)}})
    seen: dict[str, set[int]] = {}

    def note(request: Asked) -> None:
        mine = len(os.sched_getaffinity(0))
        seen.setdefault(request.kind.partition("@")[0], set()).add(mine)

    world.on_request = note
    world.sync()
    assert seen["posix-rename"] == {1}
    seen.clear()
    world.quiet()
    assert 1 not in seen["OPENDIR"]
    world.check()
