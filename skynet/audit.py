"""The audit: what the remote lists, directory by directory, and whether that is as recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from skynet.remote import Facts, Listed
from skynet.scan import all_fields
from skynet.tree import FILE, LINK, SECOND, Entry, order, same_time

SPECIAL_BITS = 0o7000  # of a mode: set-user-id, set-group-id, sticky
NOT_LISTED = Listed(b"", {}, frozenset(), None)


class Audit:
    """Takes listings from a walk that is in tree order, passing over those nobody asks for."""

    def __init__(self, listings: Iterator[Listed]) -> None:
        self._listings = listings
        self._next = next(listings, None)

    def listing(self, directory: bytes) -> Listed:
        """The listing of a directory; NOT_LISTED if there is none."""
        wanted = order(directory)
        while self._next is not None and order(self._next.directory) < wanted:
            self._next = next(self._listings, None)
        if self._next is not None and self._next.directory == directory:
            return self._next
        return NOT_LISTED


def actual(synced: Entry | None, seen: Entry | None, facts: Facts) -> Entry | None:
    """What the remote holds, by an audit: the synced entry if nothing speaks against it."""
    if synced is None or seen is None or synced.kind != seen.kind:
        return seen
    if synced.kind == FILE and not _same_stat(synced, seen, facts):
        return seen
    if synced.kind == LINK:
        return synced if synced.link == seen.link else seen
    if facts.keeps_modes and not _same_mode(synced.mode, seen.mode):
        return msgspec.structs.replace(synced, mode=seen.mode)
    return synced


def listed_otherwise(
    here: Mapping[bytes, bytes], seen: Mapping[bytes, Entry], facts: Facts
) -> list[bytes]:
    """The names for which the remote does not list what the local file becomes there.

    here: name to identity. The cheap answer to what `actual` tells of the entry that was made from
    the file. Named are also links, whose target must be known, all files where the platform has
    no modes, and times that SFTP or the remote's file system cannot keep.
    """
    differing = []
    any_mode, any_time = not facts.keeps_modes, not facts.keeps_times
    # One pass without a call for each name, since these are nearly all files there are.
    for name, (mtime_ns, _, size, _, mode) in zip(here, all_fields(here.values()), strict=True):
        entry = seen.get(name)
        if not (
            entry is not None
            and entry.kind == FILE
            and entry.size == size
            and (entry.mode == mode & 0o7777 or any_mode)
            and (0 <= mtime_ns - entry.mtime_ns < SECOND or any_time)
        ):
            differing.append(name)
    return differing


def _same_mode(told: int | None, seen: int | None) -> bool:
    """Whether a remote that was told a mode may say this one.

    Servers drop the set-id and sticky bits, without a word, of those who may not set them.
    """
    if told is None or seen is None:
        return told is None
    added, dropped = seen & ~told, told & ~seen
    return not added and not dropped & ~SPECIAL_BITS


def _same_stat(synced: Entry, seen: Entry, facts: Facts) -> bool:
    if synced.size != seen.size:
        return False
    return not facts.keeps_times or same_time(synced.mtime_ns, seen.mtime_ns)
