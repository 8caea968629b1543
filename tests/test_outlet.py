"""What is said may lead nowhere, or to a full disk: the work is done all the same, and told of."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from skynet.outlet import Outlet, is_left, loss, outlet
from tests.support.command import (
    DEADLINE,
    Site,
    command_line,
    environment,
    skynet,
    snapshot,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")


End = int | IO[bytes]


def run(
    *arguments: str | Path, stdout: End = subprocess.DEVNULL, stderr: End = subprocess.PIPE
) -> tuple[int, str]:
    """Run the command with these standard streams; its exit code, and what it said of errors."""
    done = subprocess.run(
        command_line(*arguments),
        env=environment(),
        check=False,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )
    return done.returncode, (done.stderr or b"").decode()


@contextmanager
def left_pipe() -> Iterator[int]:
    """A pipe that its reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def two_mirrors(site: Site, directory: Path) -> Path:
    """A file of two mirrors of the site's source."""
    login = f'identity = "{site.server.client_key}"\nknown_hosts = "{site.server.known_hosts}"\n'
    mirrors = "".join(
        f'[mirror.{name}]\nsource = "source"\ntarget = "{site.server.url(directory / name)}"\n'
        for name in ("first", "second")
    )
    (directory / "skynet.toml").write_text(f"[defaults]\n{login}{mirrors}")
    return directory / "skynet.toml"


@posix_only
def test_a_reader_that_leaves_keeps_no_mirror_from_being_synced(site: Site, tmp_path: Path) -> None:
    file = two_mirrors(site, tmp_path)
    with left_pipe() as pipe:
        code, _ = run("sync", "--once", "-v", "-c", file, stdout=pipe, stderr=pipe)
    assert code == 0
    assert snapshot(tmp_path / "first") == snapshot(site.source)
    assert snapshot(tmp_path / "second") == snapshot(site.source)


@posix_only
@needs_full
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_report_on_a_full_disk_is_missed_and_the_work_done(site: Site, form: list[str]) -> None:
    with FULL.open("wb") as full:
        code, error = run("sync", "--once", *site.options(), *form, stdout=full)
    assert code == 2
    assert error == (
        "skynet: the output cannot be written: No space left on device. It is not whole.\n"
    )
    assert snapshot(site.target) == snapshot(site.source)


@posix_only
@needs_full
def test_a_worse_code_is_not_hidden(site: Site) -> None:
    options = [*site.options(), "--target", "sftp://127.0.0.1:1/x"]
    with FULL.open("wb") as full:
        assert run("sync", "--once", "--json", *options, stdout=full)[0] == 3
        assert run("sync", "--once", *options, stderr=full)[0] == 3


@posix_only
@needs_full
def test_a_foreground_sync_goes_on_where_its_log_is_full(site: Site) -> None:
    with FULL.open("wb") as full:
        process = subprocess.Popen(
            command_line("sync", *site.options(), "-v"),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
        )
    with process:
        try:
            synced(process, site)
            (site.source / "late").write_bytes(b"late")
            synced(process, site)
        finally:
            process.kill()


def synced(process: subprocess.Popen[bytes], site: Site) -> None:
    end = time.monotonic() + DEADLINE
    while not site.target.exists() or snapshot(site.target) != snapshot(site.source):
        assert process.poll() is None, "it ended"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@posix_only
@pytest.mark.parametrize("command", ["plan --dry-run --json", "plan --dry-run", "trust", "guide"])
def test_closed_streams_are_nowhere(site: Site, command: str, tmp_path: Path) -> None:
    more: dict[str, list[str | Path]] = {
        "plan": site.options(),
        "trust": [site.server.url(), "--known-hosts", tmp_path / "nobody"],
    }
    words = [*command.split(), *more.get(command.split(maxsplit=1)[0], [])]
    line = ["sh", "-c", 'exec "$@" <&- >&- 2>"$0"', str(tmp_path / "said"), *command_line(*words)]
    code = subprocess.run(line, env=environment(), check=False, timeout=DEADLINE).returncode
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    if command == "trust":
        assert (code, "Nobody can be asked here" in said) == (3, True)
    else:
        assert (code, said) == (0, "")


@posix_only
def test_a_guide_that_nobody_reads_to_its_end_is_no_error() -> None:
    with left_pipe() as pipe:
        assert run("guide", "settings", stdout=pipe) == (0, "")
    assert skynet("guide", "settings").code == 0


class _Broken(io.RawIOBase):
    """A raw stream whose writes fail."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, _data: object, /) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "left", "lost"),
    [
        (BrokenPipeError(32, "Broken pipe"), True, ""),
        (OSError(28, "No space left on device"), False, "No space left on device"),
    ],
)
def test_much_that_cannot_be_written_is_dropped(error: OSError, left: bool, lost: str) -> None:
    stream = outlet(io.TextIOWrapper(io.BufferedWriter(_Broken(error)), "ascii"))
    assert isinstance(stream, Outlet)
    for _ in range(1000):
        assert stream.write("é" * 100) == 100
        stream.flush()
    assert (is_left(stream), loss(stream)) == (left, lost)


def test_streams_that_are_none_of_the_system_stay_as_they_are() -> None:
    text = io.StringIO()
    assert outlet(text) is text
    assert (is_left(text), loss(text)) == (False, "")
    with outlet(None) as nowhere:
        nowhere.write("é")
    assert sys.stdout is not nowhere
