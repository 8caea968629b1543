"""Whether a saved plan still fits the world it was made for; if not, what has changed.

Looked at is what the plan is about, and no more: the source itself, the manifest, the settings,
what is here at the paths of its operations, and what kind of thing the remote has there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from skynet.config import Mirror
from skynet.errors import StalePlan
from skynet.manifest import Head
from skynet.ops import Copy, Delete, Mkdir, Op, Patch, Record, Rename, Rmdir, SetMeta, Upload
from skynet.planfile import escape
from skynet.rules import folded, shown
from skynet.saved import Basis, Here, SavedPlan, Settings, Standing, bound_paths
from skynet.scan import Listing, Root, fields, kind_in, settled, standing
from skynet.target import printable
from skynet.tree import DIR, FILE, LINK, Kind, ancestors, name, order, parent

TOLD = 20  # changes that are told one by one


def basis_of(mirror: Mirror, root: Root, head: Head | None, *, trusted: bool) -> Basis:
    """What a plan made now is made from. head: of the manifest, None if there is none to use."""
    manifest = Standing("", 0, "", trusted)
    if head is not None:
        mirror_id = head.header.mirror_id.hex()
        manifest = Standing(mirror_id, head.generation, head.chain.hex(), trusted)
    patterns = [*mirror.ignore, *root.patterns()]
    settings = Settings(
        complete_sync=mirror.complete_sync,
        empty_dirs=mirror.empty_dirs,
        symlinks=mirror.symlinks,
        foreign=mirror.foreign,
        trash=mirror.trash,
        trash_days=mirror.trash_days,
        ignore=tuple(escape(text.encode("utf-8", "surrogateescape")) for text in patterns),
    )
    device, inode = root.identity
    return Basis(escape(mirror.source), str(mirror.target), f"{device}:{inode}", manifest, settings)


# What is here -------------------------------------------------------------------------------


@dataclass(slots=True)
class Sight:
    """What is at some local paths. identities: to be recorded. entries: how many were listed.

    unknown: paths that could not be looked at.
    """

    here: dict[bytes, Here] = field(default_factory=dict)
    identities: dict[bytes, bytes] = field(default_factory=dict)
    unknown: list[bytes] = field(default_factory=list)
    entries: int = 0


def look(root: Root, ops: Iterable[Op]) -> Sight:
    """See what is at the paths of operations, in listings from the root down.

    So names are exact where the file system ignores case, and no link is followed. In memory are
    the listings on the way to one path.
    """
    sight = Sight()
    way: dict[bytes, Listing] = {}
    for path in sorted({b"", *(path for op in ops for path in bound_paths(op))}, key=order):
        way = {above: way[above] for above in (b"", *ancestors(path)) if above in way}
        for above in (b"", *reversed(list(ancestors(path)))):
            if above not in way:
                way[above] = _list(root, above, way)
                sight.entries += len(way[above].children)
        if path:
            _see(path, way[parent(path)], sight)
    return sight


_NOTHING = Listing({}, [], set(), set(), failed=False)
_FAILED = Listing({}, [], set(), set(), failed=True)


def _list(root: Root, directory: bytes, way: dict[bytes, Listing]) -> Listing:
    """The listing of a directory, empty if there is none. way: those above it."""
    if directory:
        above, last = way[parent(directory)], name(directory)
        if above.failed or last in above.unknown:
            return _FAILED
        known = above.children.get(last)
        if known is None or kind_in(known) != DIR:
            return _NOTHING
    return root.list(directory)


def _see(path: bytes, listing: Listing, sight: Sight) -> None:
    last = name(path)
    if listing.failed or last in listing.unknown:
        sight.unknown.append(path)
        return
    known = listing.children.get(last)
    sight.here[path] = None
    if known is not None:
        is_dir = kind_in(known) == DIR
        *_, inode, mode = fields(known)
        # A directory's own modification is no change, but another one in its place is.
        sight.here[path] = (0, 0, 0, inode, mode) if is_dir else fields(known)
        sight.identities[path] = standing(known) if is_dir else known


# What the plan takes for granted ------------------------------------------------------------


class Expected(NamedTuple):
    """What the remote must be like before a plan. kinds: what may be at each path, None nothing.

    ours: paths that the manifest must have, since they are removed or renamed.
    """

    kinds: dict[bytes, tuple[Kind | None, ...]]
    ours: set[bytes]


def expected(ops: Sequence[Op]) -> Expected:
    """What operations take for granted, where none before them has changed that."""
    wanted = Expected({}, set())
    changed: set[str] = set()  # as a server that ignores case finds them
    for op in ops:
        for path, kinds, is_ours in _before(op):
            if changed.isdisjoint(map(folded, (path, *ancestors(path)))):
                wanted.kinds.setdefault(path, kinds)
                wanted.kinds.update((above, (DIR,)) for above in ancestors(path))
                if is_ours:
                    wanted.ours.add(path)
        if not isinstance(op, SetMeta | Record) or (isinstance(op, SetMeta) and op.opens):
            changed.update(map(folded, bound_paths(op)))
    return wanted


def _before(op: Op) -> Iterator[tuple[bytes, tuple[Kind | None, ...], bool]]:
    """Each path of an operation, what may be there before it, and whether it must be ours."""
    match op:
        case Mkdir(path=path):
            yield path, (None, DIR), False
        case Upload(path=path, replaces=old) | Copy(path=path, replaces=old):
            yield path, (old.kind if old is not None else None,), False
        case Rename(path=path, source=source, entry=entry, replaces=old):
            yield source, (entry.kind,), True
            if folded(path) != folded(source):  # else a server that ignores case finds the source
                yield path, (old.kind if old is not None else None,), False
        case Delete(path=path, entry=entry, foreign=foreign):
            yield path, (entry.kind,), not foreign
        case Rmdir(path=path, foreign=foreign):
            yield path, (DIR,), not foreign
        case Patch() | SetMeta() | Record():
            if op.entry is not None:
                yield op.path, (op.entry.kind,), False


# What has changed ---------------------------------------------------------------------------


def expect_bound(root: Root, ops: Sequence[Op], sight: Sight) -> None:
    """StalePlan unless what is to be sent is still what it was when it was planned."""
    expect_none([*_unseen(sight), *_other_content(root, ops, sight)])


def expect_fresh(saved: SavedPlan, basis: Basis, root: Root, sight: Sight) -> None:
    """StalePlan unless the plan was made from what is so now."""
    changes = [
        *_mirror_changes(saved.basis, basis),
        *_unseen(sight),
        *_local_changes(saved, sight),
    ]
    expect_none(changes or _other_content(root, saved.plan.ops, sight))


def expect_remote(
    ops: Sequence[Op],
    kinds: Callable[[Sequence[bytes]], Callable[[], Sequence[Kind | None]]],
    is_synced: Callable[[bytes], bool],
) -> None:
    """StalePlan unless the remote, and the manifest, have what the operations take for granted.

    kinds: as of Remote.
    """
    wanted = expected(ops)
    paths = list(wanted.kinds)
    changes = [
        f"on the remote, {shown(path)} is not what it was"
        for path, found in zip(paths, kinds(paths)(), strict=True)
        if found not in wanted.kinds[path]
    ]
    unknown = [path for path in wanted.ours if not is_synced(path)]
    changes += [f"the manifest has no {shown(path)}" for path in sorted(unknown, key=order)]
    expect_none(changes)


def expect_none(changes: Iterable[str]) -> None:
    """StalePlan that names the changes, if there are any."""
    told = list(changes)
    if not told:
        return
    if len(told) > TOLD:
        told[TOLD:] = [f"and {len(told) - TOLD} changes more"]
    raise StalePlan(
        f"The saved plan is stale: {'; '.join(told)}. Nothing was done; "
        "look at a new plan with skynet plan --out."
    )


def recorded(saved: SavedPlan, sight: Sight) -> dict[bytes, bytes]:
    """The stat identities to record: what was young when the plan was made is looked at again."""
    return {path: settled(known, saved.made_ns) for path, known in sight.identities.items()}


def _mirror_changes(old: Basis, new: Basis) -> Iterator[str]:
    if (old.source, old.target) != (new.source, new.target):
        yield f"it was made for {printable(old.source)} and {printable(old.target)}"
        return
    if old.root != new.root:
        yield "the source is another directory than it was"
    for key in Settings.__struct_fields__:
        if getattr(old.settings, key) != getattr(new.settings, key):
            yield f"the setting {key} is another one"
    before, after = old.manifest, new.manifest
    if before.mirror != after.mirror:
        yield (
            "the target has the manifest of another mirror"
            if after.mirror
            else ("the target has no manifest any more")
        )
    elif before.generation != after.generation:
        yield f"the manifest has moved on from generation {before.generation} to {after.generation}"
    elif before != after:
        yield "the manifest was replaced by another one, or is in doubt"


def _unseen(sight: Sight) -> Iterator[str]:
    for path in sight.unknown:
        yield f"{shown(path)} cannot be looked at"


def _local_changes(saved: SavedPlan, sight: Sight) -> Iterator[str]:
    for path, now in sight.here.items():
        before = saved.here[path]
        if before == now:
            continue
        if before is None:
            yield f"{shown(path)} is there again"
        else:
            yield f"{shown(path)} {'has changed' if now is not None else 'is gone'}"


def _other_content(root: Root, ops: Sequence[Op], sight: Sight) -> Iterator[str]:
    """What is to be sent or copied and is not the file or link that was planned."""
    for op in ops:
        if not isinstance(op, Upload | Patch | Copy) or op.path not in sight.here:
            continue
        known, entry = sight.identities.get(op.path), op.entry
        if known is None or kind_in(known) != entry.kind:
            yield f"{shown(op.path)} is not what was planned"
        elif entry.kind == FILE:
            mtime_ns, _, size, *_ = fields(known)
            if (size, mtime_ns) != (entry.size, entry.mtime_ns):
                yield f"{shown(op.path)} is not what was planned"
        elif entry.kind == LINK and _link(root, op.path, known) != entry.link:
            yield f"{shown(op.path)} leads elsewhere"


def _link(root: Root, path: bytes, known: bytes) -> bytes | None:
    """Where a link leads; None if it is gone."""
    try:
        return root.entry(path, known).link
    except OSError:
        return None
