"""The whole round with the real command and a real sshd on loopback: bytes, modes, times, JSON."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import (
    Result,
    Site,
    command_line,
    environment,
    finish,
    make_site,
    running,
    skynet,
    snapshot,
    wait_until,
)
from tests.support.sshd import Sshd, running_sshd

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")

COUNTS = {
    *("upload", "patch", "copy", "rename", "delete", "mkdir", "rmdir", "setmeta"),
    "bytes",
}
CONTRACT: dict[str, type | tuple[type, ...]] = {
    "mirror": str,
    "outcome": str,
    "plan": dict,
    "done": dict,
    "sent_bytes": int,
    "requests": int,
    "mutations": int,
    "problems": list,
    "hazards": list,
    "seconds": (int, float),
}
OP_CONTRACT: dict[str, type | tuple[type, ...]] = {
    "op": str,
    "path": str,
    "from": (str, type(None)),
    "bytes": int,
    "saved": int,
}
BIG = 128 << 20  # bytes
SLOWLY = ["--bwlimit", "4M"]  # so that it is half a minute under way, to be caught at it


def assert_contract(value: dict[str, Any], contract: dict[str, Any]) -> None:
    assert value.keys() == contract.keys()
    for key, kind in contract.items():
        assert isinstance(value[key], kind), key


def assert_synced(site: Site, result: Result) -> None:
    assert result.code == 0, result
    assert snapshot(site.target) == snapshot(site.source)


def copy_library(target: Path, *, everything: bool) -> None:
    """Real files, with the links and modes that a disk may also have."""
    library = Path(sysconfig.get_path("stdlib"))
    left_out = () if everything else ("test", "site-packages", "dist-packages", "__pycache__")
    shutil.copytree(library, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    (target / "empty").write_bytes(b"")
    (target / "link").symlink_to("os.py")
    (target / "dangling").symlink_to("nowhere/at all")
    (target / "json" / "decoder.py").chmod(0o640)
    (target / "json" / "tool.py").chmod(0o755)
    (target / "email").chmod(0o750)
    os.utime(target / "os.py", ns=(10**18, 10**18 + 987_654_321))


def assert_round(site: Site, tmp_path: Path) -> None:
    """First run, second run, no audit, and a run without the state directory."""
    state = tmp_path / "state"
    first = site.sync("--json", "--state-dir", state)
    assert_synced(site, first)
    files = sum(path.is_symlink() or path.is_file() for path in site.source.rglob("*"))
    assert first.json["done"]["upload"] == files
    if sys.platform == "linux":
        command = ["diff", "-r", "--no-dereference", "--exclude=.skynet"]
        differences = subprocess.run(
            [*command, site.source, site.target], capture_output=True, check=False
        )
        assert (differences.returncode, differences.stdout) == (0, b"")

    second = site.sync("--json", "--state-dir", state).json
    assert (second["outcome"], second["mutations"], second["sent_bytes"]) == ("in-sync", 0, 0)

    trusting = site.sync("--json", "--no-audit", "--state-dir", state).json
    assert (trusting["outcome"], trusting["mutations"]) == ("in-sync", 0)
    assert trusting["requests"] < second["requests"]

    shutil.rmtree(state)
    forgetful = site.sync("--json", "--state-dir", state).json
    assert (forgetful["outcome"], forgetful["sent_bytes"]) == ("in-sync", 0)
    assert_synced(site, site.plan())


def test_a_thousand_files_of_the_standard_library(sshd: Sshd, tmp_path: Path) -> None:
    site = Site(sshd, tmp_path / "library", tmp_path / "deep" / "target")
    copy_library(site.source, everything=False)
    assert len(list(site.source.rglob("*"))) > 500
    assert_round(site, tmp_path)


@pytest.mark.e2e_long
@pytest.mark.timeout(600)
def test_the_whole_standard_library_with_its_packages(sshd: Sshd, tmp_path: Path) -> None:
    site = Site(sshd, tmp_path / "library", tmp_path / "target")
    copy_library(site.source, everything=True)
    assert_round(site, tmp_path)


# What the command prints.


def test_the_json_of_a_plan_keeps_its_contract(site: Site, tmp_path: Path) -> None:
    (site.source / "link").symlink_to("one.txt")
    result = site.plan("--json", "--state-dir", tmp_path / "state")
    value = result.json
    assert_contract(value, {**CONTRACT, "ops": list, "saved": dict, "round_trips": int})
    assert value["mirror"] == "source"
    assert value["outcome"] == "planned"
    assert value["plan"].keys() == value["done"].keys() == COUNTS
    assert (value["plan"]["upload"], value["plan"]["bytes"]) == (3, 10)
    assert set(value["done"].values()) == {0}
    assert (value["sent_bytes"], value["mutations"]) == (0, 0)
    for op in value["ops"]:
        assert_contract(op, OP_CONTRACT)
    uploads = {op["path"]: op["bytes"] for op in value["ops"] if op["op"] == "upload"}
    assert uploads == {"one.txt": 3, "sub/two.txt": 7, "link": 0}
    assert not site.target.exists()
    assert not (tmp_path / "state").exists()
    assert result.err == ""


def test_the_json_of_a_sync_keeps_its_contract(site: Site) -> None:
    value = site.sync("--json").json
    assert_contract(value, CONTRACT)
    assert value["outcome"] == "changed"
    assert value["done"] == value["plan"]
    assert value["done"]["upload"] == 2
    assert value["sent_bytes"] == value["done"]["bytes"] == 10
    assert value["requests"] > value["mutations"] > 0


def test_the_json_of_a_rename_says_where_from(site: Site) -> None:
    (site.source / "one.txt").write_bytes(b"one" * 100_000)
    site.sync()
    (site.source / "one.txt").rename(site.source / "sub" / "uno.txt")
    (op,) = [op for op in site.plan("--json").json["ops"] if op["op"] == "rename"]
    assert op == {
        "op": "rename",
        "path": "sub/uno.txt",
        "from": "one.txt",
        "bytes": 0,
        "saved": 300_000,
    }
    done = site.sync("--json").json
    assert (done["done"]["rename"], done["sent_bytes"]) == (1, 0)
    assert snapshot(site.target) == snapshot(site.source)


def test_the_json_of_a_failure_names_it(site: Site) -> None:
    result = site.sync("--json", "--target", "sftp://127.0.0.1:1/x")
    assert result.code == 3
    assert_contract(result.json, {**CONTRACT, "error": dict})
    assert result.json["outcome"] == "failed"
    assert result.json["error"]["code"] == "refused"
    assert "127.0.0.1 port 1" in result.json["error"]["message"]


def test_the_json_of_problems_and_hazards(site: Site) -> None:
    site.sync()
    for path in (site.source / "one.txt", site.source / "sub" / "two.txt"):
        path.unlink()
    held = site.sync("--json", "--complete-sync")
    assert held.code == 4
    assert held.json["outcome"] == "held"
    assert {frozenset(hazard) for hazard in held.json["hazards"]} == {
        frozenset({"code", "message", "approve"})
    }
    approve = held.json["hazards"][0]["approve"]
    approved = site.sync("--json", "--complete-sync", "--approve", approve)
    assert (approved.code, approved.json["outcome"]) == (0, "changed")
    assert not (site.target / "one.txt").exists()


def test_a_held_plan_is_shown_with_the_way_to_approve_it(site: Site) -> None:
    site.sync()
    (site.source / "one.txt").unlink()
    (site.source / "sub" / "two.txt").unlink()
    held = site.sync("--complete-sync")
    assert held.code == 4
    assert "- one.txt" in held.out
    assert "Held:" in held.out
    approve = re.search(r"--approve ([0-9a-f]{12})", held.out)
    assert approve is not None
    quiet = site.sync("--complete-sync", "-q")
    assert (quiet.code, quiet.out) == (4, "")
    assert approve[0] in quiet.err
    assert site.sync("--complete-sync", "--approve", approve[1]).code == 0


def test_quiet_says_nothing_and_verbose_shows_every_operation(site: Site) -> None:
    plan = site.plan("-v")
    assert "+ one.txt" in plan.out
    assert "dry run" in plan.out
    verbose = site.sync("-v")
    assert "+ sub/two.txt" in verbose.out
    assert "connecting" in verbose.err
    (site.source / "three").write_bytes(b"3")
    quiet = site.sync("-q")
    assert (quiet.code, quiet.text) == (0, "")
    assert_synced(site, quiet)
    assert "In sync:" in site.sync().out


def test_strange_names_are_escaped_and_keep_json_valid(site: Site) -> None:
    names = [b"bad\xff", b"new\nline", b"esc\x1b[31m", b":warning: [red]x[bold]", b"back\\"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(site.source), name))).write_bytes(name)
    plain = site.plan("-v")
    for shown in (r"bad\xff", r"new\nline", r"esc\x1b[31m", ":warning: [red]x[bold]", "back\\ "):
        assert f"+ {shown}" in plain.out
    result = site.sync("--json", "-v")
    assert_synced(site, result)
    assert result.out.isascii()
    paths = {
        op["path"] for op in site.plan("--json", "--target", site.server.url("/new")).json["ops"]
    }
    assert {os.fsencode(path) for path in paths} >= set(names)


def test_what_is_deleted_here_is_told_to_be_kept_there(site: Site) -> None:
    site.sync()
    (site.source / "one.txt").unlink()
    assert "Plan: 1 gone here and kept there." in site.plan().out
    assert [op["op"] for op in site.plan("--json").json["ops"]] == ["retain"]
    assert "In sync: 1 gone here and kept there (" in site.sync().out
    assert (site.target / "one.txt").read_bytes() == b"one"


def test_piped_output_has_no_control_codes(site: Site) -> None:
    assert "\x1b" not in site.plan("-v", TERM="xterm-256color").text
    assert "\x1b" not in site.sync("-v", TERM="xterm-256color").text


def test_several_mirrors_give_one_object_each_and_the_worst_code(
    site: Site, tmp_path: Path
) -> None:
    login = f'identity = "{site.server.client_key}"\nknown_hosts = "{site.server.known_hosts}"\n'
    good, bad = site.server.url(site.target), "sftp://127.0.0.1:1/nowhere"
    mirrors = "".join(
        f'[mirror.{name}]\nsource = "source"\ntarget = "{target}"\n'
        for name, target in {"first": good, "broken": bad, "last": good + "2"}.items()
    )
    (tmp_path / "skynet.toml").write_text(f"[defaults]\n{login}{mirrors}")
    result = skynet("sync", "--once", "--json", cwd=tmp_path)
    assert result.code == 3
    outcomes = {value["mirror"]: value["outcome"] for value in result.objects}
    assert outcomes == {"first": "changed", "broken": "failed", "last": "changed"}
    one = skynet("sync", "--once", "--json", "last", cwd=tmp_path / "source")
    assert (one.code, one.json["mirror"], one.json["outcome"]) == (0, "last", "in-sync")


def test_a_terminal_shows_a_progress_bar(site: Site) -> None:
    import pty  # there is none on Windows

    with (site.source / "large").open("wb") as file:
        file.truncate(16 << 20)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command_line("sync", "--once", *site.options()),
        env=environment(TERM="xterm", COLUMNS="120", LINES="40"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = read_terminal(master)
    assert process.wait(60) == 0
    assert "Traceback" not in shown
    assert "\x1b[" in shown
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in shown
    assert re.search(r"source: \d+ of 4", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert "In sync:" in shown


def read_terminal(master: int) -> str:
    """All that is written until the other end is closed, which Linux tells by an error."""
    shown = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(65536):
                shown += part
        except OSError:
            return shown.decode()
    return shown.decode()


# Runs that break off.


def is_in_transfer(site: Site) -> Callable[[], bool]:
    """Whether a good part of a large file has arrived; small ones come and go meanwhile."""
    temps = site.target / ".skynet" / "tmp"

    def has_large_temp() -> bool:
        try:
            return any(path.stat().st_size > 1 << 20 for path in temps.iterdir())
        except FileNotFoundError:
            return False

    return has_large_temp


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_run_that_is_ended_in_the_middle_is_made_good_by_the_next(
    site: Site, number: signal.Signals
) -> None:
    with (site.source / "large").open("wb") as file:
        file.truncate(BIG)
    with running("sync", "--once", "--json", *SLOWLY, *site.options()) as process:
        wait_until(is_in_transfer(site), process)
        process.send_signal(number)
        ended = finish(process)
    assert not (site.target / "large").exists()
    if number == signal.SIGINT:
        assert ended.code == 130
        assert "interrupted" in ended.err
        assert "Traceback" not in ended.err
        assert ended.json["plan"]["upload"] == 3
        assert ended.json["requests"] > ended.json["mutations"] > 0
    assert_synced(site, site.sync())
    assert list((site.target / ".skynet" / "tmp").iterdir()) == []
    assert not (site.target / ".skynet" / "lease").exists()
    assert site.sync("--json").json["mutations"] == 0


def test_a_link_that_breaks_is_made_good_by_the_next_run(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        site = make_site(server, tmp_path)
        with (site.source / "large").open("wb") as file:
            file.truncate(BIG)
        with running("sync", "--once", "--json", *SLOWLY, *site.options()) as process:
            wait_until(is_in_transfer(site), process)
            server.kill_sessions()
            broken = finish(process)
        assert broken.code == 3
        assert broken.json["error"]["code"] == "link-lost"
        assert broken.json["requests"] > broken.json["mutations"] > 0
        assert "skynet: source: " in broken.err
        assert_synced(site, site.sync())
        assert list((site.target / ".skynet" / "tmp").iterdir()) == []
