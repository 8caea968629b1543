"""Which operations of a plan must be done before which. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from skynet.ops import Delete, Op, Record, Rename, Rmdir, SetMeta
from skynet.tree import DIR, parent


def changed_directories(op: Op) -> tuple[bytes, ...]:
    """The directories in which the operation makes, replaces or removes a name."""
    if isinstance(op, Record | SetMeta):
        return ()
    if isinstance(op, Rename):
        return parent(op.path), parent(op.source)
    return (parent(op.path),)


def needs_of(ops: Sequence[Op]) -> list[tuple[int, ...]]:
    """For each operation the earlier ones that must be done first."""
    maker: dict[bytes, int] = {}  # path -> what makes an entry there
    clearer: dict[bytes, int] = {}  # path -> what frees it
    leaving: dict[bytes, list[int]] = defaultdict(list)  # directory -> what empties it
    opener: dict[bytes, int] = {}  # directory -> what lets its owner change it
    needs: list[tuple[int, ...]] = []
    fillers: dict[bytes, list[int]] = defaultdict(list)  # directory -> what is put into it
    for index, op in enumerate(ops):
        mine = [opener[d] for d in changed_directories(op) if d in opener]
        if isinstance(op, Delete | Rmdir):
            mine += leaving.get(op.path, ()) if isinstance(op, Rmdir) else ()
            clearer[op.path] = index
            leaving[parent(op.path)].append(index)
        elif isinstance(op, SetMeta):
            mine += [maker[op.path]] if op.path in maker else []
            # A directory's mode may forbid whatever else is to be done in it.
            mine += fillers.get(op.path, ())
            mine += leaving.get(op.path, ())
            if op.opens:
                opener[op.path] = index
            elif op.path in opener:
                mine.append(opener[op.path])
        elif isinstance(op, Record):
            mine += [maker[p] for p in (parent(op.path), op.path) if p in maker]
            if op.entry is not None and op.entry.kind == DIR:
                maker[op.path] = index
        else:
            mine += [found[p] for found, p in _before(op, maker, clearer) if p in found]
            maker[op.path] = index
            fillers[parent(op.path)].append(index)
            if isinstance(op, Rename):
                leaving[parent(op.source)].append(index)
        needs.append(tuple(mine))
    return needs


def _before(
    op: Op, maker: dict[bytes, int], clearer: dict[bytes, int]
) -> tuple[tuple[dict[bytes, int], bytes], ...]:
    """What must be made and freed before something can be put at `op.path`."""
    return (maker, parent(op.path)), (clearer, op.path)
