"""A target that is told from the home directory on the server, wherever that is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from skynet import wiring
from skynet.config import Login, Mirror, Target
from skynet.errors import TargetError
from skynet.remote import SftpRemote
from skynet.sftp.credentials import NOBODY
from tests.support.pipes import pipe_client
from tests.support.sshd import running_sshd


@pytest.mark.parametrize(
    ("path", "full"),
    [(b"~", b"/"), (b"~/", b"/"), (b"~/a", b"/a"), (b"~/a/b/", b"/a/b"), (b"/", b"/")],
)
def test_a_home_at_the_root_as_in_a_chroot(path: bytes, full: bytes) -> None:
    with pipe_client("-d", "/") as client:
        remote = SftpRemote(client, path, "nonce")
        assert remote.root == full
        assert remote.examine().exists == (full == b"/")


def test_a_home_below_the_root(tmp_path: Path) -> None:
    with pipe_client("-d", str(tmp_path)) as client:
        for path, below in ((b"~", b""), (b"~/a/", b"/a")):
            assert SftpRemote(client, path, "nonce").root == bytes(tmp_path) + below


def test_a_connection_ends_if_the_server_does_not_tell_the_home(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd", subsystem="internal-sftp -P realpath") as sshd:
        target = Target("127.0.0.1", b"~/a", sshd.user, sshd.port)
        login = Login(identity=sshd.client_key, known_hosts=sshd.known_hosts)
        mirror = Mirror(
            name="test", source=b"/", target=target, state_dir=tmp_path / "state", login=login
        )
        with pytest.raises(TargetError, match="Write the target as an absolute path"):
            wiring.connector(mirror, NOBODY, {}, lambda _: None)()
        end = time.monotonic() + 30
        while sshd.children():
            assert time.monotonic() < end, "the connection is still there"
            time.sleep(0.02)
