"""Marks: which paths may have changed, as the watcher sees and the journal keeps them. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """`path` may have changed; relative to the root, whose own path is b"".

    deep: also everything below it may have; else just what the entry itself is.
    """

    path: bytes
    deep: bool = False


class Sight(NamedTuple):
    """A mark as it was seen. done: no more is to come; it was closed after writing, or moved."""

    mark: Mark
    done: bool = False


EVERYTHING = Mark(b"", True)
