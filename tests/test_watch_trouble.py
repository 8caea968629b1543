"""The watcher's other promise: whatever it may have missed, it says EVERYTHING, and why."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skynet.marks import EVERYTHING, Mark
from skynet.watch import CALM, LONGEST_BACKOFF
from tests.support.watching import Post, emitter, innards, posted, works

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is broken on purpose")


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A watched source with a directory in it."""
    with posted(tmp_path) as post:
        post.put(b"dir/file")
        post.watcher.start()
        yield post


def test_an_overflow_is_told_and_watching_goes_on(post: Post) -> None:
    with emitter(post)._inotify._lock:  # who reads the kernel's queue waits for this
        for nth in range(30_000):
            os.mknod(post.at(b"dir/%d" % nth))
        os.mkdir(post.at(b"unseen"))
    post.wait(lambda: EVERYTHING in post.marks)
    post.watcher.check()
    assert post.codes() == ["watch-overflow"]
    post.settle()
    assert works(post)
    post.put(b"unseen/file")
    assert Mark(b"unseen/file") in post.settle()


def test_the_same_is_said_once_a_minute(post: Post) -> None:
    for said in [1, 1, 2]:
        assert post.watcher._vigil is not None
        post.watcher._vigil._overflowed = True
        post.check_after(31)
        assert len(post.notices) == said
        assert works(post)


def kill_emitter(post: Post) -> None:
    emitter(post).build_and_queue_event = None  # not to be called
    post.put(b"poison")


def kill_reader(post: Post) -> None:
    innards(post)._reader._watch_for_wd = None
    post.put(b"poison")


def end_emitter(post: Post) -> None:
    emitter(post).stop()


def kill_canary(post: Post) -> None:
    shutil.rmtree(post.canary)


def end_dispatcher(post: Post) -> None:
    innards(post)._stopped_event.set()
    post.put(b"poison")


@pytest.mark.parametrize(
    "kill", [kill_emitter, kill_reader, end_emitter, kill_canary, end_dispatcher]
)
def test_a_dead_thread_is_replaced(kill: Callable[[Post], None], post: Post) -> None:
    before = innards(post)
    kill(post)
    assert post.watcher._vigil is not None
    post.wait(post.watcher._vigil._lookout.dead)
    post.forget()
    post.watcher.check()
    assert EVERYTHING in post.marks
    assert post.codes() == ["watch-died"]
    assert innards(post) is not before
    assert works(post)


def test_what_tell_raises_costs_a_full_look_and_no_thread(post: Post) -> None:
    post.hurts = ValueError("no")
    post.put(b"dir/file")
    post.wait(lambda: post.hurts is None)
    post.forget()
    post.watcher.check()
    assert EVERYTHING in post.marks
    assert post.codes() == ["watch-unheard"]
    assert works(post)


def make_deaf(post: Post) -> None:
    innards(post)._reader.handle_event = lambda _: None


def test_a_deaf_watcher_is_replaced(post: Post) -> None:
    make_deaf(post)
    post.put(b"unheard")
    for _ in range(3):  # a silence, the canary, its deadline
        post.check_after(16)
    assert post.sights == []
    post.check_after(16)
    assert EVERYTHING in post.marks
    assert post.codes() == ["watch-deaf"]
    assert works(post)


def test_a_canary_is_heard(post: Post) -> None:
    vigil = post.watcher._vigil
    assert vigil is not None
    for _ in range(20):
        touched = os.stat(post.canary / "canary").st_mtime_ns
        post.check_after(16)
        if os.stat(post.canary / "canary").st_mtime_ns != touched:
            post.wait(lambda: vigil._canary._heard)
    assert post.notices == []
    assert post.sights == []
    assert os.stat(post.canary).st_mode & 0o777 == 0o700


def test_a_canary_that_is_made_again_is_for_this_user_only(post: Post) -> None:
    shutil.rmtree(post.canary.parent.parent)
    for _ in range(5):  # that it is gone may be heard in the next vigil only
        post.check_after(LONGEST_BACKOFF)
    assert post.watcher.how == "native"
    for made in (post.canary, *list(post.canary.parents)[:2]):
        assert os.stat(made).st_mode & 0o777 == 0o700


def test_no_canary_while_there_is_news(post: Post) -> None:
    touched = os.stat(post.canary / "canary").st_mtime_ns
    for _ in range(10):
        assert works(post)
        post.check_after(29)
    assert os.stat(post.canary / "canary").st_mtime_ns == touched


# The root


def test_a_root_that_is_replaced_is_watched_anew(post: Post) -> None:
    os.rename(post.root, post.root + b" old")
    post.put(b"dir/file")
    post.check_after(1)
    assert EVERYTHING in post.marks
    assert post.codes() == ["watch-root"]
    assert works(post)


def test_a_root_that_is_gone_is_waited_for(post: Post) -> None:
    os.rename(post.root, post.root + b" away")
    for _ in range(200):
        post.check_after(3)
    assert post.watcher.how == "off: the source is not there"
    assert post.codes() == ["watch-root"]
    os.rename(post.root + b" away", post.root)
    post.forget()
    post.check_after(3)
    assert post.marks == {EVERYTHING}
    assert post.watcher.how == "native"
    assert works(post)


def test_a_removed_root_is_waited_for(post: Post) -> None:
    shutil.rmtree(post.root)
    post.check_after(3)
    post.put(b"dir/file")
    post.forget()
    post.check_after(3)
    assert EVERYTHING in post.marks
    assert works(post)


def test_a_root_that_is_missing_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with posted(tmp_path) as post:
        os.rmdir(post.root)
        post.watcher.start()
        post.check_after(3)
        assert (post.codes(), post.sights) == (["watch-root"], [])
        post.put(b"dir/file")
        post.check_after(3)
        assert post.marks == {EVERYTHING}
        assert works(post)


# Life


def test_a_watcher_that_fails_again_and_again_is_tried_less_often(post: Post) -> None:
    tries, before = 0, None
    for _ in range(3600 // 5):
        if post.watcher._vigil is not None and innards(post) is not before:
            tries, before = tries + 1, innards(post)
            end_emitter(post)
            post.wait(post.watcher._vigil._lookout.dead)
        post.check_after(5)
    assert 10 <= tries <= 25
    post.check_after(LONGEST_BACKOFF)
    post.check_after(CALM + 1)
    assert works(post)


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_stop(tmp_path: Path) -> None:
    threads, open_before = set(threading.enumerate()), handles()
    for _ in range(3):
        with posted(tmp_path) as post:
            post.put(b"dir/file")
            post.watcher.start()
            end_emitter(post)
            post.watcher.check()
            post.watcher.stop()
            post.watcher.stop()
            assert post.watcher.how == "off"
            post.forget()
            post.check_after(1000)
            assert post.sights == []
    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= threads
    assert handles() <= open_before


def test_stop_does_not_wait_for_a_thread_that_hangs(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skynet.vigil.STOP_DEADLINE", 0.1)
    stuck = emitter(post)._inotify._lock
    with stuck:
        post.watcher.stop()
    assert post.codes() == ["watch-stuck"]


def test_check_survives_what_nobody_foresaw(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("skynet.vigil.Vigil.trouble", None)
        post.check_after(1)
    assert post.codes() == ["watch-died"]
    post.check_after(1)
    assert works(post)
