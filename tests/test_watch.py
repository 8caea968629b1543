"""The watcher's promise: all that changes is marked, and nothing that does not. Real events."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skynet.marks import EVERYTHING, Mark, Sight
from skynet.watch import LONGEST_BACKOFF
from tests.support.watching import Post, is_covered, posted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="events of inotify are expected")


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A watched source with something in it."""
    with posted(tmp_path, hidden=frozenset({b"hidden", b"dir/hidden.txt"})) as post:
        for path in [b"file", b"dir/inner/deep", b"hidden/file", b"other/file", b".skynet/own"]:
            post.put(path)
        os.mkdir(tmp_path / "outside")
        post.watcher.start()
        assert post.watcher.how == "native"
        yield post


def outside(post: Post, name: bytes) -> bytes:
    return os.path.join(os.path.dirname(post.root), b"outside", name)


def move_in(post: Post, name: bytes, *, directory: bool) -> None:
    place = outside(post, name)
    if directory:
        os.makedirs(os.path.join(place, b"sub"))
    else:
        with open(place, "wb"):
            pass
    os.rename(place, post.at(name))


Act = Callable[[Post], object]
ACTS: dict[str, tuple[Act, set[Mark]]] = {
    "new file": (lambda post: post.put(b"dir/new"), {Mark(b"dir/new")}),
    "changed file": (lambda post: post.put(b"file", b"longer"), {Mark(b"file")}),
    "truncated file": (lambda post: os.truncate(post.at(b"file"), 0), {Mark(b"file")}),
    "mode of a file": (lambda post: os.chmod(post.at(b"file"), 0o600), {Mark(b"file")}),
    "time of a file": (lambda post: os.utime(post.at(b"file"), (1, 1)), {Mark(b"file")}),
    "removed file": (lambda post: os.unlink(post.at(b"dir/inner/deep")), {Mark(b"dir/inner/deep")}),
    "renamed file": (
        lambda post: os.rename(post.at(b"file"), post.at(b"dir/moved")),
        {Mark(b"file"), Mark(b"dir/moved")},
    ),
    "file moved out": (
        lambda post: os.rename(post.at(b"file"), outside(post, b"gone")),
        {Mark(b"file")},
    ),
    "file moved in": (lambda post: move_in(post, b"come", directory=False), {Mark(b"come")}),
    "symbolic link": (lambda post: os.symlink(b"nowhere", post.at(b"link")), {Mark(b"link")}),
    "link to a directory": (lambda post: os.symlink(b"dir", post.at(b"link")), {Mark(b"link")}),
    "hard link": (
        lambda post: os.link(post.at(b"file"), post.at(b"dir/link")),
        {Mark(b"dir/link")},  # the old name's content is what it was
    ),
    "pipe": (lambda post: os.mkfifo(post.at(b"pipe")), {Mark(b"pipe")}),
    "new directory": (lambda post: os.mkdir(post.at(b"dir/new")), {Mark(b"dir/new", True)}),
    "mode of a directory": (lambda post: os.chmod(post.at(b"dir"), 0o700), {Mark(b"dir")}),
    "mode of the root": (lambda post: os.chmod(post.root, 0o700), {Mark(b"")}),
    "removed directory": (
        lambda post: shutil.rmtree(post.at(b"other")),
        {Mark(b"other/file"), Mark(b"other", True)},
    ),
    "renamed directory": (
        lambda post: os.rename(post.at(b"dir"), post.at(b"other/dir")),
        {Mark(b"dir", True), Mark(b"other/dir", True)},
    ),
    "directory moved out": (
        lambda post: os.rename(post.at(b"dir"), outside(post, b"gone")),
        {Mark(b"dir", True)},
    ),
    "directory moved in": (
        lambda post: move_in(post, b"come", directory=True),
        {Mark(b"come", True)},
    ),
    "out of a hidden place": (
        lambda post: os.rename(post.at(b"hidden"), post.at(b"shown")),
        {Mark(b"shown", True)},
    ),
    "into a hidden place": (
        lambda post: os.rename(post.at(b"file"), post.at(b"hidden/x")),
        {Mark(b"file")},
    ),
    "hidden file": (lambda post: post.put(b"dir/hidden.txt"), set()),
    "hidden directory": (lambda post: post.put(b"hidden/sub/file"), set()),
    "our own": (lambda post: post.put(b".skynet/tmp/file"), set()),
    "ignore file": (lambda post: post.put(b".skynetignore"), {EVERYTHING}),
    "another ignore file": (
        lambda post: post.put(b"dir/.skynetignore"),
        {Mark(b"dir/.skynetignore")},
    ),
}


