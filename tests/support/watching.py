"""A source under watch, with a clock that only the test moves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skynet.marks import Mark, Sight
from skynet.monitor import Event, Notice
from skynet.watch import Watcher, WatchMode

DEADLINE = 60.0  # seconds of real time for an event to come


class Post:
    """`root` is watched by `watcher`; what it tells is in `sights` and `notices`."""

    def __init__(self, home: Path, mode: WatchMode, hidden: frozenset[bytes]) -> None:
        self.root = os.fsencode(home / "source")
        self.canary = home / "states" / "state" / "canary"
        self.now = 1000.0
        self.notices: list[Notice] = []
        self.hurts: Exception | None = None  # what telling raises, once
        self._sights: list[Sight] = []
        self._lock = threading.Lock()
        self._asked = 0
        self.watcher = Watcher(
            self.root,
            mode,
            self._tell,
            hides=lambda path, is_dir: path in hidden,
            canary=self.canary,
            clock=lambda: self.now,
            monitor=self._note,
        )

    def _tell(self, sights: list[Sight]) -> None:
        hurts, self.hurts = self.hurts, None
        if hurts is not None:
            raise hurts
        with self._lock:
            self._sights += sights

    def _note(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.notices.append(event)

    @property
    def sights(self) -> list[Sight]:
        with self._lock:
            return self._sights[:]

    @property
    def marks(self) -> set[Mark]:
        return {sight.mark for sight in self.sights}

    def codes(self) -> list[str]:
        return [notice.code for notice in self.notices]

    def forget(self) -> None:
        with self._lock:
            self._sights.clear()

    def at(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root

    def put(self, path: bytes, content: bytes = b"x") -> None:
        """Write a file, and its directories."""
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "wb") as file:
            file.write(content)

    def check_after(self, seconds: float) -> None:
        self.now += seconds
        self.watcher.check()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for what watchdog's threads do."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"waited in vain; {self.sights[-20:]} {self.notices}"
            time.sleep(0.005)

    def settle(self) -> set[Mark]:
        """The marks of all that has happened by now, and none for the file that asks for them."""
        self._asked += 1
        last_word = b"last word %d" % self._asked
        self.put(last_word)
        self.wait(lambda: Sight(Mark(last_word), True) in self.sights)
        os.unlink(self.at(last_word))
        self.wait(lambda: self.sights[-1] == Sight(Mark(last_word)))
        return {mark for mark in self.marks if not mark.path.startswith(b"last word")}


@contextmanager
def posted(
    home: Path, mode: WatchMode = "auto", hidden: frozenset[bytes] = frozenset()
) -> Iterator[Post]:
    """A Post that is not started; what it started ends here."""
    os.makedirs(home / "source", exist_ok=True)
    post = Post(home, mode, hidden)
    try:
        yield post
    finally:
        post.watcher.stop()


def is_covered(path: bytes, marks: set[Mark]) -> bool:
    """Whether a scan of the marks would look at the path."""
    return Mark(path) in marks or any(
        mark.deep and (mark.path in (b"", path) or path.startswith(mark.path + b"/"))
        for mark in marks
    )


def innards(post: Post) -> Any:
    """The observer of watchdog's that is at work."""
    assert post.watcher._vigil is not None
    return post.watcher._vigil._lookout._observer


def emitter(post: Post) -> Any:
    """The thread that makes events of what happens in the source."""
    return next(each for each in innards(post).emitters if each.watch.is_recursive)


def works(post: Post) -> bool:
    """Whether a change in the directory is told."""
    post.forget()
    post.put(b"dir/file")
    post.wait(lambda: bool(post.sights))
    return post.settle() == {Mark(b"dir/file")}
