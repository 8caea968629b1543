"""known_hosts as OpenSSH writes it: names, hashes, patterns, markers; and adding to it."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from skynet.errors import HostKeyError
from skynet.sftp.hostkeys import (
    MAX_FILE_BYTES,
    append,
    fingerprint,
    host_key,
    host_name,
    is_known,
    known_first,
    known_keys,
    verify,
)
from tests.support.sshd import find_program, make_key

BLOB = b"\0\0\0\x0bssh-ed25519 key"
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()}"
OTHER_KEY = f"ssh-ed25519 {base64.b64encode(BLOB[:-1] + b'?').decode()}"


def known(tmp_path: Path, text: str, name: str = "host") -> list[int]:
    """The numbers of the lines that hold a key for `name`."""
    file = tmp_path / "known_hosts"
    file.write_text(text)
    return [key.line for key in known_keys([file], name)]


@pytest.mark.parametrize(
    ("names", "name", "found"),
    [
        ("host", "host", True),
        ("HOST", "host", True),
        ("a,host,b", "host", True),
        ("host", "host2", False),
        ("h?st", "host", True),
        ("*.example", "a.example", True),
        ("*.example,!a.example", "a.example", False),
        ("[host]:2222", "[host]:2222", True),
        ("[host]:2222", "host", False),
        ("host", "[host]:2222", False),
        ("[ho]st", "host", False),
        ("|1|bad", "host", False),
        ("|1|!!|!!", "host", False),
    ],
)
def test_names(tmp_path: Path, names: str, name: str, found: bool) -> None:
    assert known(tmp_path, f"{names} {KEY}\n", name) == ([1] if found else [])


def test_hashed_names(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"host {KEY}\n[host]:2222 {KEY}\n")
    subprocess.run([find_program("ssh-keygen"), "-q", "-H", "-f", str(file)], check=True)
    assert "host " not in file.read_text()
    assert [key.line for key in known_keys([file], "[host]:2222")] == [2]
    assert known_keys([file], "other") == []


def test_lines_that_are_no_keys_are_skipped(tmp_path: Path) -> None:
    text = f"# host {KEY}\n\nhost\nhost ssh-rsa !\n@cert-authority host {KEY}\nhost {KEY} c\n"
    assert known(tmp_path, text) == [6]


def test_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    public = f"{make_key(tmp_path / 'key')}.pub"
    listed = subprocess.run(
        [find_program("ssh-keygen"), "-l", "-f", public], check=True, capture_output=True, text=True
    ).stdout
    blob = base64.b64decode(Path(public).read_text().split()[1])
    assert fingerprint(blob) == listed.split()[1]


def test_one_of_several_keys_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    other = base64.b64encode(b"another").decode()
    file.write_text(f"host ssh-ed25519 {other}\nhost {KEY}\n")
    verify(host_key("host", "ssh-ed25519", BLOB), known_keys([file], "host"), "skynet trust")
    with pytest.raises(HostKeyError) as caught:
        verify(host_key("host", "ssh-rsa", b"new"), known_keys([file], "host"), "skynet trust")
    assert caught.value.code == "changed-host-key"


def test_a_revoked_key_alone_leaves_the_host_unknown(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"@revoked host {KEY}\n")
    with pytest.raises(HostKeyError) as caught:
        verify(host_key("host", "ssh-rsa", b"new"), known_keys([file], "host"), "skynet trust")
    assert caught.value.code == "unknown-host-key"


def test_known_types_come_first(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"host ssh-rsa {base64.b64encode(b'rsa').decode()}\n@revoked host {KEY}\n")
    order = known_first(["ssh-ed25519", "rsa-sha2-512"], known_keys([file], "host"))
    assert order == ["rsa-sha2-512", "ssh-ed25519"]


def test_append_makes_a_private_file_and_adds_once(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "known_hosts"
    key = host_key(host_name("Host", 2222), "ssh-ed25519", BLOB)
    assert append([file], key) == file
    append([file], key)
    assert file.read_text() == f"[host]:2222 {KEY}\n"
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_append_keeps_a_last_line_without_end(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("old ssh-rsa AAAA")
    append([file], host_key("host", "ssh-ed25519", BLOB))
    assert file.read_text() == f"old ssh-rsa AAAA\nhost {KEY}\n"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="cannot be read"):
        known_keys([tmp_path], "host")
    with pytest.raises(HostKeyError, match="cannot be written"):
        append([tmp_path], host_key("host", "ssh-ed25519", BLOB))
    with pytest.raises(HostKeyError, match="no file"):
        append([], host_key("host", "ssh-ed25519", BLOB))
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(HostKeyError, match="larger"):
        known_keys([large], "host")


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        ([], False),
        ([f"host {KEY}"], True),
        ([f"@revoked host {OTHER_KEY}"], False),
        ([f"@revoked host {OTHER_KEY}", f"host {KEY}"], True),
        ([f"host {OTHER_KEY}"], "changed-host-key"),
        ([f"@revoked host {KEY}"], "revoked-host-key"),
        ([f"host {KEY}", f"@revoked host {KEY}"], "revoked-host-key"),
    ],
)
def test_whether_a_key_is_known(tmp_path: Path, lines: list[str], answer: bool | str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("\n".join(lines))
    known = known_keys([file], "host")
    shown = host_key("host", "ssh-ed25519", BLOB)
    if isinstance(answer, bool):
        assert is_known(shown, known, "skynet trust host") is answer
    else:
        with pytest.raises(HostKeyError) as caught:
            is_known(shown, known, "skynet trust host")
        assert caught.value.code == answer
