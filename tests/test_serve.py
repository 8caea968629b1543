"""`skynet serve`: who may log in, what is announced, and which options are refused."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from skynet.errors import UsageError
from skynet.serve import Announcement, ServeOptions, serve
from tests.support.embedded import (
    DEADLINE,
    connection,
    directory_beside_a_secret,
    port_of,
    posix_only,
    serving,
)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return directory_beside_a_secret(tmp_path)


@pytest.fixture
def options(tmp_path: Path, served: Path) -> ServeOptions:
    return ServeOptions(directory=served, state=tmp_path / "state")


@pytest.fixture
def announced(options: ServeOptions) -> Iterator[Announcement]:
    with serving(options) as announcement:
        yield announcement


# --- who may log in


def attempt(announcement: Announcement, **login: Any) -> None:
    async def session() -> None:
        async with connection(announcement, **login):
            pass

    asyncio.run(asyncio.wait_for(session(), DEADLINE))


def test_a_generated_password_is_long_new_and_hidden_from_reprs(options: ServeOptions) -> None:
    passwords = []
    for _ in range(2):
        with serving(options) as announcement:
            assert announcement.password is not None
            assert announcement.password not in repr(announcement)
            passwords.append(announcement.password)
            attempt(announcement)
    assert len(set(passwords)) == 2
    assert min(len(each) for each in passwords) >= 32


@pytest.mark.parametrize(
    "login", [{"password": "wrong"}, {"password": ""}, {"username": "root"}, {"password": None}]
)
def test_wrong_logins_are_refused(announced: Announcement, login: dict[str, Any]) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        attempt(announced, **login)


def test_a_chosen_password_is_not_announced(options: ServeOptions, tmp_path: Path) -> None:
    chosen = ServeOptions(options.directory, tmp_path / "state", password="påss wörd")
    assert "påss" not in repr(chosen)
    with serving(chosen) as announcement:
        assert announcement.password is None
        attempt(announcement, password="påss wörd")
        with pytest.raises(asyncssh.PermissionDenied):
            attempt(announcement, password="pass word")


def test_keys_let_in_and_switch_passwords_off(served: Path, tmp_path: Path) -> None:
    key, stranger = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    keys = tmp_path / "keys"
    keys.write_bytes(b"# the team\n" + key.export_public_key())
    with serving(ServeOptions(served, tmp_path / "state", authorized_keys=keys)) as announcement:
        assert announcement.password is None
        attempt(announcement, client_keys=[key])
        for login in ({"client_keys": [stranger]}, {"password": ""}, {"password": "x"}):
            with pytest.raises(asyncssh.PermissionDenied):
                attempt(announcement, **login)
        with pytest.raises(asyncssh.PermissionDenied):
            attempt(announcement, client_keys=[key], username="root")


def test_no_shell_no_command_no_forwarding(announced: Announcement) -> None:
    async def session() -> None:
        async with connection(announced) as conn:
            for request in (
                conn.run("id", check=True),
                conn.create_process(),
                conn.create_process(subsystem="netconf"),
                conn.open_connection("127.0.0.1", port_of(announced)),
            ):
                with pytest.raises(asyncssh.ChannelOpenError):
                    await request
            with pytest.raises(asyncssh.ChannelListenError):
                await conn.start_server(lambda _host, _port: None, "127.0.0.1", 0)

    asyncio.run(asyncio.wait_for(session(), DEADLINE))


# --- the host key and the announcement


def test_the_host_key_stays_and_is_private(options: ServeOptions) -> None:
    with serving(options) as first:
        pass
    with serving(options) as second:
        assert second.fingerprint == first.fingerprint
    assert first.fingerprint.startswith("SHA256:")
    path = options.state / "serve" / "host_key"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_announcement(announced: Announcement) -> None:
    port = port_of(announced)
    assert announced.url == f"sftp://skynet@127.0.0.1:{port}/"
    assert announced.known_hosts.startswith(f"[127.0.0.1]:{port} ssh-ed25519 AAAA")
    assert announced.loopback_only


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"directory": "missing"}, "missing"),
        ({"directory": "file"}, "not a directory"),
        ({"state": "served/state"}, "inside the served directory"),
        ({"authorized_keys": "served/keys"}, "inside the served directory"),
        ({"authorized_keys": "missing"}, "Cannot read the authorized keys"),
        ({"authorized_keys": "file"}, "ssh-ed25519 AAAA"),
        ({"authorized_keys": "forced"}, "line 2 forces a command"),
        ({"authorized_keys": "empty"}, "it is empty"),
        ({"user": ""}, "user name is empty"),
        ({"password": ""}, "password is empty"),
        ({"host": "192.0.2.1"}, "Cannot listen on 192.0.2.1"),
        ({"port": 70000}, "port 70000"),
    ],
)
def test_options_that_cannot_be_served(
    options: ServeOptions, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    (tmp_path / "file").write_text("no key here\n")
    (tmp_path / "empty").write_text("")
    public = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (tmp_path / "forced").write_text(f'# a comment\nrestrict,command="internal-sftp" {public}')
    paths = {"directory", "state", "authorized_keys"}
    values = {key: tmp_path / value if key in paths else value for key, value in change.items()}
    fields = {"directory": options.directory, "state": options.state, **values}
    with pytest.raises(UsageError, match=says), serving(ServeOptions(**fields)):
        pass


def test_a_port_that_is_taken(announced: Announcement, served: Path, tmp_path: Path) -> None:
    taken = ServeOptions(served, tmp_path / "state", port=port_of(announced))
    with pytest.raises(UsageError, match="Choose another --host or --port"), serving(taken):
        pass


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"nonsense"), "is not a host key"),
        pytest.param(lambda path: path.chmod(0o644), "can be read by others", marks=posix_only),
    ],
)
def test_a_host_key_that_cannot_be_trusted(
    options: ServeOptions, spoil: Callable[[Path], object], says: str
) -> None:
    with serving(options):
        pass
    spoil(options.state / "serve" / "host_key")
    with pytest.raises(UsageError, match=says), serving(options):
        pass


def test_without_the_library_it_says_what_to_install(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    monkeypatch.delitem(sys.modules, "skynet.sftpserver")
    monkeypatch.delattr("skynet.sftpserver")
    with pytest.raises(UsageError, match=r"pip install 'skynet-mirror\[serve\]'"):
        serve(options, lambda _: None)
