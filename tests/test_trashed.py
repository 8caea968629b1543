"""Content that comes back from the trash: copied there, with notes that are bounded hints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import trashed as room
from skynet.config import MaxDelete
from skynet.errors import UsageError
from skynet.hints import Bounds
from skynet.index import LARGE
from skynet.monitor import Notice
from skynet.ops import Copy, Delete, Op, Rename, Upload
from skynet.outline import plan_lines
from skynet.planfile import read, write
from skynet.remote import Outcome
from skynet.rules import in_trash, was_at
from skynet.scan import digest_of
from skynet.trashed import Trashed, put_away
from skynet.tree import DIR, FILE, LINK, Entry
from tests.support.world import World

VIDEO = os.urandom(LARGE)
FILE_OF = Entry(FILE, LARGE, 5, 0o644, digest_of([VIDEO]))
STAMP = b"2026-01-01T000000Z-ab"


# What comes back.


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    made.put({"video": VIDEO, "small": b"x", "stays": b"y"})
    made.sync()
    made.put({"video": None, "small": None})
    made.sync()
    return made


def test_a_deleted_file_comes_back_from_the_trash(world: World) -> None:
    world.put({"d": {"again": VIDEO}, "more": VIDEO})
    report = world.sync()
    assert report.done["copy"] == 2
    assert report.counts["bytes"] == 0
    world.check()
    world.quiet()
    assert world.trashed()["video"] == VIDEO


def test_it_comes_back_also_where_the_index_was_built_anew(world: World) -> None:
    (index,) = world.state.rglob("index.sqlite")
    index.unlink()
    world.quiet()
    world.put({"again": VIDEO})
    assert world.sync().done["copy"] == 1


@pytest.mark.parametrize("what", ["gone", "touched", "other"])
def test_without_the_file_in_the_trash_it_is_sent(world: World, what: str) -> None:
    trash = world.remote / ".skynet/trash"
    (kept,) = (path for path in trash.rglob("video"))
    if what == "gone":
        shutil.rmtree(trash)
    elif what == "touched":
        os.utime(kept, (1, 1))
    else:
        kept.write_bytes(VIDEO + b"more")
    world.put({"again": VIDEO})
    report = world.sync()
    assert (report.done["copy"], report.done["upload"]) == (0, 1)
    assert report.counts["bytes"] == len(VIDEO)
    world.check()
    world.quiet()


def test_without_copies_on_the_server_nothing_is_looked_for(world: World) -> None:
    world.without = frozenset({b"copy-data"})
    world.put({"again": VIDEO})
    assert world.sync().counts["bytes"] == len(VIDEO)


def test_other_content_of_the_same_size_is_sent(world: World) -> None:
    world.put({"again": VIDEO[::-1]})
    assert world.sync().done["upload"] == 1
    world.check()


def test_what_is_elsewhere_is_copied_from_there(world: World) -> None:
    world.put({"again": VIDEO})
    world.sync()
    world.put({"more": VIDEO})
    (op,) = world.plan().plan.ops
    assert isinstance(op, Copy)
    assert op.source == b"again"


def test_what_is_not_ours_is_not_noted(world: World) -> None:
    content = os.urandom(LARGE + 1)
    world.put_remote({"theirs": content})
    world.approve()
    assert world.trashed()["theirs"] == content
    world.put({"again": content})
    assert world.sync().done["upload"] == 1


def test_a_replaced_version_comes_back_where_the_trash_keeps_those(tmp_path: Path) -> None:
    world = World(tmp_path, trash="all")
    world.put({"video": VIDEO})
    world.sync()
    world.put({"video": b"short"})
    world.sync()
    world.put({"video": VIDEO})
    report = world.sync()
    assert report.done["copy"] == 1
    world.check()


def test_what_was_expired_is_sent(world: World) -> None:
    world.let_days_pass(8)
    world.put({"stays": b"changed"})
    world.sync()
    assert world.trashed() == {}
    assert sum(1 for _ in notes(world)) == 0
    world.put({"again": VIDEO})
    assert [type(op) for op in world.plan().plan.ops] == [Upload]


def test_what_expires_comes_back_first(world: World) -> None:
    world.let_days_pass(8)
    world.put({"again": VIDEO})
    report = world.sync()
    assert report.done["copy"] == 1
    assert report.counts["bytes"] == 0
    assert world.trashed() == {}
    world.check()


def notes(world: World) -> list[bytes]:
    """What the database holds, by its keys."""
    (state,) = world.state.rglob("trashed")
    found: list[bytes] = []
    with Trashed.open(state, lambda _: None) as trashed:
        assert trashed._hints is not None
        trashed._hints.use(lambda cache: found.extend(cache.iterkeys()))
    return found


def test_where_nothing_is_deleted_nothing_is_noted(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"video": VIDEO})
    world.sync()
    world.quiet()
    assert not list(world.state.rglob("trashed"))


def test_a_file_deleted_in_the_same_plan_is_renamed(world: World) -> None:
    content = os.urandom(LARGE)
    world.put({"a": content})
    world.sync()
    world.put({"a": None, "b": content, "c": content})
    report = world.sync()
    assert (report.done["rename"], report.done["copy"]) == (1, 1)
    assert report.counts["bytes"] == 0
    world.check()


# Plans.


def test_the_plan_says_so(world: World) -> None:
    world.put({"again": VIDEO})
    assert any("again" in line and "from the trash" in line for line in lines(world))
    world.put({f"{number}": VIDEO for number in range(5)})
    assert any("6 from the trash" in line for line in lines(world))


def lines(world: World) -> list[str]:
    return list(plan_lines(world.plan(), everything=False))


def test_a_saved_plan_copies_from_the_trash(world: World, tmp_path: Path) -> None:
    world.put({"again": VIDEO})
    saved = world.plan(bind=True).saved
    assert saved is not None
    write(tmp_path / "plan", saved)
    report = world.sync(saved=read(tmp_path / "plan"))
    assert report.done["copy"] == 1
    assert report.counts["bytes"] == 0
    world.check()


@pytest.mark.parametrize(
    "source",
    [
        b".skynet/manifest",
        b".skynet/trash/s/../x",
        b".skynet/trash/s",
        b".skynet/trash/s/.skynet/x",
    ],
)
def test_a_saved_plan_copies_nothing_else_of_ours(
    world: World, tmp_path: Path, source: bytes
) -> None:
    world.put({"again": VIDEO})
    saved = world.plan(bind=True).saved
    assert saved is not None
    (op,) = saved.plan.ops
    saved.plan.ops[0] = msgspec.structs.replace(op, source=source)  # type: ignore[index]  # a list
    write(tmp_path / "plan", saved)
    with pytest.raises(UsageError):
        read(tmp_path / "plan")


# Notes.


def test_noted_is_what_went_to_the_trash_and_is_known() -> None:
    kept = [(in_trash(STAMP, b"d/a"), FILE_OF)]
    small = msgspec.structs.replace(FILE_OF, size=LARGE - 1)
    unknown = msgspec.structs.replace(FILE_OF, digest=b"")
    done: Op
    for done in (Delete(b"d/a", FILE_OF), Upload(b"d/a", FILE_OF, FILE_OF)):
        assert list(put_away([Outcome(done, b"", None, trashed=STAMP)])) == kept
        assert list(put_away([Outcome(done, b"", None)])) == []
    for op in (
        Delete(b"d/a", FILE_OF, foreign=True),
        Delete(b"d/a", small),
        Delete(b"d/a", unknown),
        Delete(b"d/a", Entry(LINK, link=b"x")),
        Upload(b"d/a", FILE_OF, FILE_OF, foreign=True),
        Rename(b"d/a", b"b", Entry(DIR)),
    ):
        assert list(put_away([Outcome(op, b"", None, trashed=STAMP)])) == []


@given(st.binary(min_size=1).filter(lambda path: not path.startswith(b"/")))
def test_a_path_in_the_trash_tells_where_it_was(path: bytes) -> None:
    assert was_at(in_trash(STAMP, path)) == path
    assert was_at(path) == b"" or path.startswith(b".skynet/trash/")


def kept(number: int, stamp: bytes = STAMP, size: int = LARGE) -> tuple[bytes, Entry]:
    path = in_trash(stamp, b"%d" % number)
    return path, Entry(FILE, size, number, 0o644, number.to_bytes(16, "big"))


def test_the_newest_of_a_size_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_OF_A_SIZE", 10)
    with Trashed.open(tmp_path / "t", lambda _: None) as trashed:
        for number in range(20):
            trashed.note([kept(number)])
        known = [trashed.holder(LARGE, kept(number)[1].digest) for number in range(20)]
    assert known == [None] * 10 + [kept(number) for number in range(10, 20)]


def test_a_size_takes_no_more_than_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_ITEM", 1000)
    with Trashed.open(tmp_path / "t", lambda _: None) as trashed:
        trashed.note([kept(number) for number in range(100)])
        assert trashed.holder(LARGE, kept(0)[1].digest) is not None
        assert trashed.holder(LARGE, kept(99)[1].digest) is None


def test_all_together_take_no_more_than_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = Bounds(item=1000, database=1 << 20, keep=100_000)
    monkeypatch.setattr(room, "_BOUNDS", bounds)
    with Trashed.open(tmp_path / "t", lambda _: None) as trashed:
        for number in range(50):
            news = [kept(n, size=LARGE + n) for n in range(number * 50, number * 50 + 50)]
            trashed.note(news)
        assert (tmp_path / "t/cache.db").stat().st_size < 2 * bounds.keep
        assert not trashed.holds_size(LARGE)


def test_what_expires_is_forgotten(tmp_path: Path) -> None:
    with Trashed.open(tmp_path / "t", lambda _: None) as trashed:
        trashed.note([kept(1, b"2026-01-01T"), kept(2, b"2026-01-09T")])
        trashed.note([kept(3, b"2026-01-01T", LARGE + 1)])
        trashed.expire(b"2026-01-05T")
        assert trashed.holder(LARGE, kept(1)[1].digest) is None
        assert trashed.holder(LARGE, kept(2)[1].digest) is not None
        assert not trashed.holds_size(LARGE + 1)


@pytest.mark.parametrize(
    "path", [b"video", b".skynet/manifest", b".skynet/trash/s/../../x", b".skynet/trash/s//x"]
)
def test_a_note_of_what_is_not_in_the_trash_is_damage(tmp_path: Path, path: bytes) -> None:
    told: list[object] = []
    with Trashed.open(tmp_path / "t", told.append) as trashed:
        trashed.note([kept(1), (path, kept(2)[1])])
        assert trashed.holder(LARGE, kept(1)[1].digest) is None
    (notice,) = told
    assert isinstance(notice, Notice)
    assert not (tmp_path / "t").exists()
