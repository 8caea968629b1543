"""Saved plans that do not fit any more: refused, and what has changed is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skynet import stale
from skynet.errors import StalePlan
from skynet.index import Index
from skynet.memory import INDEX_FILE
from skynet.ops import Delete, Mkdir, Rename, Upload
from skynet.saved import SavedPlan
from skynet.scan import RACY, Root
from tests.support.saved import changed_world, refused, save
from tests.support.world import Link, World

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return changed_world(tmp_path)


# What makes a plan stale, each by itself.


def touch(world: World) -> None:
    os.utime(world.local / "edit", ns=(1, 1))


def make_anew(world: World) -> None:
    world.move("new", "aside")
    world.put({"new": {"file": b"7777777"}})


def link_aside(world: World) -> None:
    world.move("new", "aside")
    (world.local / "new").symlink_to("aside")


def make_special(world: World) -> None:
    world.put({"edit": None})
    os.mkfifo(world.local / "edit")


LOCAL: dict[str, tuple[Callable[[World], object], str]] = {
    "edited": (lambda w: w.put({"new": {"file": b"other"}}), "new/file has changed"),
    "touched": (touch, "edit has changed"),
    "mode": (lambda w: (w.local / "edit").chmod(0o640), "edit has changed"),
    "vanished": (lambda w: w.put({"new name": None}), "new name is gone"),
    "back": (lambda w: w.put({"gone": b"22"}), "gone is there again"),
    "back as a directory": (lambda w: w.put({"gone": {}}), "gone is there again"),
    "source back": (lambda w: w.put({"old name": b"333"}), "old name is there again"),
    "directory back": (lambda w: (w.local / "e").mkdir(), "e is there again"),
    "another kind": (lambda w: w.put({"edit": Link("same")}), "edit has changed"),
    "another link": (lambda w: w.put({"link": Link("gone")}), "link has changed"),
    "another directory": (make_anew, "new has changed"),
    "linked directory": (link_aside, "new/file is gone"),
    "special": (make_special, "edit cannot be looked at"),
}


@pytest.mark.parametrize("case", LOCAL)
def test_a_local_change_is_named(world: World, case: str) -> None:
    change, told = LOCAL[case]
    saved = save(world)
    change(world)
    assert told in refused(world, saved)


def test_another_root_is_named(world: World) -> None:
    saved = save(world)
    world.local.rename(world.base / "aside")
    shutil.copytree(world.base / "aside", world.local, symlinks=True)
    assert "the source is another directory than it was" in refused(world, saved)


def test_a_run_in_between_is_named(world: World) -> None:
    saved = save(world)
    world.put({"d": {"c": b"ccc"}})
    world.twin().sync()
    assert "the manifest has moved on from generation 1 to 2" in refused(world, saved)


def test_a_manifest_that_is_gone_is_named(world: World) -> None:
    saved = save(world)
    shutil.rmtree(world.remote / ".skynet")
    assert "the target has no manifest any more" in refused(world, saved)


def test_a_manifest_that_is_damaged_is_named(world: World) -> None:
    saved = save(world)
    manifest = world.remote / ".skynet" / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-40] + bytes(40))
    assert "the target has no manifest any more" in refused(world, saved)


def test_a_manifest_that_came_from_a_backup_is_named(world: World) -> None:
    shutil.copytree(world.remote, world.base / "backup", symlinks=True)
    saved = save(world)
    world.sync()
    shutil.rmtree(world.remote)
    shutil.copytree(world.base / "backup", world.remote, symlinks=True)
    assert "the manifest was replaced by another one, or is in doubt" in refused(world, saved)


def test_another_mirror_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", complete_sync=True)
    other.put({"a": b"1"})
    told = refused(other, save(world))
    assert f"it was made for {world.local} and sftp://host{world.remote}" in told
    assert "the manifest" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complete_sync", False),
        ("empty_dirs", True),
        ("symlinks", "skip"),
        ("foreign", "trash"),
        ("trash", "all"),
        ("trash_days", 0),
        ("ignore", ("new",)),
    ],
)
def test_another_setting_is_named(world: World, name: str, value: object) -> None:
    saved = save(world)
    assert f"the setting {name} is another one" in refused(world, saved, **{name: value})


def test_new_ignore_rules_are_named(world: World) -> None:
    saved = save(world)
    world.put({".skynetignore": b"new\n"})
    assert "the setting ignore is another one" in refused(world, saved)


def lead_elsewhere(world: World) -> None:
    (world.remote / "e").rename(world.base / "e")
    (world.remote / "e").symlink_to(world.base / "e")


REMOTE: dict[str, tuple[Callable[[World], object], str]] = {
    "in the way": (lambda w: w.put_remote({"new": b"not ours"}), "new is not what it was"),
    "deleted": (lambda w: w.put_remote({"gone": None}), "gone is not what it was"),
    "not there to rename": (
        lambda w: w.put_remote({"old name": None}),
        "old name is not what it was",
    ),
    "at the new name": (lambda w: w.put_remote({"new name": b"?"}), "new name is not what it was"),
    "leading elsewhere": (lead_elsewhere, "e is not what it was"),
}


@pytest.mark.parametrize("case", REMOTE)
def test_what_happened_on_the_remote_is_named(world: World, case: str) -> None:
    change, told = REMOTE[case]
    saved = save(world)
    change(world)
    assert f"on the remote, {told}" in refused(world, saved)


def test_many_changes_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({f"{number:03}": b"1" for number in range(stale.TOLD + 5)})
    saved = save(world)
    world.put({f"{number:03}": None for number in range(stale.TOLD + 5)})
    told = refused(world, saved)
    assert told.count(" is gone") == stale.TOLD
    assert "; and 5 changes more." in told


def test_what_changes_while_a_plan_is_saved_is_not_saved(world: World) -> None:
    def change(event: object) -> None:
        if "reading what may have moved" in str(event):
            world.put({"new": {"file": b"later"}})

    world.on_event = change
    with pytest.raises(StalePlan, match="new/file is not what was planned"):
        world.plan(bind=True)


@pytest.mark.parametrize("young", [True, False])
def test_files_that_were_young_are_looked_at_again(tmp_path: Path, *, young: bool) -> None:
    """However old they are when the plan is carried out."""
    world = World(tmp_path)
    world.put({"a": b"1"})
    world.sync()
    world.move("a", "b")
    ahead_ns = world.ahead_ns
    world.ahead_ns = 0 if young else ahead_ns
    saved = save(world)
    world.ahead_ns = ahead_ns
    world.sync(saved=saved)
    [file] = world.state.glob(f"*/{INDEX_FILE}")
    with Index.open(file, read_only=True) as index:
        assert (index.stats(b"")[b"b"] == RACY) == young


# What a forged plan cannot do.


def forged(saved: SavedPlan, *ops: Any, here: Any = None) -> SavedPlan:
    plan = replace(saved.plan, ops=ops, needs=[()] * len(ops))
    return replace(saved, plan=plan, here={op.path: here for op in ops} | dict(saved.here))


def test_what_the_manifest_does_not_have_is_not_deleted(world: World) -> None:
    world.put_remote({"theirs": b"precious"})
    saved = save(world, foreign="keep")
    [gone] = [op for op in saved.plan.ops if isinstance(op, Delete) and op.path == b"gone"]
    forgery = forged(saved, replace_path(gone, b"theirs"))
    assert "the manifest has no theirs" in refused(world, forgery, foreign="keep")
    rename = Rename(b"new name", b"theirs", gone.entry)
    forgery = replace(forged(saved, rename), here={b"theirs": None, **saved.here})
    assert "the manifest has no theirs" in refused(world, forgery, foreign="keep")


def replace_path(op: Delete, path: bytes) -> Delete:
    return Delete(path, op.entry, op.foreign)


def test_a_link_is_sent_only_as_it_is_here(world: World) -> None:
    saved = save(world)
    [link] = [op for op in saved.plan.ops if op.path == b"link" and isinstance(op, Upload)]
    entry = type(link.entry)("l", link=b"/etc/passwd")
    other = Upload(link.path, entry, link.replaces)
    assert "link leads elsewhere" in refused(world, forged(saved, other))


def test_nothing_goes_through_a_link_on_the_remote(world: World) -> None:
    saved = save(world)
    (world.base / "outside").mkdir()
    (world.remote / "out").symlink_to(world.base / "outside")
    [upload] = [op for op in saved.plan.ops if op.path == b"new/file"]
    assert isinstance(upload, Upload)
    world.put({"out": {"file": b"1"}})
    sight = stale.look(
        Root(os.fsencode(world.local), lambda: 0), [Mkdir(b"out/file", upload.entry)]
    )
    inside = Upload(b"out/file", replace_size(upload, sight.here[b"out/file"]))
    forgery = replace(forged(saved, inside), here=sight.here)
    assert "on the remote, out is not what it was" in refused(world, forgery)


def replace_size(upload: Upload, here: Any) -> Any:
    return type(upload.entry)("f", here[2], here[0], 0o644)
