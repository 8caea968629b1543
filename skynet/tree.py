"""Trees as values: entries, changes between two trees, and the edits that turn one into another.

A tree is a mapping from path to Entry. A path is bytes, relative to the root, with b"/" between
its names; the root itself is b"" and is never an entry. A parent directory is always an entry.
Nothing here touches a disk or a network.

Change, diff, patch and is_valid serve no room: they are there for the laws that tests assert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Literal

import msgspec

Kind = Literal["f", "d", "l"]
FILE: Kind = "f"
DIR: Kind = "d"
LINK: Kind = "l"

SECOND = 1_000_000_000  # nanoseconds
OWNER_ACCESS = 0o700
LATEST_TIME = 0xFFFF_FFFF  # SFTP version 3 has 32 bits for seconds, unsigned

# In seconds. FAT and exFAT begin with 1980, in a time zone; many file systems end in 2038.
BEGINNING_OF_FAT = range(315_446_400, 315_619_200)
LATEST_KEPT = 0x7FFF_FFFF


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a tree holds at one path.

    size: content bytes of a file, else 0. mtime_ns: nanoseconds since 1970, files only.
    mode: permission bits (0o7777), None where the platform has none; None for links.
    digest: xxh3-128 of a file's content, b"" while unknown. link: a symlink's target.
    retained: gone locally, kept on the remote because complete-sync is off.
    """

    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    mode: int | None = None
    digest: bytes = b""
    link: bytes = b""
    retained: bool = False


Tree = Mapping[bytes, Entry]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One path where two trees differ: `old` is there now, `new` should be; None is nothing."""

    path: bytes
    old: Entry | None
    new: Entry | None


class Put(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="p"):
    """The path now holds `entry`, whatever it held before."""

    path: bytes
    entry: Entry


class Drop(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="d"):
    """The path, and everything below it, is gone."""

    path: bytes


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="m"):
    """What was at `source`, with everything below it, is now at `path`."""

    source: bytes
    path: bytes


Edit = Put | Drop | Move


def wire_time(mtime_ns: int) -> int:
    """Whole seconds as SFTP can carry them: before 1970 and after 2106 they are clamped."""
    return min(max(mtime_ns // SECOND, 0), LATEST_TIME)


def same_time(mtime_ns: int, seen_ns: int) -> bool:
    """Whether a remote that was told the first time may say that it is the second.

    It has whole seconds, and its file system keeps the nearest time that it can.
    """
    told, seen = wire_time(mtime_ns), wire_time(seen_ns)
    is_earliest = told < seen and seen in BEGINNING_OF_FAT
    return seen == told or is_earliest or LATEST_KEPT <= seen < told


def parent(path: bytes) -> bytes:
    """The directory that holds `path`; b"" for names at the root."""
    return path.rpartition(b"/")[0]


def name(path: bytes) -> bytes:
    """The last name of `path`."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, child: bytes) -> bytes:
    """The path of `child` inside `directory`."""
    return directory + b"/" + child if directory else child


def order(path: bytes) -> bytes:
    """Sort key that puts a directory right before everything below it."""
    return path.replace(b"/", b"\0")


def ancestors(path: bytes) -> Iterator[bytes]:
    """The directories above `path`, nearest first, without the root."""
    while path := parent(path):
        yield path


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether `path` lies strictly below `directory`; everything lies below the root."""
    return not directory or path.startswith(directory + b"/")


def is_closed(entry: Entry | None) -> bool:
    """Whether it is a directory that its owner may not list, change or enter."""
    if entry is None or entry.kind != DIR or entry.mode is None:
        return False
    return entry.mode & OWNER_ACCESS != OWNER_ACCESS


def diff(old: Tree, new: Tree) -> Iterator[Change]:
    """Every path at which the two trees differ, in tree order."""
    for path in sorted(old.keys() | new.keys(), key=order):
        before, after = old.get(path), new.get(path)
        if before != after:
            yield Change(path, before, after)


def patch(tree: Tree, changes: Iterable[Change]) -> dict[bytes, Entry]:
    """The tree with the changes made: `patch(a, diff(a, b)) == b`."""
    result = dict(tree)
    for change in changes:
        if change.new is None:
            result.pop(change.path, None)
        else:
            result[change.path] = change.new
    return result


def edit(tree: MutableMapping[bytes, Entry], edits: Iterable[Edit]) -> None:
    """Carry out edits on `tree`, in place and in order."""
    for step in edits:
        if isinstance(step, Put):
            tree[step.path] = step.entry
        elif isinstance(step, Drop):
            for path in subtree(tree, step.path):
                del tree[path]
        else:
            moved = {path: tree.pop(path) for path in subtree(tree, step.source)}
            for path, entry in moved.items():
                tree[step.path + path[len(step.source) :]] = entry


def subtree(tree: Tree, path: bytes) -> list[bytes]:
    """`path` if the tree has it, and all paths below it."""
    entry = tree.get(path)
    if entry is not None and entry.kind != DIR:
        return [path]
    return [other for other in tree if other == path or is_below(other, path)]


def is_valid(tree: Tree) -> bool:
    """Whether every entry's parent is a directory of the tree."""
    for path in tree:
        above = parent(path)
        if above and (above not in tree or tree[above].kind != DIR):
            return False
    return True
