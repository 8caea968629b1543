"""What a run finds under its feet: few open files, own directories gone, links in the way."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from skynet.sftp.replies import PERMISSION_DENIED
from tests.support.faults import FaultConnection, no_fault
from tests.support.pipes import client_over
from tests.support.sources import Ends, Sending
from tests.support.world import Link, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class CountedSource:
    """A source of a few bytes that knows how many like it are open."""

    open_now = 0
    most_open = 0
    size = 3
    identity = b"identity"

    def __init__(self) -> None:
        cls = type(self)
        cls.open_now += 1
        cls.most_open = max(cls.most_open, cls.open_now)
        self._data = b"abc"

    def read(self, limit: int) -> bytes:
        data, self._data = self._data, b""
        return data

    def verify(self) -> bytes:
        return b"identity"

    def close(self) -> None:
        type(self).open_now -= 1


def test_small_files_under_way_are_not_held_open(tmp_path: Path) -> None:
    from skynet.sftp.upload import Tracks, upload

    (tmp_path / "tmp").mkdir()
    ends = Ends()
    with client_over(FaultConnection(reorder=True), channels=1) as client:
        for number in range(300):
            sending = Sending(os.fsencode(tmp_path), b"%d" % number)
            conversation = upload(
                CountedSource,
                sending.placement(),
                client.capabilities,
                Tracks(lambda count: None),
            )
            client.submit(conversation, ends.of(number))
        assert {end.error for end in ends.wait(300)} == {None}
    assert CountedSource.open_now == 0
    assert CountedSource.most_open <= 2  # one for each of a channel's threads


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_more_files_than_a_process_may_open(world: World) -> None:
    world.put({f"{number}": b"content" for number in range(400)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        report = world.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert report.problems == []
    world.check()


def test_a_temporary_directory_that_is_gone_is_made_again(world: World) -> None:
    world.put({"a": b"1"})
    world.sync()
    for audit in (True, False):
        shutil.rmtree(world.remote / ".skynet/tmp")
        world.put({"a": b"changed %d" % audit, "b": b"%d" % audit})
        assert world.sync(audit=audit).problems == []
        world.check()


def test_without_an_audit_no_link_leads_out_of_the_target(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"theirs")
    world.put({"d": {"f": b"1"}, "g": b"2"})
    world.sync()
    shutil.rmtree(world.remote / "d")
    world.put_remote({"d": Link(os.fsencode(outside))})
    world.put({"d": {"f": b"changed"}})
    world.sync(audit=False)
    assert (outside / "f").read_bytes() == b"theirs"
    world.check()


def test_without_an_audit_no_attributes_are_set_through_a_link(
    world: World, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    outside.chmod(0o600)
    world.put({"f": b"1"})
    world.sync()
    (world.remote / "f").unlink()
    world.put_remote({"f": Link(os.fsencode(outside))})
    (world.local / "f").chmod(0o666)
    world.sync(audit=False)
    assert outside.stat().st_mode & 0o777 == 0o600
    world.check()


def test_a_stray_temporary_file_beside_its_target_is_removed(world: World) -> None:
    world.put({"d": {"f": b"1"}})
    world.sync()
    world.put_remote({"d": {".skynet-tmp-nonce-1": b"half of it"}})
    world.put({"d": {"g": b"2"}})
    world.sync()
    assert not list((world.remote / "d").glob(".skynet-tmp-*"))
    world.quiet()


def test_where_the_way_leads_elsewhere_it_is_audited_with_the_lease_that_was_taken(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    world.put({"d": {"f": b"1"}})
    world.sync()
    shutil.rmtree(world.remote / "d")
    world.put_remote({"d": Link(os.fsencode(tmp_path / "outside"))})
    world.put({"d": {"f": b"changed"}})
    world.sync(audit=False)
    opened = [request.text for request in world.asked if request.kind == "OPEN"]
    own = {name: sum(path.endswith(name) for path in opened) for name in (b"lease", b"manifest")}
    assert own == {b"lease": 1, b"manifest": 2}, "once before and once with the lease"
    assert "OPENDIR" in world.requests()
    assert not (world.remote / ".skynet/lease").exists()
    assert not list((tmp_path / "outside").iterdir())
    world.check()


def test_a_first_run_that_could_do_nothing_leaves_a_manifest(world: World) -> None:
    world.put({"d": {"f": b"1"}})
    world.fault = lambda _, asked: (
        PERMISSION_DENIED if asked.kind == "MKDIR" and asked.text.endswith(b"/d") else None
    )
    assert world.sync().outcome == "problems"
    assert (world.remote / ".skynet/manifest").exists()
    world.fault = no_fault
    assert world.sync(audit=False).outcome == "changed"
    assert "OPENDIR" not in world.requests(), "it is not the first contact any more"
    world.check()
