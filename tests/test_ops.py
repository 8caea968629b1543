"""What operations do to a tree, how they are counted, and what an approval is bound to."""

from __future__ import annotations

import msgspec
import pytest

from skynet.ops import (
    Copy,
    Delete,
    Mkdir,
    Op,
    Patch,
    Plan,
    Record,
    Rename,
    Rmdir,
    SetMeta,
    Upload,
    effect,
    kind,
    replay,
    step,
    tally,
)
from skynet.tree import DIR, Drop, Edit, Entry, Move, Put
from tests.support.worlds import content_entry

OLD, NEW = content_entry(b"old"), content_entry(b"newer")
DIRECTORY = Entry(DIR, mode=0o755)

EFFECTS: list[tuple[Op, Edit]] = [
    (Mkdir(b"a", DIRECTORY), Put(b"a", DIRECTORY)),
    (Upload(b"a", NEW, OLD), Put(b"a", NEW)),
    (Patch(b"a", NEW, OLD, 2), Put(b"a", NEW)),
    (Copy(b"a", b"b", NEW, NEW, OLD), Put(b"a", NEW)),
    (Rename(b"a", b"b", OLD), Move(b"b", b"a")),
    (SetMeta(b"a", NEW), Put(b"a", NEW)),
    (Delete(b"a", OLD), Drop(b"a")),
    (Rmdir(b"a"), Drop(b"a")),
    (Record(b"a", NEW), Put(b"a", NEW)),
    (Record(b"a", None), Drop(b"a")),
]


@pytest.mark.parametrize(("op", "expected"), EFFECTS, ids=[kind(op) for op, _ in EFFECTS])
def test_each_operation_has_one_effect(op: Op, expected: Edit) -> None:
    assert effect(op) == expected


def test_replay_leaves_the_tree_it_was_given() -> None:
    tree = {b"a": OLD}
    after = replay(tree, [Rename(b"b", b"a", OLD), Upload(b"a", NEW)])
    assert after == {b"a": NEW, b"b": OLD}
    assert tree == {b"a": OLD}


def test_a_rename_drops_what_it_replaces() -> None:
    tree = {b"a": OLD, b"b": NEW}
    assert replay(tree, [Rename(b"b", b"a", OLD, NEW)]) == {b"b": OLD}


def test_what_may_end_as_an_upload_is_told_apart_as_one() -> None:
    patch, copy = Patch(b"a", NEW, OLD, 2), Copy(b"a", b"b", NEW, NEW)
    assert step(patch) == step(copy) == step(Upload(b"a", NEW))
    assert step(patch) != step(Rename(b"a", b"b", NEW))


def test_operations_are_counted_by_kind_and_content_by_bytes() -> None:
    ops = [op for op, _ in EFFECTS]
    assert tally(ops) == {
        **dict.fromkeys(("mkdir", "upload", "patch", "copy", "rename", "setmeta"), 1),
        "delete": 1,
        "rmdir": 1,
        "record": 2,
        "bytes": NEW.size + 2,
    }
    assert Plan(ops, [()] * len(ops)).counts() == tally(ops)


def test_operations_are_values() -> None:
    op = Upload(b"a", NEW, OLD)
    assert op == Upload(b"a", NEW, OLD)
    with pytest.raises(AttributeError):
        op.path = b"b"  # type: ignore[misc]  # this is what must fail
    assert msgspec.structs.replace(op, path=b"b") == Upload(b"b", NEW, OLD)
