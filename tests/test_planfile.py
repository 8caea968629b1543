"""Saved plans: what is written is read again, and whatever else there is in a file is refused."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skynet import planfile
from skynet.errors import Problem, UsageError
from skynet.needs import needs_of
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
    step,
)
from skynet.planfile import escape, unescape
from skynet.saved import Basis, SavedPlan, Settings, Standing, bound_paths
from skynet.tree import DIR, FILE, LINK, Entry

BASIS = Basis(
    source=escape(b"/data/pictures"),
    target="sftp://me@host/srv",
    root="64769:1234",
    manifest=Standing("ab12", 7, "cd34", trusted=True),
    settings=Settings(
        complete_sync=True,
        empty_dirs=False,
        symlinks="keep",
        foreign="ask",
        trash="deleted",
        trash_days=7,
        ignore=("*.tmp",),
    ),
)
COMPARED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

letters = st.sampled_from(["a", "B", "é", "\\", "\\x41", "\n", '"', " ", "日", "[", "\u202e"])
pieces = st.lists(letters.map(str.encode) | st.binary(min_size=1, max_size=3), min_size=1)
names = pieces.map(b"".join).filter(
    lambda name: not {0, ord("/")}.intersection(name) and name.strip(b".") != b""
)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
sizes = st.integers(0, (1 << 63) - 1)
modes = st.none() | st.integers(0, 0o7777)
digests = st.just(b"") | st.binary(min_size=16, max_size=16)
times = st.integers(-(1 << 62), 1 << 62)
files = st.builds(Entry, st.just(FILE), sizes, times, modes, digests, retained=st.booleans())
dirs = st.builds(Entry, st.just(DIR), mode=modes)
links = st.builds(Entry, st.just(LINK), link=paths)
olds = st.none() | files
ops = st.one_of(
    st.builds(Mkdir, paths, dirs),
    st.builds(Upload, paths, files | links, st.none() | files | links, st.booleans()),
    st.builds(lambda p, e, o: Patch(p, e, o, e.size // 2), paths, files, files),
    st.builds(Copy, paths, paths, files, files, olds),
    st.builds(Rename, paths, paths, files | dirs | links, olds),
    st.builds(SetMeta, paths, files | dirs, st.booleans()),
    st.builds(Delete, paths, files | links, st.booleans()),
    st.builds(Rmdir, paths, st.booleans()),
    st.builds(Record, paths, st.none() | files | dirs | links),
)
heres = st.none() | st.tuples(times, times, sizes, st.integers(0, (1 << 64) - 1), sizes)
problems = st.builds(Problem, paths, st.text(max_size=5), st.text(max_size=5))


@st.composite
def saved_plans(draw: st.DrawFn) -> SavedPlan:
    chosen = draw(st.lists(ops, max_size=8, unique_by=step))
    here = {path: draw(heres) for op in chosen for path in bound_paths(op)}
    plan = Plan(chosen, needs_of(chosen), draw(st.lists(problems, max_size=2)))
    return SavedPlan(BASIS, draw(times), plan, here)


def example_plan(*chosen: Op) -> SavedPlan:
    wanted = chosen or (
        Rename(b"b", b"a", Entry(FILE, 3, 5)),
        Upload(b"caf\xe9 \\x", Entry(FILE, 1, 2, 0o644), Entry(FILE)),
        Delete(b"d/gone", Entry(FILE, 4)),
    )
    here = {path: (1, 2, 3, 4, 0o100644) for op in wanted for path in bound_paths(op)}
    return SavedPlan(BASIS, 1, Plan(wanted, needs_of(wanted), [Problem(b"x", "y", "z")]), here)


# What is written is read.


@given(st.binary() | paths)
@example(rb"\xff")
@example(b"\\\xff\\")
def test_bytes_are_turned_back(path: bytes) -> None:
    assert unescape(escape(path)) == path


@pytest.mark.parametrize("text", ["\\", "\\x", "\\x4", "\\xFF", "\\x41", "a\\n", "\\xe3\\x81\\x82"])
def test_text_that_no_bytes_are_written_as_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unescape(text)


def test_usual_names_are_written_as_they_are() -> None:
    assert escape("straße/日本.txt".encode()) == "straße/日本.txt"
    assert escape(b"caf\xe9\\") == r"caf\xe9\\"


@COMPARED
@given(saved_plans())
def test_a_plan_is_read_as_it_was_saved(tmp_path: Path, saved: SavedPlan) -> None:
    file = tmp_path / "plan"
    planfile.write(file, saved)
    assert planfile.read(file) == SavedPlan(
        saved.basis,
        saved.made_ns,
        Plan(list(saved.plan.ops), list(saved.plan.needs), list(saved.plan.problems)),
        saved.here,
    )
    content = file.read_bytes()
    planfile.write(file, planfile.read(file))
    assert file.read_bytes() == content


def test_the_file_is_one_readable_line_for_each_operation(tmp_path: Path) -> None:
    file = tmp_path / "plan"
    planfile.write(file, example_plan())
    head, rename, upload, delete, problem, end = map(json.loads, file.read_text().splitlines())
    assert (head["format"], head["version"]) == ("skynet plan", 1)
    assert head["basis"]["manifest"]["generation"] == 7
    assert (rename["op"], rename["path"], rename["source"]) == ("rename", "b", "a")
    assert (upload["path"], upload["here"]) == (r"caf\xe9 \\x", [[1, 2, 3, 4, 0o100644]])
    assert delete["entry"] == {"kind": "f", "size": 4}
    assert problem == {"problem": "x", "code": "y", "message": "z"}
    assert end["end"] == 5
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_plan_replaces_another_and_nothing_else(tmp_path: Path) -> None:
    file, other = tmp_path / "plan", tmp_path / "photo"
    planfile.write(file, example_plan())
    planfile.write(file, example_plan(Rmdir(b"d")))
    assert planfile.read(file).plan.ops == [Rmdir(b"d")]
    for content in (b"", b"a photo", b'{"format": "another"}\n'):
        other.write_bytes(content)
        with pytest.raises(UsageError, match="is no saved plan, so it is not overwritten"):
            planfile.write(other, example_plan())
        assert other.read_bytes() == content
    with pytest.raises(UsageError, match="is no file"):
        planfile.write(tmp_path, example_plan())
    with pytest.raises(UsageError, match="cannot be saved"):
        planfile.write(tmp_path / "gone" / "plan", example_plan())
    assert sorted(os.listdir(tmp_path)) == ["photo", "plan"]


def test_what_would_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planfile, "MAX_LINES", 4)
    with pytest.raises(UsageError, match="too large to be saved"):
        planfile.write(tmp_path / "plan", example_plan())
    assert os.listdir(tmp_path) == []


# What is refused.


def refused(file: Path) -> str:
    with pytest.raises(UsageError) as caught:
        planfile.read(file)
    assert caught.value.code == "plan-file"
    return str(caught.value)


def forge(file: Path, change: Callable[[list[Any]], None], saved: SavedPlan | None = None) -> Path:
    """A plan file whose lines were changed by one who knows the checksum."""
    planfile.write(file, saved or example_plan())
    lines = [json.loads(line) for line in file.read_text().splitlines()[:-1]]
    change(lines)
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    check = hashlib.blake2b(content, digest_size=16).hexdigest()
    end = json.dumps({"end": len(lines), "check": check}).encode() + b"\n"
    file.write_bytes(content + end)
    return file


def test_a_forged_plan_is_read_where_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    file = forge(tmp_path / "plan", lambda lines: lines[2]["entry"].update(size=11))
    upload = planfile.read(file).plan.ops[1]
    assert isinstance(upload, Upload)
    assert upload.entry.size == 11


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc", "../up", "a/../../up", "a//b", "a/", ".", "a/.", "nul\0", "x" * 70_000),
        *(".skynet", ".skynet/manifest", ".SKYNET/tmp/x", "a/.skynet-tmp-1", "\\", "\\x41"),
    ],
)
@pytest.mark.parametrize("key", ["path", "source"])
def test_paths_out_of_the_mirror_are_refused(tmp_path: Path, path: str, key: str) -> None:
    file = forge(tmp_path / "plan", lambda lines: lines[1].update({key: path}))
    assert "is no plan that this skynet saved, or it is damaged" in refused(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[0].update(format="another"),
        lambda lines: lines[0].update(version=2),
        lambda lines: lines[0].update(more=1),
        lambda lines: lines[0]["basis"].pop("root"),
        lambda lines: lines[0]["basis"]["manifest"].update(generation="7"),
        lambda lines: lines.pop(0),
        lambda lines: lines[1].update(op="format-disk"),
        lambda lines: lines[1].update(op=["rename"]),
        lambda lines: lines[1].pop("op"),
        lambda lines: lines[1].pop("entry"),
        lambda lines: lines[1].update(entry=None),
        lambda lines: lines[1].update(entry="f"),
        lambda lines: lines[1].update(more=1),
        lambda lines: lines[1].update(here=[None]),
        lambda lines: lines[1].update(here=[[1], [2]]),
        lambda lines: lines[1].pop("here"),
        lambda lines: lines[1]["entry"].update(kind="x"),
        lambda lines: lines[1]["entry"].update(size=-1),
        lambda lines: lines[1]["entry"].update(size=1 << 63),
        lambda lines: lines[1]["entry"].update(size="3"),
        lambda lines: lines[1]["entry"].update(mode=1 << 20),
        lambda lines: lines[1]["entry"].update(digest="zz"),
        lambda lines: lines[1]["entry"].update(digest="00"),
        lambda lines: lines[2]["replaces"].update(size=-1),
        lambda lines: lines[2]["entry"].update(kind="d"),
        lambda lines: lines[3]["entry"].update(kind="d"),
        lambda lines: lines[3].update(foreign="yes"),
        lambda lines: lines.append(lines[3]),
        lambda lines: lines.append({**lines[3], "op": "rmdir", "here": [None]}),
        lambda lines: lines.append([1]),
        lambda lines: lines.append({}),
        lambda lines: lines[4].pop("code"),
        lambda lines: lines[4].update(problem=1),
        lambda lines: lines.insert(3, {"end": 1, "check": ""}),
    ],
)
def test_what_no_skynet_writes_is_refused(
    tmp_path: Path, change: Callable[[list[Any]], None]
) -> None:
    refused(forge(tmp_path / "plan", change))


def _send(sends: int, lines: list[Any]) -> None:
    lines[1]["sends"] = sends


def test_a_patch_cannot_send_more_than_there_is(tmp_path: Path) -> None:
    patch = example_plan(Patch(b"p", Entry(FILE, 10), Entry(FILE, 10), sends=10))
    file = tmp_path / "plan"
    planfile.write(file, patch)
    assert planfile.read(file).plan.ops == list(patch.plan.ops)
    for sends in (11, -1):
        refused(forge(file, partial(_send, sends), patch))


def test_a_newer_plan_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    file = forge(tmp_path / "plan", lambda lines: lines[0].update(version=2, new_key=1))
    assert "a newer skynet saved it" in refused(file)


@COMPARED
@given(st.data())
def test_every_damage_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "plan"
    planfile.write(file, example_plan())
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                whole[:place],
                whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
                whole[:place] + whole[place + 1 :],
                whole + whole[place:],
            ]
        )
    )
    try:
        file.write_bytes(damaged)
        refused(file)
    finally:
        file.unlink()


@COMPARED
@given(st.binary(max_size=200))
@example(b'{"format":"skynet plan","version":1}\n')
@example(b"[" * 100_000 + b"\n")
@example(b'{"format":"skynet plan","version":1e400}\n')
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan").write_bytes(content)
    refused(tmp_path / "plan")


def test_what_is_no_file_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No such file" in refused(tmp_path / "gone")
    assert "it is no file" in refused(tmp_path)
    file = tmp_path / "plan"
    planfile.write(file, example_plan())
    for bound, value in (("MAX_FILE", 100), ("MAX_LINE", 50), ("MAX_LINES", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(planfile, bound, value)
            refused(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in refused(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no file"):
        planfile.write(tmp_path / "pipe", example_plan())