@pytest.mark.parametrize("act", ACTS)
def test_every_change_is_marked_and_nothing_else(act: str, post: Post) -> None:
    do, marks = ACTS[act]
    do(post)
    assert post.settle() == marks
    assert post.notices == []


def test_reading_marks_nothing(post: Post) -> None:
    for directory, _, files in os.walk(post.root):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                file.read()
    assert post.settle() == set()


def test_a_file_is_done_when_it_is_closed_or_moved(post: Post) -> None:
    with open(post.at(b"file"), "wb", buffering=0) as file:
        file.write(b"first")
        post.wait(lambda: Sight(Mark(b"file")) in post.sights)
        assert Sight(Mark(b"file"), True) not in post.sights
    post.wait(lambda: Sight(Mark(b"file"), True) in post.sights)
    assert post.sights.count(Sight(Mark(b"file"), True)) == 1
    post.forget()
    os.rename(post.at(b"file"), post.at(b"moved"))
    post.wait(lambda: len(post.sights) > 1)
    assert post.sights == [Sight(Mark(b"file"), True), Sight(Mark(b"moved"), True)]


NAMES = [b"caf\xe9", b"a\nb", b"trailing ", b" ", b"-rf", b"\xff\xfe", b"\\", b"\xed\xa0\x80"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_bytes(name: bytes, post: Post) -> None:
    post.put(name + b"/" + name)
    os.rename(post.at(name + b"/" + name), post.at(name + b"/.." + name))
    marks = post.settle()
    assert Mark(name, True) in marks
    post.forget()
    post.put(name + b"/again")
    assert post.settle() == {Mark(name + b"/again")}


def test_a_root_behind_a_link_is_watched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "source").symlink_to("real")
    with posted(tmp_path) as post:
        post.watcher.start()
        post.put(b"dir/file")
        assert Mark(b"dir", True) in post.settle()
        post.watcher.check()
        assert post.notices == []


