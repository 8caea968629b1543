"""What scripts/bench does to the files between two syncs."""

from __future__ import annotations

from pathlib import Path

import pytest
from _bench_changes import make_change
from _bench_data import ensure_data
from _bench_items import ITEMS
from _bench_work import KIB, MIB, Batch, Change, Item

ONE_LARGE = (Batch("large", 1, MIB, MIB),)
TWO_LARGE = (Batch("large", 2, MIB, MIB),)
ONE_DIRECTORY = (Batch("entry", 100, 5 * KIB, 5 * KIB),)


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def changed(
    base: Path, change: Change, batches: tuple[Batch, ...]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What the change makes of the batches: before, after."""
    folder = ensure_data(base, batches)
    before = contents(folder)
    make_change(change, folder)
    return before, contents(folder)


@pytest.mark.parametrize("item", [each for each in ITEMS if each.change], ids=lambda i: i.name)
def test_changes_are_the_same_each_time_and_change_something(item: Item, tmp_path: Path) -> None:
    assert item.change is not None
    small = item.scaled(1 / 1000 if item.kind == "changed" else 1 / 10_000).batches
    before, after = changed(tmp_path / "one", item.change, small)
    assert (before, after) == changed(tmp_path / "other", item.change, small)
    assert before != after


def test_a_moved_directory_keeps_its_names_and_contents(tmp_path: Path) -> None:
    before, after = changed(tmp_path, "move-dir", ONE_DIRECTORY)
    assert after == {name.replace("entry 00000/", "moved/"): before[name] for name in before}


def test_in_a_moved_directory_twenty_files_differ(tmp_path: Path) -> None:
    before, after = changed(tmp_path, "move-edit", ONE_DIRECTORY)
    old = {name.replace("entry 00000/", "moved/"): content for name, content in before.items()}
    assert (len(old.keys() - after.keys()), len(after.keys() - old.keys())) == (5, 5)
    assert len([name for name in old.keys() & after.keys() if old[name] != after[name]]) == 10


@pytest.mark.parametrize("change", ["swap", "cycle"])
def test_exchanges_leave_no_content_where_it_was(change: Change, tmp_path: Path) -> None:
    batches = TWO_LARGE if change == "swap" else (Batch("d", 5, KIB, KIB, per_directory=1),)
    folder = ensure_data(tmp_path, batches)
    inodes = {path: path.stat().st_ino for path in folder.rglob("*.bin")}
    places = sorted(path.parent for path in inodes)
    make_change(change, folder)
    moved = {path: path.stat().st_ino for path in folder.rglob("*.bin")}
    assert sorted(moved.values()) == sorted(inodes.values())
    assert sorted(path.parent for path in moved) == places
    assert all(moved.get(path) != inode for path, inode in inodes.items())


@pytest.mark.parametrize(
    ("change", "grows"), [("front", KIB), ("edits", 0), ("inserts", 10_000), ("append", 64 * KIB)]
)
def test_a_changed_file_grows_by_what_was_put_in(
    change: Change, grows: int, tmp_path: Path
) -> None:
    before, after = changed(tmp_path, change, ONE_LARGE)
    ((name, old),) = before.items()
    assert list(after) == [name]
    assert len(after[name]) == len(old) + grows
    assert after[name] != old


def test_insertions_keep_all_that_was_there(tmp_path: Path) -> None:
    before, after = changed(tmp_path, "inserts", ONE_LARGE)
    ((old,), (new,)) = before.values(), after.values()
    kept = iter(new[start : start + 64] for start in range(len(new)))
    wanted = [old[start : start + 64] for start in range(0, len(old) - 64, 64 * KIB)]
    assert all(piece in kept for piece in wanted)


def test_a_tenth_of_a_tree_changes_and_nothing_is_removed(tmp_path: Path) -> None:
    folder = ensure_data(tmp_path, (Batch("tiny", 400, 64, 64),))
    known = {path: path.stat() for path in folder.rglob("*.bin")}
    make_change("scatter", folder)
    after = {path: path.stat() for path in folder.rglob("*.bin*")}
    assert len(after) == 410
    assert len([path for path in after if path.name.endswith((".renamed", ".new"))]) == 20
    here = known.keys() & after.keys()
    assert len([p for p in here if known[p].st_mtime_ns != after[p].st_mtime_ns]) == 20
