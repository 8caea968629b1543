"""The journal: a mark is known until it is settled, and once it was flushed it outlives a kill."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from diskcache import Cache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skynet import dirty
from skynet.marks import EVERYTHING, Mark
from skynet.tree import is_below
from tests.support.journals import ALL, PATHS, Model, Opened, covered, rows


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path / "journal")
    yield opened
    opened.journal.close()


# What is kept.


def test_marks_are_kept_and_settled(opened: Opened) -> None:
    opened.journal.mark([Mark(b"d/file"), Mark(b"\xff\n"), Mark(b"e", deep=True), Mark(b"")])
    opened.journal.flush()
    found = opened.again().pending()
    assert found.marks == {b"d/file": False, b"\xff\n": False, b"e": True, b"": False}
    opened.journal.settle(found.upto, keep=[Mark(b"e/part", deep=True)])
    opened.journal.flush()
    assert opened.holds() == {b"e/part": True}
    assert opened.notices == []


def test_what_was_marked_meanwhile_outlives_settling(opened: Opened) -> None:
    opened.journal.mark([Mark(b"a"), Mark(b"b")])
    cycle = opened.journal.pending()
    opened.journal.mark([Mark(b"b"), Mark(b"c")])
    opened.journal.settle(cycle.upto)
    opened.journal.flush()
    assert opened.journal.pending().marks == opened.holds() == {b"b": False, b"c": False}


def test_nothing_is_made_until_there_is_something_to_keep(opened: Opened) -> None:
    opened.journal.flush()
    opened.journal.mark([])
    opened.journal.mark([Mark(b"a")])
    opened.journal.settle(opened.journal.pending().upto)
    opened.journal.flush()
    assert opened.journal.pending().marks == {}
    assert not opened.directory.exists()


def test_what_is_on_the_disk_is_not_written_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.journal.mark([Mark(b"a")])
    opened.journal.flush()
    monkeypatch.setattr(Cache, "transact", no_transaction)
    opened.journal.mark([Mark(b"a")])
    opened.journal.flush()
    opened.journal.settle(opened.journal.pending().upto, keep=[Mark(b"a")])
    opened.journal.flush()
    assert opened.notices == []


def no_transaction(_cache: Cache) -> None:
    raise AssertionError("nothing is to be written")


def test_a_flush_is_one_transaction(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    transact = Cache.transact

    def counted(cache: Cache) -> object:
        begun.append(cache)
        return transact(cache)

    monkeypatch.setattr(Cache, "transact", counted)
    opened.journal.mark([Mark(b"%d/%d" % (n % 10, n)) for n in range(900)])
    opened.journal.flush()
    assert len(begun) == 1
    assert len(opened.holds()) == 900


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_its_owner_can_read_it_and_it_is_durable(opened: Opened) -> None:
    opened.journal.mark([Mark(b"a")])
    opened.journal.flush()
    assert stat.S_IMODE(opened.directory.stat().st_mode) == 0o700
    with contextlib.closing(sqlite3.connect(opened.directory / "cache.db")) as connection:
        kept = dict(connection.execute("SELECT key, value FROM Settings"))
    assert (kept["sqlite_synchronous"], kept["sqlite_journal_mode"]) == (2, "truncate")


marks = st.lists(st.builds(Mark, st.sampled_from(PATHS), st.booleans()), max_size=4)


class Lives(RuleBasedStateMachine):
    """Marking, cycles, flushes and kills in any order, beside a model of what must be known."""

    @initialize(max_marks=st.integers(4, 30), crowded=st.integers(1, 5))
    def begin(self, max_marks: int, crowded: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="journal-"))
        self.crowded = mock.patch.object(dirty, "CROWDED", crowded)
        self.crowded.start()
        self.model, self.saved = Model(), Model()
        self.opened = Opened(self.base / "journal", max_marks)
        self.handed_out = [(0, 0)]

    @rule(marks=marks)
    def mark(self, marks: list[Mark]) -> None:
        self.opened.journal.mark(marks)
        self.model.mark(marks)

    @rule()
    def pending(self) -> None:
        self.handed_out.append((self.opened.journal.pending().upto, self.model.now))

    @rule(which=st.integers(0, 3), keep=marks)
    def settle(self, which: int, keep: list[Mark]) -> None:
        upto, when = self.handed_out[-1 - which % len(self.handed_out)]
        self.opened.journal.settle(upto, keep)
        self.model.settle(when)
        self.saved.settle(when)
        self.model.mark(keep)

    @rule()
    def flush(self) -> None:
        self.opened.journal.flush()
        self.saved.dirty = dict(self.model.dirty)
        assert not self.opened.directory.exists() or rows(self.opened.directory) <= (
            self.opened.max_marks + 1
        )

    @rule(gently=st.booleans())
    def begin_anew(self, *, gently: bool) -> None:
        if gently:
            self.opened.journal.close()
        self.opened.again()
        self.model.dirty = dict(self.saved.dirty)
        self.handed_out = [(0, 0)]

    @invariant()
    def no_change_is_lost(self) -> None:
        if hasattr(self, "opened"):
            # A copy of the numbers, since asking is handing out.
            found = self.opened.journal.pending()
            self.handed_out.append((found.upto, self.model.now))
            assert self.model.dirty.keys() <= covered(found.marks)
            assert self.opened.notices == []

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.crowded.stop()
            self.opened.journal.close()
            shutil.rmtree(self.base)


TestLives = Lives.TestCase
TestLives.settings = settings(stateful_step_count=30)


# Kills.

CHILD = """
import sys
from pathlib import Path
from skynet.journal import Journal
from skynet.marks import Mark

