"""What an event of watchdog says about a mirror: the marks that stand for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from watchdog.events import (
    EVENT_TYPE_ATTRIB,
    EVENT_TYPE_CLOSED,
    EVENT_TYPE_DELETED,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_MOVED,
    FileSystemEvent,
)

from skynet.marks import EVERYTHING, Mark, Sight
from skynet.rules import IGNORE_FILE, is_reserved

Event = FileSystemEvent

ITSELF = frozenset({EVENT_TYPE_ATTRIB, EVENT_TYPE_MODIFIED})  # and nothing below it
DONE = frozenset({EVENT_TYPE_CLOSED, EVENT_TYPE_MOVED})  # nothing more is to come of it
# Windows does not tell what it was that is gone.
KNOWS_THE_DEAD = sys.platform != "win32"


class Sightings:
    """Turns events into Sights. `root` is what was given to watchdog, in bytes.

    `hides` tells whether a path is invisible (path, whether it is a directory), its parent being
    visible.
    """

    def __init__(self, root: bytes, hides: Callable[[bytes, bool], bool]) -> None:
        self._root = root.rstrip(_SEPARATOR)
        self._hides = hides

    def of(self, event: Event) -> list[Sight]:
        """One Sight for each visible path that the event is about."""
        is_dir = event.is_directory
        deep = is_dir and event.event_type not in ITSELF
        if event.event_type == EVENT_TYPE_DELETED and not KNOWS_THE_DEAD:
            deep = True
        # Both ends of a move are due together: a cycle that sees but one of them takes it for new.
        done = event.event_type in DONE and not is_dir
        seen = [
            self._sight(event.src_path, is_dir, deep, done),
            self._sight(event.dest_path, is_dir, deep, done),
        ]
        return [sight for sight in seen if sight is not None]

    def _sight(self, path: bytes | str, is_dir: bool, deep: bool, done: bool) -> Sight | None:
        if not path:
            return None
        relative = self.relative(path)
        if relative is None or relative == IGNORE_FILE:
            return Sight(EVERYTHING)
        if self._is_hidden(relative, is_dir):
            return None
        return Sight(Mark(relative, deep), done)

    def relative(self, path: bytes | str) -> bytes | None:
        """The path below the root, in bytes with slashes; None for one that is not below it."""
        whole = os.fsencode(path)
        if whole.rstrip(_SEPARATOR) == self._root:
            return b""
        if not whole.startswith(self._root + _SEPARATOR):
            return None
        return whole[len(self._root) + 1 :].replace(_SEPARATOR, b"/")

    def _is_hidden(self, path: bytes, is_dir: bool) -> bool:
        end = path.find(b"/")
        while end != -1:
            if is_reserved(path[:end]) or self._hides(path[:end], True):
                return True
            end = path.find(b"/", end + 1)
        return path != b"" and (is_reserved(path) or self._hides(path, is_dir))


_SEPARATOR = os.sep.encode()
