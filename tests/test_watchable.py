"""Which file systems are polled: mountinfo as in proc(5)."""

from __future__ import annotations

import pytest

from skynet.watchable import network_kind, read_mounts

MOUNTS = rb"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:30 / /mnt/nas rw,relatime - nfs4 nas:/export rw,vers=4.2
23 21 0:31 / /mnt/my\040share rw - cifs //nas/share rw
24 22 8:2 / /mnt/nas/local rw shared:2 master:7 - xfs /dev/sdb rw
25 21 0:32 / /home/me/remote rw - fuse.sshfs me@host: rw
26 21 8:3 / /usb rw - fuseblk /dev/sdc1 rw
27 21 0:33 / /twice rw - nfs nas:/a rw
28 27 8:4 / /twice rw - ext4 /dev/sdd1 rw
29 21 0:34 / /odd\134name\012 rw - 9p drvfs rw
30 21 0:35 / short
"""


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        (b"/srv", ""),
        (b"/mnt/nas", "nfs4"),
        (b"/mnt/nas/a/b", "nfs4"),
        (b"/mnt/nastier", ""),
        (b"/mnt/nas/local/x", ""),
        (b"/mnt/my share/x", "cifs"),
        (b"/home/me/remote/x", "fuse.sshfs"),
        (b"/home/me", "fuse.sshfs"),  # part of what is to be watched is somewhere else
        (b"/home/you", ""),
        (b"/usb/x", ""),
        (b"/twice/x", ""),
        (b"/odd\\name\n", "9p"),
        (b"/", "9p"),
    ],
)
def test_kind_of_the_file_systems_a_root_is_on(root: bytes, kind: str) -> None:
    assert network_kind(root, MOUNTS) == kind


def test_without_mountinfo_all_is_local() -> None:
    assert network_kind(b"/srv", b"") == ""


def test_the_mounts_of_this_machine_can_be_read() -> None:
    assert b" - " in read_mounts()
