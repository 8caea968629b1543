"""Bad input gets an exit code and a sentence: what is wrong, why, and what to do. Nothing is lost.

Each case prepares one trouble and names what must be said of it; then one run of the command must
say it, to people and in JSON, and leave source and target as they were.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import skynet.manifest_frames as frames
from skynet.state import directory_for, locked
from tests.support.command import (
    Result,
    Site,
    bound_by_modes,
    serving,
    skynet,
    snapshot,
)
from tests.support.sshd import free_port, make_key, running_sshd

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")

PASSWORD = "not the right one"


@dataclass(frozen=True)
class Attempt:
    """A run that must fail: what is added to the site's options (the last of two wins)."""

    site: Site
    more: tuple[str | Path, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()


Prepare = Callable[[Site, ExitStack], Attempt]


@dataclass(frozen=True)
class Case:
    prepare: Prepare
    code: int
    error: str
    words: tuple[str, ...]


CASES: list[Case] = []


def expects(code: int, error: str, *words: str) -> Callable[[Prepare], Prepare]:
    """Register a case: its exit code, the code in the JSON, and what the message must hold."""

    def register(prepare: Prepare) -> Prepare:
        CASES.append(Case(prepare, code, error, words))
        return prepare

    return register


# The source.


@expects(2, "source", "gone", "there is no such directory", "Create or mount it")
def source_missing(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--source", site.source / "gone"))


@expects(2, "source", "one.txt", "it is not a directory", "Name the directory")
def source_is_a_file(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--source", site.source / "one.txt"))


@expects(2, "source", "locked", "it cannot be read: Permission denied", "Check the permissions")
def source_unreadable(site: Site, stack: ExitStack) -> Attempt:
    locked_up = site.source.parent / "locked"
    locked_up.mkdir(mode=0)
    stack.callback(locked_up.chmod, 0o700)
    return Attempt(site, ("--source", locked_up), before=bound_by_modes())


@expects(2, "source", "one holds the other", "Choose two directories apart")
def source_inside_its_target(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--target", site.server.url(site.source.parent)))


# The target.


@expects(2, "target-is-file", "target", "is a file on the server", "Choose another path")
def target_is_a_file(site: Site, stack: ExitStack) -> Attempt:
    site.target.write_bytes(b"precious")
    return Attempt(site)


@expects(2, "target-not-writable", "target", "cannot be made or written to", "write permission")
def target_not_writable(site: Site, stack: ExitStack) -> Attempt:
    site.target.mkdir()
    return Attempt(_on_a_read_only_server(site, stack))


@expects(2, "target-not-writable", "target", "cannot be made or written to", "write permission")
def target_not_creatable(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(_on_a_read_only_server(site, stack))


@expects(2, "target-not-writable", "target/below", "cannot be made or written to", "another")
def target_below_a_file(site: Site, stack: ExitStack) -> Attempt:
    site.target.write_bytes(b"precious")
    return Attempt(site, ("--target", site.server.url(site.target / "below")))


def _on_a_read_only_server(site: Site, stack: ExitStack) -> Site:
    place = site.source.parent / "read-only-sshd"
    server = stack.enter_context(running_sshd(place, subsystem="internal-sftp -R"))
    return Site(server, site.source, site.target)


@expects(2, "config", "--target", "ftp://host/x", "it does not begin with sftp://", "looks like")
def target_url_unusable(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--target", "ftp://host/x"))


@expects(1, "disk-full", "disk is full", "Make room")
def remote_disk_full(site: Site, stack: ExitStack) -> Attempt:
    site.target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(site.target)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here; that needs root")
    stack.callback(lambda: subprocess.run(["umount", site.target], check=True))
    assert site.sync().code == 0
    (site.source / "large").write_bytes(os.urandom(2 << 20))
    return Attempt(site)


# Logging in.


@expects(3, "auth", "skynet@127.0.0.1", "SKYNET_PASSWORD", "password")
def wrong_password(site: Site, stack: ExitStack) -> Attempt:
    site.target.mkdir()
    server = stack.enter_context(serving(site.target))
    known_hosts = site.source.parent / "known_hosts"
    known_hosts.write_text(server["known_hosts"] + "\n")
    more = ("-c", _toml(site, target=server["url"], known_hosts=str(known_hosts)))
    return Attempt(site, more, {"SKYNET_PASSWORD": PASSWORD})


@expects(3, "auth", "127.0.0.1", "other_key", "publickey")
def key_refused(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--identity", make_key(site.source.parent / "other_key")))


@expects(
    3, "unknown-host-key", "is not known yet", "SHA256:", "skynet trust sftp://", "--known-hosts"
)
def host_key_unknown(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--known-hosts", site.source.parent / "nobody_known"))


@expects(3, "changed-host-key", "is not the one it had", "line 1", "ssh-keygen -R", "skynet trust")
def host_key_changed(site: Site, stack: ExitStack) -> Attempt:
    key = make_key(site.source.parent / "former_key").with_suffix(".pub").read_text()
    known_hosts = site.source.parent / "changed"
    known_hosts.write_text(f"{site.server.name} {key}")
    return Attempt(site, ("--known-hosts", known_hosts))


# The server.


@expects(3, "refused", "127.0.0.1 port", "refused the connection", "Check the port")
def connection_refused(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--target", f"sftp://127.0.0.1:{free_port()}/x"))


@expects(3, "name-not-found", "nowhere.invalid", "was not found", "Check its spelling")
def name_not_found(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("--target", "sftp://nowhere.invalid/x"))


@expects(3, "not-ssh", "127.0.0.1 port", "is not an SSH server", "HTTP/1.1 400", "Check the port")
def server_speaks_http(site: Site, stack: ExitStack) -> Attempt:
    port = stack.enter_context(_plain_server(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    return Attempt(site, ("--target", f"sftp://127.0.0.1:{port}/x"))


@expects(3, "timeout", "127.0.0.1", "within 0.5 s", "raise connect_timeout")
def server_is_silent(site: Site, stack: ExitStack) -> Attempt:
    port = stack.enter_context(_plain_server(b""))
    target = f"sftp://127.0.0.1:{port}/x"
    return Attempt(site, ("-c", _toml(site, target=target, connect_timeout=0.5)))


@expects(3, "no-sftp", "refused the sftp subsystem", "Subsystem sftp internal-sftp")
def server_without_sftp(site: Site, stack: ExitStack) -> Attempt:
    server = stack.enter_context(running_sshd(site.source.parent / "no-sftp", subsystem=None))
    return Attempt(Site(server, site.source, site.target))


@contextmanager
def _plain_server(greeting: bytes) -> Iterator[int]:
    """A TCP server that sends the greeting and then waits for the client to go; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet, args=(listener, greeting))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


def _greet(listener: socket.socket, greeting: bytes) -> None:
    client, _ = listener.accept()
    with client:
        client.sendall(greeting)
        if greeting:
            client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass


# Another skynet, and the manifest.


@expects(5, "locked", f"process {os.getpid()}", "works on this mirror", "Wait for it to end")
def another_skynet_here(site: Site, stack: ExitStack) -> Attempt:
    base = site.source.parent / "state"
    state = directory_for(base, os.fsencode(site.source), site.server.url(site.target))
    state.mkdir(parents=True)
    stack.enter_context(locked(state))
    return Attempt(site, ("--state-dir", base))


@expects(5, "leased", "process 4711 on elsewhere", "in use", "Wait for it to end, or stop it")
def another_skynet_elsewhere(site: Site, stack: ExitStack) -> Attempt:
    assert site.sync().code == 0
    (site.source / "three").write_bytes(b"3")
    ended = threading.Event()
    thread = threading.Thread(target=_keep_beating, args=(site.target, ended))
    _write_lease(site.target, 0)
    thread.start()
    stack.callback(thread.join, 30)
    stack.callback(ended.set)
    return Attempt(site)


def _keep_beating(target: Path, ended: threading.Event) -> None:
    beat = 1
    while not ended.wait(0.2):
        _write_lease(target, beat)
        beat += 1


def _write_lease(target: Path, beat: int) -> None:
    draft = target / ".skynet" / "lease-of-the-test"
    draft.write_text(f"aabbccddeeff elsewhere 4711 {beat:010d}\n")
    draft.replace(target / ".skynet" / "lease")


@expects(4, "other-mirror", "is the mirror of another source", "Is the target right?", "Approve")
def manifest_of_another_mirror(site: Site, stack: ExitStack) -> Attempt:
    assert site.sync().code == 0
    other = site.source.parent / "other"
    other.mkdir()
    (other / "one.txt").write_bytes(b"another one")
    return Attempt(site, ("--source", other))


@expects(2, "newer-version", "A newer skynet wrote .skynet/manifest", "Update skynet here")
def manifest_of_a_newer_version(site: Site, stack: ExitStack) -> Attempt:
    assert site.sync().code == 0
    manifest = site.target / ".skynet" / "manifest"
    data = manifest.read_bytes()
    checkpoint = frames.read_preamble(data[: frames.PREAMBLE_SIZE], b"manifest", frames.CHECKPOINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "VERSION", frames.VERSION + 1)
        newer = frames.preamble(frames.CHECKPOINT, checkpoint)
    manifest.write_bytes(newer + data[frames.PREAMBLE_SIZE :])
    (site.source / "three").write_bytes(b"3")
    return Attempt(site, ("--state-dir", site.source.parent / "fresh"))


# The configuration file.


def _toml(site: Site, **more: object) -> Path:
    """Write a skynet.toml for the site; a value of None leaves its key out."""
    values: dict[str, object] = {
        "source": str(site.source),
        "target": site.server.url(site.target),
        "identity": str(site.server.client_key),
        "known_hosts": str(site.server.known_hosts),
        **more,
    }
    lines = [f"{key} = {_literal(value)}" for key, value in values.items() if value is not None]
    file = site.source.parent / "skynet.toml"
    file.write_text("\n".join(["[mirror.site]", *lines, ""]))
    return file


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


@expects(2, "config", "skynet.toml", "[mirror.site]", '"complete_snyc"', '"complete_sync"?')
def unknown_key(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("-c", _toml(site, complete_snyc=True)))


@expects(2, "config", "skynet.toml", "[mirror.site]", 'trash_days = "soon"', "a whole number")
def wrong_type(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("-c", _toml(site, trash_days="soon")))


@expects(2, "config", "skynet.toml", "[mirror.site]", "has no source", "add source =")
def source_not_given(site: Site, stack: ExitStack) -> Attempt:
    return Attempt(site, ("-c", _toml(site, source=None)))


@expects(2, "config", "skynet.toml", "is not valid TOML", "line 1")
def not_toml(site: Site, stack: ExitStack) -> Attempt:
    file = _toml(site)
    file.write_text("[mirror\n")
    return Attempt(site, ("-c", file))


# The run.


def _options(attempt: Attempt) -> list[str | Path]:
    """A configuration file takes the place of the site's own options."""
    return [*(() if "-c" in attempt.more else attempt.site.options()), *attempt.more]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.prepare.__name__)
def test_bad_input_is_explained_and_loses_nothing(case: Case, site: Site) -> None:
    with ExitStack() as stack:
        attempt = case.prepare(site, stack)
        before = _everything(attempt.site)
        result = skynet(
            *("sync", "--once", "--json", *_options(attempt)),
            environ=attempt.environ,
            before=attempt.before,
        )
        assert result.code == case.code, result
        message = _message(result, case)
        for word in case.words:
            assert word in message
        assert PASSWORD not in result.text
        assert _everything(attempt.site) == before


def _message(result: Result, case: Case) -> str:
    """What was said of the case; an error is told on standard error as well as in JSON."""
    if case.code == 4:
        assert result.json["outcome"] == "held"
        (hazard,) = result.json["hazards"]
        assert hazard["code"] == case.error
        return str(hazard["message"])
    assert result.json["outcome"] == "failed"
    error = result.json["error"]
    assert error["code"] == case.error
    assert error["message"] in result.err
    return str(error["message"])


def _everything(site: Site) -> object:
    target = site.target.read_bytes() if site.target.is_file() else snapshot(site.target)
    return snapshot(site.source), site.target.exists(), target
