"""A world whose remote is in memory, and as slow as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skynet.remote import Outcome
from skynet.tree import FILE
from tests.support.memory import MemoryRemote
from tests.support.world import SECOND, Node, World, tree_of


class SlowRemote(MemoryRemote):
    """meanwhile: called at every wait, which takes its time. slow(path): it does not end now."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__({})
        self.meanwhile: Callable[[], None] = lambda: None
        self.slow: Callable[[bytes], bool] = lambda path: False
        self._pass_time = pass_time

    def wait(self, seconds: float) -> list[Outcome]:
        self._pass_time(seconds)
        self.meanwhile()
        everything = self._under_way
        late = [begun for begun in everything if self.slow(begun.op.path)]
        self._under_way = [begun for begun in everything if not self.slow(begun.op.path)]
        outcomes = super().wait(seconds)
        self._under_way += late
        return outcomes


class MemoryWorld(World):
    """remote_now: the remote of the session that is open."""

    def __init__(self, base: Path, **settings: Any) -> None:
        super().__init__(base, **settings)
        self.remote_now = SlowRemote(self._sleep)

    def connect(self) -> SlowRemote:  # type: ignore[override]  # it is not over SFTP
        last = self.remote_now
        self.remote_now = SlowRemote(self._sleep)
        self.remote_now.tree, self.remote_now.data = last.tree, last.data
        self.remote_now.clock = lambda: self.monotonic
        return self.remote_now

    def there(self) -> dict[bytes, Node]:
        """What is mirrored now."""
        found = {}
        for path, entry in self.remote_now.mirrored.items():
            content = self.remote_now.data.get(path, b"")
            mtime = entry.mtime_ns // SECOND if entry.kind == FILE else 0
            found[path] = Node(entry.kind, content, entry.mode or 0, mtime)
        return found

    def check_exactly(self) -> None:
        """Assert that the remote equals the local tree, empty directories and all."""
        assert self.there() == tree_of(self.local)
        assert not any(path.startswith(b".skynet/tmp/") for path in self.remote_now.tree)