journal = Journal(Path(sys.argv[1]), print)
for batch in range(int(sys.argv[2])):
    journal.mark(Mark(b"%d/%d/%d" % (n % 50, batch, n)) for n in range(int(sys.argv[3])))
    journal.flush()
    print(batch, flush=True)
sys.stdin.read()
"""


def child(directory: Path, batches: int, size: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CHILD, str(directory), str(batches), str(size)]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe)


def test_a_kill_loses_nothing_that_was_flushed(opened: Opened) -> None:
    with child(opened.directory, 1, 5000) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        process.kill()
    opened.max_marks = 100_000
    assert opened.holds() == {b"%d/0/%d" % (n % 50, n): False for n in range(5000)}
    assert opened.notices == []


def test_a_kill_at_any_moment_loses_nothing_that_was_flushed(opened: Opened) -> None:
    chance = random.Random(5)
    opened.max_marks = 100_000
    for _ in range(8):
        shutil.rmtree(opened.directory, ignore_errors=True)
        with child(opened.directory, 1000, 50) as process:
            assert process.stdout is not None
            done = [process.stdout.readline() for _ in range(chance.randrange(1, 20))]
            threading.Event().wait(chance.random() / 100)
            process.kill()
        found = opened.holds()
        assert {
            b"%d/%d/%d" % (n, b, n) for b in range(len(done)) for n in range(50)
        } <= found.keys()
    assert opened.notices == []


# Threads.


def test_nothing_but_a_flush_waits_for_the_disk(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    set_row = Cache.set

    def slow(*arguments: object) -> object:
        writing.set()
        assert go_on.wait(30)
        return set_row(*arguments)

    monkeypatch.setattr(Cache, "set", slow)
    opened.journal.mark([Mark(b"a")])
    flush = threading.Thread(target=opened.journal.flush)
    flush.start()
    try:
        assert writing.wait(30)
        opened.journal.mark([Mark(b"b")])
        found = opened.journal.pending()
        opened.journal.settle(found.upto, keep=[Mark(b"c")])
    finally:
        go_on.set()
        flush.join()
    assert found.marks == {b"a": False, b"b": False}
    assert opened.holds() == {b"a": False}
    opened.journal.settle(opened.journal.pending().upto)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_that_mark_flush_and_settle_lose_nothing(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "journal", max_marks=500)
    journal, stop = opened.journal, threading.Event()
    looked_at: list[dict[bytes, bool]] = []
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)
                raise

        return threading.Thread(target=run)

    def marker(name: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(3000):
                journal.mark([Mark(b"%d/%d/%d" % (name, n % 40, n), n % 17 == 0)])

        return work

    def flush() -> None:
        while not stop.is_set():
            journal.flush()

    def cycle() -> None:
        while not stop.is_set():
            found = journal.pending()
            looked_at.append(found.marks)
            journal.settle(found.upto)
            journal.flush()

    markers = [guarded(marker(name)) for name in range(4)]
    others = [guarded(flush), guarded(flush), guarded(cycle)]
    for thread in (*markers, *others):
        thread.start()
    for thread in markers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    assert failed == []
    left = journal.pending().marks
    journal.flush()
    assert opened.holds() == left
    found = [*looked_at, left]
    paths = {path for marks in found for path in marks}
    deep = {path for marks in found for path, is_deep in marks.items() if is_deep}
    for name in range(4):
        for n in range(3000):
            path = b"%d/%d/%d" % (name, n % 40, n)
            assert path in paths or any(is_below(path, above) for above in deep)
    assert opened.notices == []
    opened.journal.close()


def test_everything_is_one_mark(opened: Opened) -> None:
    opened.journal.mark([Mark(b"a"), EVERYTHING, Mark(b"b/c", deep=True)])
    assert opened.journal.pending().marks == ALL