def test_nothing_is_missed_in_directories_that_are_just_made(post: Post) -> None:
    """Files made before, while and after their new directory comes under watch are all covered."""
    made = [b"%d/a/b/c/%d" % (tree, each) for tree in range(40) for each in range(5)]

    def make(share: list[bytes]) -> None:
        for path in share:
            post.put(path)

    makers = [threading.Thread(target=make, args=[made[nth::4]]) for nth in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    marks = post.settle()
    assert [path for path in made if not is_covered(path, marks)] == []
    post.forget()
    for tree in range(40):
        post.put(b"%d/a/b/c/later" % tree)
    assert post.settle() == {Mark(b"%d/a/b/c/later" % tree) for tree in range(40)}


def test_a_directory_is_watched_wherever_it_was_moved_to(post: Post) -> None:
    """Inside, out and in again, and from a place where it was not watched."""
    os.rename(post.at(b"dir"), post.at(b"other/dir"))
    os.rename(post.at(b"other"), post.at(b"third"))
    os.rename(post.at(b"hidden"), post.at(b"shown"))
    move_in(post, b"come", directory=True)
    post.settle()
    os.rename(post.at(b"third/dir"), outside(post, b"dir"))
    post.settle()
    os.rename(outside(post, b"dir"), post.at(b"back"))
    post.settle()
    post.watcher.check()
    assert {notice.code for notice in post.notices} <= {"watch-lost"}
    post.forget()
    changed = {b"back/inner/x", b"third/x", b"shown/x", b"come/sub/x"}
    for path in changed:
        post.put(path)
    assert post.settle() == {Mark(path) for path in changed}


def move_before_it_is_watched(post: Post) -> Callable[[], None]:
    """As when its parent is renamed while watchdog is about to list it. Gives what ends that."""
    reader = post.watcher._vigil._lookout._observer._reader  # type: ignore[union-attr]  # it is there
    add = reader.add_callback

    def too_late(path: bytes, *others: Any) -> int:
        if b"/sub" in path:
            raise FileNotFoundError
        return int(add(path, *others))

    def end() -> None:
        reader.add_callback = add

    reader.add_callback = too_late
    post.put(b"new/sub/inner/file")
    os.rename(post.at(b"new"), post.at(b"moved"))
    post.settle()
    post.forget()
    post.put(b"moved/sub/inner/file")
    assert post.settle() == set()
    return end


def test_a_directory_that_was_moved_before_it_was_watched_is_watched_after_all(post: Post) -> None:
    end = move_before_it_is_watched(post)
    end()
    for _ in range(3):
        post.check_after(1)
    assert Mark(b"moved/sub", True) in post.settle()
    assert EVERYTHING not in post.marks
    assert post.notices == []
    post.forget()
    changed = {b"moved/sub/new", b"moved/sub/inner/file"}
    for path in changed:
        post.put(path)
    assert post.settle() == {Mark(path) for path in changed}


def test_all_is_watched_anew_where_that_is_of_no_use(post: Post) -> None:
    move_before_it_is_watched(post)
    for _ in range(2):
        post.check_after(1)
    assert EVERYTHING not in post.marks
    post.check_after(1)
    assert EVERYTHING in post.marks
    assert [notice.code for notice in post.notices] == ["watch-lost"]
    post.forget()
    post.put(b"moved/sub/inner/file")
    assert Mark(b"moved/sub/inner/file") in post.settle()


def snapshot(root: bytes) -> dict[bytes, tuple[object, ...]]:
    """Path -> all that a scan would see of it."""
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            times = () if name in dirs else (status.st_size, status.st_mtime_ns)
            found[os.path.relpath(path, root)] = (status.st_mode, status.st_ino, *times)
    return {path: seen for path, seen in found.items() if not path.startswith((b".", b"hidden"))}


def random_act(post: Post, chance: random.Random) -> None:
    paths = sorted(snapshot(post.root)) or [b"file"]
    path, other = chance.choice(paths), chance.choice(paths)
    target = chance.choice([other, other + b"/new%d" % chance.randrange(4)])
    if chance.random() < 0.1:
        target = outside(post, b"%d" % chance.randrange(10**9))
    act = chance.choice(["write", "move", "move", "mkdir", "chmod", "unlink"])
    try:
        if act == "write":
            post.put(chance.choice([path, target]), b"x" * chance.randrange(9))
        elif act == "move":
            os.rename(post.at(path), post.at(target))
        elif act == "mkdir":
            os.makedirs(post.at(other + b"/d%d/e" % chance.randrange(4)))
        elif act == "chmod":
            os.chmod(post.at(path), chance.choice([0o700, 0o755]))
        else:
            os.unlink(post.at(path))
    except OSError:
        pass  # there is no such thing to do in this tree


@pytest.mark.parametrize("seed", range(4))
def test_every_difference_is_covered(seed: int, post: Post) -> None:
    """By the marks of the moment, or by what three checks find: moves outrun watchdog."""
    chance = random.Random(seed)
    for _ in range(5):
        before = snapshot(post.root)
        for _ in range(60):
            random_act(post, chance)
        after = snapshot(post.root)
        post.settle()
        for _ in range(3):
            post.check_after(1)
        if post.watcher.how != "native":  # for a while, as this is not the first time
            post.check_after(LONGEST_BACKOFF)
        marks = post.settle()
        changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
        assert [path for path in sorted(changed) if not is_covered(path, marks)] == []
        post.forget()
