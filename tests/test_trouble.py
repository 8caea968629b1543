"""Trouble in the middle of a mirror: what can be done is done, and what cannot is told.

Unreadable and growing files, names that few expect, a manifest that was damaged on the remote.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Site, bound_by_modes, skynet, snapshot

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")


def test_an_unreadable_file_does_not_stop_the_others(site: Site) -> None:
    (site.source / "locked").write_bytes(b"nobody reads this")
    (site.source / "locked").chmod(0)
    arguments = ["sync", "--once", *site.options()]
    result = skynet(*arguments, before=bound_by_modes())
    assert result.code == 1
    assert "! locked  It cannot be read: Permission denied." in result.out
    assert "1 path is not in sync" in result.out
    as_json = skynet(*arguments, "--json", before=bound_by_modes()).json
    assert as_json["outcome"] == "problems"
    (problem,) = as_json["problems"]
    assert problem.keys() == {"path", "code", "message"}
    assert (problem["path"], problem["code"]) == ("locked", "unreadable")
    assert (site.target / "one.txt").read_bytes() == b"one"
    assert (site.target / "sub" / "two.txt").read_bytes() == b"two two"
    assert not (site.target / "locked").exists()
    (site.source / "locked").chmod(0o600)
    assert site.sync().code == 0
    assert snapshot(site.target) == snapshot(site.source)


def test_a_file_that_grows_while_it_is_sent_is_never_published_torn(site: Site) -> None:
    growing = site.source / "growing.log"
    growing.write_bytes(b"x" * (32 << 20))
    ended = threading.Event()
    thread = threading.Thread(target=_append_until, args=(ended, growing))
    thread.start()
    try:
        torn = site.sync("--json")
    finally:
        ended.set()
        thread.join(30)
    assert torn.code == 1
    (problem,) = torn.json["problems"]
    assert (problem["path"], problem["code"]) == ("growing.log", "changed-while-read")
    assert not (site.target / "growing.log").exists()
    assert (site.target / "one.txt").exists()
    assert site.sync().code == 0
    assert snapshot(site.target) == snapshot(site.source)


def _append_until(ended: threading.Event, path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        while not ended.wait(0.001):
            file.write(b"y")


NAMES = [b"new\nline", b"-rf", b"--help", b"\xff\xfe", b"n" * 255, b" ", b"~", b"*", b"$(x)", b'"']


def test_strange_names_make_the_round_trip(site: Site) -> None:
    for name in NAMES:
        directory = os.path.join(os.fsencode(site.source), b"in ", name)
        os.makedirs(directory)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(name)
    assert site.sync().code == 0
    assert snapshot(site.target) == snapshot(site.source)
    assert site.sync("--json").json["mutations"] == 0
    shutil.rmtree(os.path.join(os.fsencode(site.source), b"in "))
    assert site.sync("--complete-sync", "--json").json["outcome"] == "held"
    approve = site.sync("--complete-sync", "--json").json["hazards"][0]["approve"]
    assert site.sync("--complete-sync", "--approve", approve).code == 0
    assert snapshot(site.target) == snapshot(site.source)


def _truncate(manifest: Path) -> None:
    os.truncate(manifest, manifest.stat().st_size // 2)


def _flip_a_bit(manifest: Path) -> None:
    data = bytearray(manifest.read_bytes())
    data[len(data) // 2] ^= 1
    manifest.write_bytes(data)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit])
def test_a_damaged_manifest_is_made_anew_and_deletes_nothing(
    site: Site, damage: Callable[[Path], None]
) -> None:
    state = site.source.parent / "state"
    assert site.sync("--state-dir", state).code == 0
    before = snapshot(site.target)
    damage(site.target / ".skynet" / "manifest")
    shutil.rmtree(state)
    (site.source / "one.txt").unlink()

    plan = site.plan("--complete-sync", "--json", "--state-dir", state)
    assert (plan.json["plan"]["delete"], plan.json["sent_bytes"]) == (0, 0)
    result = site.sync("--complete-sync", "--state-dir", state)
    assert result.code == 0
    assert "source: The manifest on the remote is damaged: .skynet/manifest, byte" in result.err
    assert "nothing is deleted in this run" in result.err
    assert snapshot(site.target) == before
    again = site.sync("--json", "--state-dir", state)
    assert (again.code, again.json["mutations"], again.err) == (0, 0, "")
