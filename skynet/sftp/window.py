"""How many conversations a channel has under way.

A server may allow fewer open files than it says, or not say how many. When it refuses to open one
while others are open, the window shrinks to what it takes, and whoever was refused waits until
another has ended. The window grows again by an eighth for each windowful that ends without that.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Window(Generic[T]):
    """Counts weights of conversations; `most` is its widest. T: what waits for a place."""

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._size = most
        self._taken = 0
        self._unhindered = 0  # conversations that ended since the window changed
        self._refused: deque[tuple[T, int]] = deque()

    @property
    def size(self) -> int:
        """The weight that may be under way now."""
        return self._size

    @property
    def is_taken(self) -> bool:
        """Whether any weight is under way."""
        return self._taken > 0

    @property
    def has_room(self) -> bool:
        """Whether another conversation may begin."""
        return self._taken < self._size

    def narrow(self, most: int) -> None:
        """Never be wider than `most` from now on."""
        with self._lock:
            self._most = self._size = max(1, min(self._most, most))

    def enter(self, weight: int) -> None:
        """A conversation begins."""
        with self._lock:
            self._taken += weight

    def refuse(self, who: T, weight: int) -> bool:
        """`who` was refused and waits for `leave` to name it; False if none is left to end."""
        with self._lock:
            others = self._taken - weight - sum(waiting for _, waiting in self._refused)
            if others <= 0:
                return False
            self._refused.append((who, weight))
            self._size = min(self._size, others)
            self._unhindered = 0
            return True

    def clear(self) -> list[T]:
        """All who wait; they wait no longer."""
        with self._lock:
            waiting = [who for who, _ in self._refused]
            self._refused.clear()
            return waiting

    def leave(self, weight: int) -> T | None:
        """A conversation has ended; who may try again for that, if anybody waits."""
        with self._lock:
            self._taken -= weight
            if self._refused:
                return self._refused.popleft()[0]
            self._unhindered += 1
            if self._unhindered >= self._size:
                self._size = min(self._most, self._size + self._size // 8 + 1)
                self._unhindered = 0
            return None
