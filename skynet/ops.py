"""Operations on the remote tree, and what each of them does to it.

`effect` is the only definition of that: the planner relies on it and the manifest records it.
`replay` serves no room: it is there for the laws that tests assert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from skynet.errors import Problem
from skynet.tree import Drop, Edit, Entry, Move, Put, Tree, edit


class Mkdir(msgspec.Struct, frozen=True, gc=False, tag="mkdir"):
    """Make a directory, or accept one that is there."""

    path: bytes
    entry: Entry


class Upload(msgspec.Struct, frozen=True, gc=False, tag="upload"):
    """Put a local file or link in place of `replaces`. The digest is known once it is sent.

    foreign: what it replaces is not skynet's work, so that version is kept in the trash.
    """

    path: bytes
    entry: Entry
    replaces: Entry | None = None
    foreign: bool = False


class Patch(msgspec.Struct, frozen=True, gc=False, tag="patch"):
    """Put a local file in place of `replaces`, from parts of that old version and what is new.

    sends: bytes of content to be sent; the rest is copied on the server. Where that turns out to
    be impossible, it is an Upload.
    """

    path: bytes
    entry: Entry
    replaces: Entry
    sends: int


class Copy(msgspec.Struct, frozen=True, gc=False, tag="copy"):
    """Put a copy of the file at `source`, made on the server, in place of `replaces`.

    source: where the remote has it then; a path in skynet's trash there (rules.in_trash) too.
    original: what is at `source`. entry: the same content, with times and mode of the local file.
    Where copying turns out to be impossible, it is an Upload.
    """

    path: bytes
    source: bytes
    entry: Entry
    original: Entry
    replaces: Entry | None = None


class Rename(msgspec.Struct, frozen=True, gc=False, tag="rename"):
    """Move what is at `source`, with everything below it, to `path`.

    replaces: the file that is at `path` until then; without it, nothing is.
    """

    path: bytes
    source: bytes
    entry: Entry
    replaces: Entry | None = None


class SetMeta(msgspec.Struct, frozen=True, gc=False, tag="setmeta"):
    """Give a file or directory whose content is right the mode and times of `entry`.

    opens: only for a while, so that the directory's owner may change what is in it.
    """

    path: bytes
    entry: Entry
    opens: bool = False


class Delete(msgspec.Struct, frozen=True, gc=False, tag="delete"):
    """Move a file or link into the trash, or remove it, as the policy says."""

    path: bytes
    entry: Entry
    foreign: bool = False


class Rmdir(msgspec.Struct, frozen=True, gc=False, tag="rmdir"):
    """Remove an empty directory."""

    path: bytes
    foreign: bool = False


class Record(msgspec.Struct, frozen=True, gc=False, tag="record"):
    """Make the manifest say what is already so; None: nothing is at the path. Sends nothing.

    first: before something is done to what is there, whatever the local file is. known: the stat
    identity then of the local file that it was made from, b"" if unknown.
    """

    path: bytes
    entry: Entry | None
    first: bool = False
    known: bytes = b""


REMOVALS = (Delete, Rmdir)
Op = Mkdir | Upload | Patch | Copy | Rename | SetMeta | Delete | Rmdir | Record


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in a valid order. needs[i]: indexes of the operations that ops[i] waits for."""

    ops: Sequence[Op]
    needs: Sequence[Sequence[int]]
    problems: Sequence[Problem] = ()

    def counts(self) -> Counter[str]:
        """How many operations of each kind, and the `bytes` of content to be sent."""
        return tally(self.ops)


def paths_of(op: Op) -> tuple[bytes, ...]:
    """The paths it is about: where it does something, and where from."""
    return (op.path, op.source) if isinstance(op, Rename | Copy) else (op.path,)


def step(op: Op) -> tuple[type[Op], bytes, bool]:
    """What tells an operation from all others of its plan, also when it has ended.

    A patch or a copy may end as an upload.
    """
    kind_of = Upload if isinstance(op, Patch | Copy) else type(op)
    is_earlier = (isinstance(op, SetMeta) and op.opens) or (isinstance(op, Record) and op.first)
    return kind_of, op.path, is_earlier


def as_upload(op: Copy) -> Upload:
    """The same file at the same place, but sent."""
    return Upload(op.path, msgspec.structs.replace(op.entry, digest=b""), op.replaces)


def was_sent_otherwise(planned: Op, made: Op) -> bool:
    """Whether other content was sent than was read for the plan.

    A local file may be rewritten with its size and time, which are compared before it is sent.
    """
    sent = (Upload, Patch)
    if not (isinstance(planned, sent) and isinstance(made, sent)):
        return False
    return planned.entry.digest not in (b"", made.entry.digest)


def kind(op: Op) -> str:
    """The name of an operation in reports: upload, rename, delete, ...

    A record of what is gone here and stays on the remote is called retain.
    """
    is_kept = isinstance(op, Record) and op.entry is not None and op.entry.retained
    return "retain" if is_kept else type(op).__name__.lower()


def tally(ops: Iterable[Op]) -> Counter[str]:
    """How many operations of each kind, and the `bytes` of content to be sent."""
    counts: Counter[str] = Counter()
    for op in ops:
        counts[kind(op)] += 1
        if isinstance(op, Upload):
            counts["bytes"] += op.entry.size
        elif isinstance(op, Patch):
            counts["bytes"] += op.sends
    return counts


def effect(op: Op) -> Edit:
    """What the operation, done, has changed in the remote tree."""
    match op:
        case Rename(path=path, source=source):
            return Move(source, path)
        case Delete(path=path) | Rmdir(path=path) | Record(path=path, entry=None):
            return Drop(path)
        case _:
            assert op.entry is not None
            return Put(op.path, op.entry)


def replay(tree: Tree, ops: Iterable[Op]) -> dict[bytes, Entry]:
    """The tree that the operations make of `tree`."""
    result = dict(tree)
    edit(result, map(effect, ops))
    return result
