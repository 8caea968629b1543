"""Where the system cannot watch: limits, network file systems, and what is done instead."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skynet.marks import EVERYTHING, Mark, Sight
from skynet.vigil import Canary
from skynet.watch import LONGEST_BACKOFF, POLL_SECONDS
from skynet.watchable import Limit, advice
from tests.support.watching import Post, posted, works

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is broken on purpose")

C = "watchdog.observers.inotify_c"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A watched source with a directory in it."""
    with posted(tmp_path) as post:
        post.put(b"dir/file")
        post.watcher.start()
        yield post


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, refuses: Callable[[bytes], bool]) -> None:
    """Let the system refuse to watch some directories."""
    import watchdog.observers.inotify_c as library

    add_watch: Callable[[int, bytes, int], int] = library.inotify_add_watch

    def add(handle: int, path: bytes, mask: int) -> int:
        if refuses(path):
            ctypes.set_errno(code)
            return -1
        return add_watch(handle, path, mask)

    monkeypatch.setattr(f"{C}.inotify_add_watch", add)


@pytest.mark.parametrize("refused", [b"source", b"dir"])
def test_at_the_limit_auto_polls_until_it_is_raised(
    refused: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "max_user_watches"
    setting.write_text("8192\n")
    monkeypatch.setattr("skynet.watchable.LIMITS", tmp_path)
    with posted(tmp_path) as post:
        post.put(b"dir/file")
        with monkeypatch.context() as limited:
            refuse(limited, errno.ENOSPC, lambda path: path.endswith(refused))
            post.watcher.start()
            assert post.watcher.how.startswith("poll: ")
            for _ in range(20):
                post.check_after(POLL_SECONDS / 4 + 1)
        assert 4 <= post.sights.count(Sight(EVERYTHING)) <= 6
        assert set(post.codes()) == {"watch-limit"}
        assert "sudo sysctl fs.inotify.max_user_watches=16384" in post.notices[0].message
        setting.write_text("16384\n")
        post.check_after(1)
        assert post.watcher.how == "native"
        assert works(post)


def test_at_the_limit_native_watches_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENOSPC, lambda path: path.endswith(b"over"))
    with posted(tmp_path, "native") as post:
        post.put(b"dir/file")
        post.put(b"over/file")
        post.watcher.start()
        assert post.watcher.how == "native: 1 directories are not watched"
        assert post.codes() == ["watch-limit"]
        post.check_after(POLL_SECONDS * 10)
        assert works(post)


@pytest.mark.parametrize("mode", ["auto", "native"])
def test_a_full_disk_is_no_limit_and_is_tried_again(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_canary(canary: Canary) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with posted(tmp_path, mode) as post:
        post.put(b"dir/file")
        with monkeypatch.context() as full:
            full.setattr(Canary, "make", refuse_canary)
            post.watcher.start()
            for _ in range(10):
                post.check_after(20)
        how = {"auto": "poll: watching cannot begin", "native": "off: watching cannot begin"}
        assert post.watcher.how == how[mode]
        assert set(post.codes()) == {"watch-canary"}
        assert os.strerror(errno.ENOSPC) in post.notices[0].message
        assert "sysctl" not in post.notices[0].message
        post.check_after(LONGEST_BACKOFF)
        assert post.watcher.how == "native"
        assert works(post)


def test_a_limit_met_later_leads_to_polling(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.ENOSPC, lambda path: path.endswith(b"over"))
    post.put(b"over/file")
    post.settle()
    post.check_after(1)
    assert post.watcher.how == "poll: the system's limit of watches"
    assert post.codes() == ["watch-limit"]
    assert post.sights[-1] == Sight(EVERYTHING)


def test_without_another_instance_auto_polls_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_instance() -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    with posted(tmp_path) as post:
        post.put(b"dir/file")
        with monkeypatch.context() as limited:
            limited.setattr(f"{C}.inotify_init", refuse_instance)
            post.watcher.start()
            for _ in range(10):
                post.check_after(20)
        assert post.watcher.how.startswith("poll: ")
        assert "fs.inotify.max_user_instances" in post.notices[0].message
        post.check_after(LONGEST_BACKOFF)
        assert post.watcher.how == "native"
        assert works(post)


def test_a_directory_that_cannot_be_watched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENAMETOOLONG, lambda path: path.endswith(b"far"))
    with posted(tmp_path) as post:
        post.put(b"dir/file")
        post.put(b"far/file")
        post.watcher.start()
        assert post.codes() == ["watch-refused"]
        assert "/far: " in post.notices[0].message
        assert works(post)


