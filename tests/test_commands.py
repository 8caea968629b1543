"""Several mirrors in one call, the commands that a call suggests, and what the guides tell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skynet import commands, commands_cycle
from skynet.commands import Face, Options, Request
from skynet.config import describe_keys, load_mirrors
from skynet.errors import ExitCode, OwnedError
from tests.support.command import Result, serving, skynet

posix_only = pytest.mark.skipif(os.name != "posix", reason="ends a server with a signal")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with the sources `first one` and `second`, and a target."""
    for name in ("first one", "second", "target"):
        (tmp_path / name).mkdir()
    for name in ("first one", "second"):
        (tmp_path / name / "file.txt").write_bytes(b"content")
    return tmp_path


@pytest.fixture
def url(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a trusted server for the target, whose password is in the environment."""
    with serving(work / "target") as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        monkeypatch.setenv("SKYNET_PASSWORD", server["password"])
        yield server["url"]


def write_mirrors(file: Path, url: str, **sources: str) -> None:
    """A configuration in which every mirror NAME has the target URL/NAME."""
    tables = [
        f'[mirror.{name}]\nsource = "{source}"\ntarget = "{url}{name}"\n'
        for name, source in sources.items()
    ]
    file.write_text("[defaults]\ncomplete_sync = true\n" + "\n".join(tables))


@posix_only
def test_a_missing_source_stops_no_other_mirror(work: Path, url: str) -> None:
    write_mirrors(work / "skynet.toml", url, lost="gone", kept="second")
    result = skynet("sync", "--once", "--json", cwd=work)
    assert result.code == 2
    lost, kept = result.objects
    assert (lost["mirror"], lost["outcome"], lost["error"]["code"]) == ("lost", "failed", "source")
    assert (kept["mirror"], kept["outcome"]) == ("kept", "changed")
    assert "[mirror.lost] source =" in result.err
    assert (work / "target" / "kept" / "file.txt").read_bytes() == b"content"


def suggestions(held: Result) -> tuple[list[str], list[str]]:
    """The arguments of the commands that a held run suggests: to look, and to approve."""
    assert held.code == 4
    look, approve = re.findall(r"^(?:Look at|If it is right).*: +skynet (.*)$", held.out, re.M)
    return shlex.split(look), shlex.split(approve)


@posix_only
def test_the_suggested_commands_run_as_they_are(work: Path, url: str) -> None:
    write_mirrors(work / "two.toml", url, first="first one", other="second")
    call = ["sync", "--once", "-c", "two.toml", "--state-dir", "own state"]
    assert skynet(*call, cwd=work).code == 0
    (work / "first one" / "file.txt").unlink()
    look, approve = suggestions(skynet(*call, cwd=work))
    assert skynet(*look, cwd=work).code == 4
    assert skynet(*approve, cwd=work).code == 0
    assert not (work / "target" / "first" / "file.txt").exists()


@posix_only
def test_the_suggested_commands_name_both_ends_where_no_file_does(work: Path, url: str) -> None:
    call = ["sync", "--once", "--source", "first one", "--target", url, "--complete-sync"]
    assert skynet(*call, cwd=work).code == 0
    (work / "first one" / "file.txt").unlink()
    look, approve = suggestions(skynet(*call, cwd=work))
    assert skynet(*look, cwd=work).code == 4
    assert skynet(*approve, cwd=work).code == 0
    assert not (work / "target" / "file.txt").exists()


def test_suggested_commands_ask_for_the_same(work: Path) -> None:
    options = Options(
        *((), None, work / "second", "sftp://h/x", Path("my key"), Path("hosts"), False)
    )
    [mirror] = load_mirrors(options, {}, work)
    both = [
        *("--source", str(work / "second"), "--target", "sftp://h/x", "--identity", "my key"),
        *("--known-hosts", "hosts", "--no-complete-sync"),
    ]
    request = Request(audit=False, adopt="content")
    calls = commands_cycle.calls_of(mirror, options, request, None)
    assert shlex.split(calls.plan) == [*both, "--adopt", "content", "--no-audit"]
    assert calls.sync == calls.plan
    limited = replace(options, bwlimit="2M")
    assert commands_cycle.calls_of(mirror, limited, request, None).plan == calls.plan
    saved = commands_cycle.calls_of(mirror, limited, request, Path("my plan"))
    assert shlex.split(saved.sync) == [*both, "--bwlimit", "2M", "--plan", "my plan"]
    assert saved.plan == ""


@posix_only
def test_a_saved_plan_is_carried_out_once_by_the_suggested_command(work: Path, url: str) -> None:
    write_mirrors(work / "skynet.toml", url, one="first one", two="second")
    saved = skynet("plan", "--out", "my plan", "one", cwd=work)
    assert saved.code == 0
    assert "  + file.txt  7 B\n" in saved.out
    [words] = re.findall(r"^To carry it out, run: skynet (.*)$", saved.out, re.M)
    done = skynet(*shlex.split(words), cwd=work)
    assert (done.code, done.out[:22]) == (0, "As planned: 1 uploaded")
    again = skynet(*shlex.split(words), "--json", cwd=work)
    assert (again.code, again.json["outcome"]) == (4, "failed")
    assert again.json["error"]["code"] == "stale-plan"
    other = skynet("sync", "--once", "two", "--plan", "my plan", cwd=work)
    assert other.code == 4
    assert "it was made for" in other.err


@posix_only
def test_a_saved_plan_with_a_hazard_tells_its_approval(work: Path, url: str) -> None:
    call = ["--source", "second", "--target", url, "--complete-sync"]
    assert skynet("sync", "--once", *call, cwd=work).code == 0
    (work / "second" / "file.txt").unlink()
    held = skynet("plan", "--dry-run", "--out", "p", *call, cwd=work)
    assert (held.code, (work / "p").exists()) == (4, True)
    [words] = re.findall(r"^If it is right, run: skynet (.*)$", held.out, re.M)
    assert words.partition(" --approve ")[0].endswith(" --plan p")
    assert skynet(*shlex.split(words.partition(" --approve ")[0]), cwd=work).code == 4
    assert (work / "target" / "file.txt").exists()
    assert skynet(*shlex.split(words), cwd=work).code == 0
    assert not (work / "target" / "file.txt").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sync", "--once", "--plan", "p"], "of one mirror, and these are 2: name one"),
        (["plan", "--out", "p"], "of one mirror, and these are 2: name one"),
        (["sync", "--once", "--plan", "p", "two"], "The plan p cannot be read"),
        (["sync", "--once", "--plan", "skynet.toml", "two"], "is no plan that this skynet saved"),
        (["sync", "--once", "--plan", "p", "--no-audit", "two"], "leave out --audit and --adopt"),
        (["sync", "--once", "--plan", "p", "--adopt", "stat", "two"], "leave out --audit and"),
        (["sync", "--plan", "p", "two"], "skynet sync --once"),
        (["plan", "--out", "second/p", "two"], "is in the source, which skynet never writes to"),
        (["plan", "--out", "skynet.toml", "two"], "is no saved plan, so it is not overwritten"),
        (["plan", "--out", "gone/p", "two"], "The plan cannot be saved in gone/p"),
    ],
)
def test_what_cannot_be_a_saved_plan_is_refused_before_anything_is_done(
    work: Path, words: list[str], told: str
) -> None:
    write_mirrors(work / "skynet.toml", "sftp://127.0.0.1:1/", one="first one", two="second")
    result = skynet(*words, cwd=work)
    assert result.code == 2, result.text
    assert told in result.err
    assert sorted(path.name for path in work.iterdir()) == [
        *("first one", "second", "skynet.toml", "target")
    ]


@posix_only
def test_the_server_that_was_reached_is_told_when_verbose(work: Path, url: str) -> None:
    call = ["sync", "--once", "--source", "second", "--target", url]
    assert "connected to skynet@127.0.0.1:" in skynet(*call, "-v", cwd=work).err
    assert "connected to" not in skynet(*call, cwd=work).err


@posix_only
def test_the_host_key_of_serve_has_one_place(work: Path) -> None:
    with serving(work / "target", "--state-dir", work / "state"):
        found = [path.relative_to(work / "state") for path in (work / "state").rglob("*key*")]
    assert found == [Path("serve", "host_key")]


def test_the_settings_guide_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.guide("settings", Face()) == ExitCode.IN_SYNC
    told = capsys.readouterr().out
    for name, meaning, default in describe_keys():
        assert f"- `{name}` ({default})\n  {meaning}\n" in told


# A connection that is made early ------------------------------------------------------------------


class Made:
    """Stands for a remote; `close` is all that is asked of it."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_a_connection_is_made_at_once_and_later_ones_when_asked_for() -> None:
    made: list[Made] = []

    def connect() -> Made:
        made.append(Made())
        return made[-1]

    with commands.early(connect, Face(quiet=True)) as ask:  # type: ignore[arg-type]
        assert len(made) == 1
        assert [id(ask()) for _ in range(2)] == list(map(id, made))
    assert not any(each.is_closed for each in made)  # that is for whoever asked


def test_an_early_connection_that_nobody_asks_for_is_closed() -> None:
    made = Made()
    with pytest.raises(OwnedError), commands.early(lambda: made, Face(quiet=True)):  # type: ignore[arg-type,return-value]
        raise OwnedError("Another one is at work here.")
    assert made.is_closed


def test_only_what_connecting_needs_is_loaded_before_it() -> None:
    program = (
        "import sys; from skynet import commands, wiring; from skynet.sftp import connect\n"
        "late = {'msgspec', 'rich', 'sqlite3', 'skynet.remote', 'skynet.reconcile'}\n"
        "print(*sorted(late & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout.split() == []
