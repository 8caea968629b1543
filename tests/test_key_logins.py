"""Logging in with keys at a real OpenSSH server: files, passphrases, certificates, the agent."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet.errors import AuthError, ConnectError
from skynet.sftp.connect import Endpoint, connect
from tests.support.persons import Person
from tests.support.sshd import Sshd, find_program, make_key, running_sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "sshd") as server:
        yield server


def logs_in(endpoint: Endpoint, person: Person | None = None, **environ: str) -> None:
    connect(endpoint, prompter=person or Person(), environ=environ).close()


def test_encrypted_key_asks_for_its_passphrase(sshd: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    authorize(sshd, key)
    person = Person("wrong", "open sesame")
    logs_in(sshd.endpoint(identity=key), person)
    assert person.asked == [f"Passphrase for {key}: "] * 2
    logs_in(sshd.endpoint(identity=key), SKYNET_PASSPHRASE="open sesame")


@pytest.mark.parametrize("options", [("-m", "PEM", "-t", "rsa"), ("-m", "PEM", "-t", "ecdsa")])
def test_old_pem_keys_work_encrypted(sshd: Sshd, tmp_path: Path, options: tuple[str, ...]) -> None:
    key = make_key(tmp_path / "pem", *options, passphrase="open sesame")
    authorize(sshd, key)
    logs_in(sshd.endpoint(identity=key), SKYNET_PASSPHRASE="open sesame")
    with pytest.raises(AuthError, match="passphrase is wrong"):
        logs_in(sshd.endpoint(identity=key), SKYNET_PASSPHRASE="close sesame")


def test_passphrase_that_nobody_can_give(sshd: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(AuthError, match="nobody can be asked"):
        logs_in(sshd.endpoint(identity=key))
    with pytest.raises(AuthError, match="passphrase is wrong") as caught:
        logs_in(sshd.endpoint(identity=key), SKYNET_PASSPHRASE="close sesame")
    assert "sesame" not in str(caught.value)


def test_default_keys_are_found_in_home(sshd: Sshd, home: Path) -> None:
    (home / ".ssh").mkdir()
    make_key(home / ".ssh" / "id_rsa", "-t", "rsa", "-b", "2048")
    shutil.copyfile(sshd.client_key, home / ".ssh" / "id_ed25519")
    logs_in(sshd.endpoint(identity=None))


def test_refused_keys_are_listed(sshd: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    with pytest.raises(AuthError) as caught:
        logs_in(sshd.endpoint(identity=key))
    assert f"key {key}" in str(caught.value)
    assert "accepts: publickey" in str(caught.value)


def test_too_many_keys_is_explained(tmp_path: Path) -> None:
    keys = [make_key(tmp_path / f"key{number}") for number in range(4)]
    with running_sshd(tmp_path / "sshd", "MaxAuthTries 2") as sshd:
        sshd.ssh_config.write_text("".join(f"IdentityFile {key}\n" for key in keys))
        with pytest.raises(AuthError, match="Too many authentication failures") as caught:
            logs_in(sshd.endpoint(identity=None))
    assert caught.value.code == "too-many-tries"
    assert "IdentitiesOnly" in str(caught.value)


def test_certificate_beside_the_key_is_offered(sshd: Sshd, tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", sshd.user, f"{key}.pub"]
    subprocess.run(sign, check=True)
    public = Path(f"{authority}.pub").read_text()
    sshd.authorized_keys.write_text(f"cert-authority {public}")
    logs_in(sshd.endpoint(identity=key))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "agent.sock")
    process = subprocess.Popen(
        [find_program("ssh-agent"), "-D", "-a", path], stdout=subprocess.DEVNULL
    )
    try:
        while not os.path.exists(path):
            assert process.poll() is None
        yield path
    finally:
        process.terminate()
        process.wait(30)


def add_to_agent(agent: str, *keys: Path) -> None:
    environ = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run(["ssh-add", "-q", *map(str, keys)], env=environ, check=True)


@pytest.mark.skipif(os.name != "posix", reason="the agent listens on a Unix socket")
def test_agent_keys_log_in(sshd: Sshd, agent: str, tmp_path: Path) -> None:
    add_to_agent(agent, make_key(tmp_path / "stranger"), sshd.client_key)
    logs_in(sshd.endpoint(identity=None), SSH_AUTH_SOCK=agent)


@pytest.mark.skipif(os.name != "posix", reason="the agent listens on a Unix socket")
def test_named_key_is_the_only_one_of_the_agent(sshd: Sshd, agent: str, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    add_to_agent(agent, stranger, sshd.client_key)
    with pytest.raises(AuthError) as caught:
        logs_in(sshd.endpoint(identity=Path(f"{stranger}.pub")), SSH_AUTH_SOCK=agent)
    assert str(caught.value).count("agent key") == 1


def requests(sshd: Sshd) -> list[str]:
    """The methods of the login requests that a server with LogLevel DEBUG1 has heard."""
    return re.findall(
        r"userauth-request for user \S+ service ssh-connection method (\S+)", sshd.log
    )


def requests_in_all(sshd: Sshd) -> list[str]:
    """The same of a session that has ended: what is logged may come later than the answer."""
    end = time.monotonic() + 30
    while sshd.children() and time.monotonic() < end:
        time.sleep(0.01)
    return requests(sshd)


def test_a_named_key_logs_in_with_one_request(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd", "LogLevel DEBUG1") as sshd:
        logs_in(sshd.endpoint())
        assert requests_in_all(sshd) == ["publickey"]


@pytest.mark.skipif(os.name != "posix", reason="the agent listens on a Unix socket")
def test_a_named_key_that_the_agent_has_too_is_offered_once(tmp_path: Path, agent: str) -> None:
    stranger = make_key(tmp_path / "stranger")
    add_to_agent(agent, stranger)
    with running_sshd(tmp_path / "sshd", "LogLevel DEBUG1") as sshd:
        with pytest.raises(AuthError, match="accepts: publickey"):
            logs_in(sshd.endpoint(identity=stranger), SSH_AUTH_SOCK=agent)
        assert requests_in_all(sshd) == ["publickey", "none"]


def test_a_refusal_that_ends_the_connection_names_the_key(tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    for tries, code in ((1, "too-many-tries"), (2, "auth")):
        with running_sshd(tmp_path / f"sshd{tries}", f"MaxAuthTries {tries}") as sshd:
            with pytest.raises(AuthError, match=f"Tried: key {key}") as caught:
                logs_in(sshd.endpoint(identity=key))
            assert caught.value.code == code
            assert "IdentitiesOnly" not in str(caught.value)


def test_dead_agent_is_no_obstacle(sshd: Sshd, tmp_path: Path) -> None:
    logs_in(sshd.endpoint(), SSH_AUTH_SOCK=str(tmp_path / "gone"))


def authorize(sshd: Sshd, key: Path) -> None:
    with sshd.authorized_keys.open("a") as keys:
        keys.write(Path(f"{key}.pub").read_text())


def test_two_keys_in_a_row(tmp_path: Path) -> None:
    second = make_key(tmp_path / "second")
    with running_sshd(tmp_path / "sshd", "AuthenticationMethods publickey,publickey") as sshd:
        authorize(sshd, second)
        sshd.ssh_config.write_text(f"IdentityFile {sshd.client_key}\nIdentityFile {second}\n")
        logs_in(sshd.endpoint(identity=None))


def test_a_connection_that_breaks_during_the_login_was_not_refused(tmp_path: Path) -> None:
    looks = "AuthorizedKeysCommand /bin/sleep 30"
    who = f"AuthorizedKeysCommandUser {getpass.getuser()}"
    extra = "LogLevel DEBUG1", "AuthorizedKeysFile none", looks, who
    with running_sshd(tmp_path / "sshd", *extra) as sshd:

        def crash() -> None:
            end = time.monotonic() + 30
            while not requests(sshd) and time.monotonic() < end:
                time.sleep(0.01)
            sshd.kill_sessions()

        thread = threading.Thread(target=crash)
        thread.start()
        with pytest.raises(ConnectError, match="closed the connection during the login") as caught:
            logs_in(sshd.endpoint())
        thread.join()
    assert (caught.value.code, caught.value.retry) == ("closed", True)