def test_a_directory_is_watched_once_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with posted(tmp_path) as post:
        post.put(b"dir/file")
        post.put(b"closed/file")
        with monkeypatch.context() as closed:
            refuse(closed, errno.EACCES, lambda path: path.endswith(b"closed"))
            post.watcher.start()
            assert post.notices == []  # the cycle itself says what it cannot read
            assert works(post)
        os.chmod(post.at(b"closed"), 0o755)
        post.wait(lambda: EVERYTHING in post.marks)
        post.check_after(1)
        post.put(b"closed/file")
        assert Mark(b"closed/file") in post.settle()


REAL_LIMIT = """
import sys, time
from pathlib import Path
from skynet.watch import Watcher
from skynet.rules import is_reserved
watcher = Watcher(sys.argv[1].encode(), "auto", lambda sights: None, hides=lambda *_: False,
    canary=Path(sys.argv[2]), clock=time.monotonic, monitor=lambda notice: print(notice.code))
watcher.start()
print(watcher.how)
watcher.stop()
"""


def test_the_real_limit_is_noticed(tmp_path: Path) -> None:
    for nth in range(30):
        (tmp_path / "source" / str(nth)).mkdir(parents=True)
    limited = "echo 20 >/proc/sys/user/max_inotify_watches && exec"
    python = [sys.executable, "-W", "error", "-c", REAL_LIMIT]
    command = ["unshare", "-Ur", "sh", "-c", f'{limited} "$@"', "sh", *python]
    probe = subprocess.run([*command[:4], f"{limited} true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no user namespace can be made here")
    done = subprocess.run(
        [*command, tmp_path / "source", tmp_path / "canary"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == (
        "watch-limit\npoll: the system's limit of watches\n",
        "",
    )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_advice_names_a_value_that_would_do(code: int) -> None:
    refusal = OSError(code, os.strerror(code))
    limit = Limit(refusal)
    assert limit.value is not None
    for left_out in (1, 1000, 10**6):
        words = advice(refusal, left_out)
        wanted = int(words.split(f"sysctl fs.inotify.{limit.setting}=")[1].split(".")[0])
        assert limit.value + left_out < wanted <= 2 * (limit.value + 2 * left_out)
        assert f"is {limit.value}," in words


# Polling


def test_polling_tells_everything_from_time_to_time(tmp_path: Path) -> None:
    with posted(tmp_path, "poll") as post:
        threads = set(threading.enumerate())
        post.watcher.start()
        assert (post.watcher.how, post.sights) == ("poll", [])
        for _ in range(60):
            post.check_after(10)
        assert post.sights == [Sight(EVERYTHING)] * 10
        assert set(threading.enumerate()) <= threads


def test_off_tells_nothing(tmp_path: Path) -> None:
    with posted(tmp_path, "off") as post:
        post.watcher.start()
        post.put(b"file")
        post.check_after(10_000)
        assert (post.watcher.how, post.sights, post.notices) == ("off", [], [])


HOW_ON_NETWORK = {"auto": "poll: a network file system (nfs4)", "native": "native"}


@pytest.mark.parametrize("mode", ["auto", "native"])
def test_auto_polls_a_network_file_system(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(b"36 35 0:46 / %s rw - nfs4 server:/ rw\n" % os.fsencode(tmp_path))
    monkeypatch.setattr("skynet.watchable.MOUNTS", mounts)
    with posted(tmp_path, mode) as post:
        post.watcher.start()
        assert post.watcher.how == HOW_ON_NETWORK[mode]


def away_and_mounted(post: Post) -> None:
    os.rename(post.root, post.root + b" old")
    os.mkdir(post.root)


def gone_and_mounted(post: Post) -> None:
    os.rename(post.root, post.root + b" old")
    post.check_after(3)
    post.forget()
    os.mkdir(post.root)


@pytest.mark.parametrize("mount", [away_and_mounted, gone_and_mounted])
def test_a_network_file_system_that_is_mounted_later_is_polled(
    mount: Callable[[Post], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(b"")
    monkeypatch.setattr("skynet.watchable.MOUNTS", mounts)
    with posted(tmp_path) as post:
        post.watcher.start()
        assert post.watcher.how == "native"
        mount(post)
        mounts.write_bytes(b"36 35 0:46 / %s rw - nfs4 server:/ rw\n" % os.fsencode(tmp_path))
        post.check_after(3)
        assert post.watcher.how == HOW_ON_NETWORK["auto"]
        assert EVERYTHING in post.marks
        post.forget()
        for _ in range(10):
            post.check_after(POLL_SECONDS)
        assert post.sights == [Sight(EVERYTHING)] * 10
