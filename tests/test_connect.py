"""Connecting to real OpenSSH servers and to things that are none: hosts, keys, streams, errors."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from skynet.errors import ConnectError, HostKeyError, LinkLost, ProtocolError
from skynet.sftp.connect import Connection, Endpoint, connect, is_trusted, scan_host_key, trust
from skynet.sftp.credentials import NOBODY
from skynet.sftp.transport import LOOK_SECONDS, Packetizer, SshTransport
from tests.support.persons import Person
from tests.support.sshd import Sshd, free_port, make_key, running_sshd

DEADLINE = 60.0  # seconds for what comes at once if it comes
INIT = bytes([0, 0, 0, 5, 1, 0, 0, 0, 3])


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "sshd") as server:
        yield server


def opened(endpoint: Endpoint, person: Person | None = None, **environ: str) -> Connection:
    return connect(endpoint, prompter=person or NOBODY, environ=environ)


def speaks_sftp(connection: Connection) -> bool:
    stream = connection.open_stream(INIT)
    reply = stream.recv(5)
    stream.close()
    return reply[4:5] == b"\2"


def test_a_server_with_revoked_keys_alone_is_not_trusted(sshd: Sshd, tmp_path: Path) -> None:
    known_hosts = tmp_path / "revoked"
    old = make_key(tmp_path / "old_key").with_suffix(".pub").read_text()
    known_hosts.write_text(f"@revoked [127.0.0.1]:{sshd.port} {old}")
    endpoint = sshd.endpoint(known_hosts=known_hosts)
    key = scan_host_key(endpoint)
    assert not is_trusted(endpoint, key)
    trust(endpoint, key)
    assert is_trusted(endpoint, key)


def test_connects_and_speaks_sftp(sshd: Sshd) -> None:
    with closing(opened(sshd.endpoint())) as connection:
        assert connection.description == f"{sshd.user}@127.0.0.1:{sshd.port}"
        assert connection.server_version.startswith("SSH-2.0-OpenSSH")
        assert connection.fingerprint.startswith("SHA256:")
        assert speaks_sftp(connection)


def test_a_compressed_session_works(sshd: Sshd) -> None:
    with closing(opened(sshd.endpoint(compression=True))) as connection:
        assert speaks_sftp(connection)


def sessions() -> set[SshTransport]:
    """Those that are served by a thread of this process."""
    return {each for each in threading.enumerate() if isinstance(each, SshTransport)}


def test_a_silent_session_seldom_looks_whether_it_is_to_end(sshd: Sshd) -> None:
    with closing(opened(sshd.endpoint())):
        assert {session.sock.gettimeout() for session in sessions()} == {LOOK_SECONDS}


def test_a_silent_session_ends_without_waiting_for_its_next_look(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SshTransport, "_active_check_timeout", 600.0)
    before = sessions()
    with closing(opened(sshd.endpoint())) as connection:
        assert speaks_sftp(connection)
        time.sleep(0.3)  # until the server has said all that it says unasked
        begun = sessions() - before
    assert begun
    for session in begun:
        session.join(DEADLINE)
        assert not session.is_alive()


def test_aes_gcm_is_preferred(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd", "LogLevel DEBUG1") as sshd:
        opened(sshd.endpoint()).close()
        assert "cipher: aes128-gcm@openssh.com" in sshd.log


def test_streams_open_from_several_threads(sshd: Sshd) -> None:
    results: list[bool] = []
    with closing(opened(sshd.endpoint())) as connection:
        threads = [
            threading.Thread(target=lambda: results.append(speaks_sftp(connection)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 8


def test_session_limit(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", "MaxSessions 2") as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        kept = [connection.open_stream(), connection.open_stream()]
        with pytest.raises(ConnectError) as caught:
            connection.open_stream()
        assert caught.value.code == "no-channel"
        kept.pop().close()
        assert connection.is_alive


def test_server_without_sftp(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", subsystem=None) as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        with pytest.raises(ConnectError, match="sftp subsystem") as caught:
            connection.open_stream()
        assert caught.value.code == "no-sftp"


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview])
def test_a_long_transfer_survives_rekeying(tmp_path: Path, data: type) -> None:
    sent = os.urandom(1 << 20) * 6
    received = bytearray()
    with (
        running_sshd(
            tmp_path / "sshd", "RekeyLimit 1M", "LogLevel DEBUG1", subsystem="/bin/cat"
        ) as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        stream = connection.open_stream()
        sender = threading.Thread(target=stream.send, args=(data(sent),))
        sender.start()
        while len(received) < len(sent):
            received += stream.recv(1 << 18)
        sender.join()
        assert sshd.log.count("rekey out after") > 2
    assert bytes(received) == sent


def test_a_rekey_of_our_own_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 1 << 19)
    received = 0
    with (
        running_sshd(tmp_path / "sshd", "LogLevel DEBUG1", subsystem="/bin/cat") as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        stream = connection.open_stream()
        sender = threading.Thread(target=stream.send, args=(bytes(6 << 20),))
        sender.start()
        while received < 6 << 20:
            received += len(stream.recv(1 << 18))
        sender.join()
        assert sshd.log.count("SSH2_MSG_KEXINIT received") > 2


@pytest.mark.parametrize(
    ("cipher", "after"), [("aes128-gcm@openssh.com", 1 << 32), ("3des-cbc", 1 << 29)]
)
def test_keys_last_as_long_as_their_cipher_allows(tmp_path: Path, cipher: str, after: int) -> None:
    with (
        running_sshd(tmp_path / "sshd", f"Ciphers {cipher}") as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        assert after == connection._transport.packetizer.REKEY_BYTES  # type: ignore[attr-defined]


def test_abort_frees_a_blocked_recv_with_its_reason(sshd: Sshd) -> None:
    with closing(opened(sshd.endpoint())) as connection:
        stream = connection.open_stream()
        threading.Timer(0.2, connection.abort, ["the server stalled."]).start()
        with pytest.raises(LinkLost, match=r"^the server stalled\.$"):
            stream.recv(1)
        with pytest.raises(LinkLost, match="stalled"):
            connection.open_stream()


def test_abort_frees_a_blocked_send(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", subsystem="/bin/sleep 20") as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        stream = connection.open_stream()
        threading.Timer(0.5, connection.abort, ["the server stalled."]).start()
        with pytest.raises(LinkLost, match="stalled"):
            stream.send(bytes(64 << 20))


def test_a_killed_session_is_a_lost_link(sshd: Sshd) -> None:
    with closing(opened(sshd.endpoint())) as connection:
        stream = connection.open_stream()
        sshd.kill_sessions()
        with pytest.raises(LinkLost, match="was lost"):
            stream.recv(1)
        with pytest.raises(LinkLost):
            stream.send(b"x" * 100_000)


def test_an_orderly_end_is_no_lost_link(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", subsystem="/bin/echo hello") as sshd,
        closing(opened(sshd.endpoint())) as connection,
    ):
        stream = connection.open_stream()
        assert [stream.recv(100), stream.recv(100)] == [b"hello\n", b""]


# Host keys


def test_unknown_host_names_fingerprint_and_command(sshd: Sshd, tmp_path: Path) -> None:
    endpoint = sshd.endpoint(known_hosts=tmp_path / "none yet")
    with pytest.raises(HostKeyError) as caught:
        opened(endpoint)
    assert caught.value.code == "unknown-host-key"
    key = scan_host_key(endpoint)
    command = f"skynet trust sftp://{sshd.user}@127.0.0.1:{sshd.port} --known-hosts"
    assert key.fingerprint in str(caught.value)
    assert command in str(caught.value)
    assert trust(endpoint, key) == tmp_path / "none yet"
    opened(endpoint).close()


def test_changed_host_key_names_both_and_the_line(sshd: Sshd, tmp_path: Path) -> None:
    other = Path(f"{make_key(tmp_path / 'other')}.pub").read_text()
    sshd.known_hosts.write_text(f"# mine\n{sshd.name} {other}")
    with pytest.raises(HostKeyError, match="line 2") as caught:
        opened(sshd.endpoint())
    assert caught.value.code == "changed-host-key"
    assert str(caught.value).count("SHA256:") == 2


def test_a_known_type_is_asked_for_first(sshd: Sshd, tmp_path: Path) -> None:
    rsa = make_key(tmp_path / "rsa", "-t", "rsa", "-b", "2048")
    with running_sshd(tmp_path / "two", f"HostKey {rsa}") as two:
        two.known_hosts.write_text(f"{two.name} {Path(f'{rsa}.pub').read_text()}")
        opened(two.endpoint()).close()


def test_revoked_host_key_is_refused(sshd: Sshd) -> None:
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text(f"{known}@revoked * {sshd.host_public_key}\n")
    with pytest.raises(HostKeyError) as caught:
        opened(sshd.endpoint())
    assert caught.value.code == "revoked-host-key"


# The way there


def jump_config(sshd: Sshd, through: Sshd) -> None:
    sshd.ssh_config.write_text(
        f"Host hidden\n HostName 127.0.0.1\n Port {sshd.port}\n ProxyJump gate\n"
        f"Host gate\n HostName 127.0.0.1\n Port {through.port}\n"
        f" User {through.user}\n IdentityFile {through.client_key}\n"
    )


def test_proxy_jump_verifies_and_logs_in_to_each_hop(sshd: Sshd, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "gate") as gate:
        jump_config(sshd, gate)
        endpoint = sshd.endpoint(host="hidden", port=None)
        with pytest.raises(HostKeyError, match="skynet trust sftp://gate"):
            opened(endpoint)
        with sshd.known_hosts.open("a") as known:
            known.write(gate.known_hosts.read_text())
        with closing(opened(endpoint)) as connection:
            assert speaks_sftp(connection)
            gate.kill_sessions()
            with pytest.raises(LinkLost):
                connection.open_stream()


def test_jump_host_that_forwards_nothing(sshd: Sshd, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "gate", "AllowTcpForwarding no") as gate:
        jump_config(sshd, gate)
        with sshd.known_hosts.open("a") as known:
            known.write(gate.known_hosts.read_text())
        with pytest.raises(ConnectError, match="jump host") as caught:
            opened(sshd.endpoint(host="hidden", port=None))
    assert caught.value.code == "unreachable"


@pytest.mark.skipif(os.name != "posix", reason="ProxyCommand is for POSIX systems")
def test_proxy_command_carries_the_session(sshd: Sshd, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): sock.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := sock.recv(65536): os.write(1, data)\n"
    )
    python = shutil.which("python3")
    sshd.ssh_config.write_text(f"Host *\n ProxyCommand exec {python} {relay} %h %p\n")
    with closing(opened(sshd.endpoint())) as connection:
        assert speaks_sftp(connection)


@pytest.mark.skipif(os.name != "posix", reason="ProxyCommand is for POSIX systems")
def test_failing_proxy_command_is_quoted(sshd: Sshd) -> None:
    sshd.ssh_config.write_text("ProxyCommand sh -c 'echo no route >&2'\n")
    with pytest.raises(ConnectError, match="no route"):
        opened(sshd.endpoint())


@contextmanager
def listening(greeting: bytes, hang_up: bool) -> Iterator[Endpoint]:
    """A server that sends `greeting` to whoever comes, then hangs up or says nothing more."""
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.sendall(greeting)
            if hang_up:
                client.shutdown(socket.SHUT_WR)
            held.append(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint("127.0.0.1", "anna", server.getsockname()[1], ssh_config=NO_CONFIG)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for client in held:
        client.close()


NO_CONFIG = Path(os.devnull)


@pytest.mark.parametrize(
    ("greeting", "hang_up", "seconds", "kind", "code"),
    [
        (b"", False, 1, ConnectError, "timeout"),
        (b"SSH-2.0-mute\r\n", False, 1, ConnectError, "timeout"),
        (b"220 mail.example\r\n", False, DEADLINE, ProtocolError, "not-ssh"),
        (b"no line end", False, 3, ProtocolError, "not-ssh"),
        (b"\x00\xff" * 40_000, False, DEADLINE, ProtocolError, "not-ssh"),
        (b"Exceeded MaxStartups\r\n", True, DEADLINE, ConnectError, "busy"),
        (b"", True, DEADLINE, ConnectError, "closed"),
        (b"SSH-1.5-old\r\n", True, DEADLINE, ProtocolError, "no-algorithm"),
        (b"SSH-2.0-x\r\n" + b"\xff" * 64, False, DEADLINE, ProtocolError, "handshake"),
    ],
)
def test_bogus_servers(
    greeting: bytes, hang_up: bool, seconds: float, kind: type[ConnectError], code: str
) -> None:
    with listening(greeting, hang_up) as endpoint, pytest.raises(kind) as caught:
        opened(replace(endpoint, connect_timeout=seconds))
    assert caught.value.code == code
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_no_common_algorithm(tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", "Ciphers chacha20-poly1305@openssh.com") as sshd,
        pytest.raises(ProtocolError, match="cipher") as caught,
    ):
        opened(sshd.endpoint())
    assert caught.value.code == "no-algorithm"


def test_refused() -> None:
    with pytest.raises(ConnectError, match="refused") as caught:
        opened(Endpoint("127.0.0.1", "anna", free_port(), ssh_config=NO_CONFIG))
    assert caught.value.code == "refused"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70])
def test_name_not_found(host: str) -> None:
    with pytest.raises(ConnectError, match="not found") as caught:
        opened(Endpoint(host, "anna", ssh_config=NO_CONFIG))
    assert caught.value.code == "name-not-found"
