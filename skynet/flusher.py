"""The flusher: lets the disk have the journal's marks a moment after they came, on its own thread.

So neither the watcher nor a cycle ever waits for the disk, and what comes together is written once.
"""

from __future__ import annotations

import threading

from skynet.journal import Journal

FLUSH_SECONDS = 0.2  # after the first mark that is not on the disk
STOP_SECONDS = 2.0  # for a flush that is under way


class Flusher:
    """Of one journal. `start` it, `wake` it from any thread when there are marks, and `stop` it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._has_news = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def wake(self) -> None:
        """The journal has changed."""
        self._has_news.set()

    def stop(self) -> None:
        """End the thread, and flush a last time."""
        self._is_over.set()
        self._has_news.set()
        self._thread.join(STOP_SECONDS)
        self._journal.flush()

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._has_news.wait()
            self._is_over.wait(FLUSH_SECONDS)
            self._has_news.clear()
            self._journal.flush()
