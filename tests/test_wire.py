"""Requests are the bytes that the SFTP draft and OpenSSH's PROTOCOL say they are."""

from __future__ import annotations

from struct import unpack

import pytest

from skynet.sftp import wire
from skynet.sftp.wire import Attrs, Request

REQUESTS = {
    "OPEN": (wire.open_file(b"/p", wire.READ_ONLY), 3, "00000002 2f70 00000001 00000000"),
    "CLOSE": (wire.close(b"h"), 4, "00000001 68"),
    "READ": (wire.read(b"h", 1 << 32, 9), 5, "00000001 68 0000000100000000 00000009"),
    "WRITE": (wire.write(b"h", 2, b"abc"), 6, "00000001 68 0000000000000002 00000003"),
    "LSTAT": (wire.lstat(b"/p"), 7, "00000002 2f70"),
    "FSTAT": (wire.fstat(b"h"), 8, "00000001 68"),
    "SETSTAT": (wire.setstat(b"/p", Attrs(mode=0o644)), 9, "00000002 2f70 00000004 000001a4"),
    "FSETSTAT": (wire.fsetstat(b"h", Attrs(size=5)), 10, "00000001 68 00000001 0000000000000005"),
    "OPENDIR": (wire.opendir(b"/p"), 11, "00000002 2f70"),
    "READDIR": (wire.readdir(b"h"), 12, "00000001 68"),
    "REMOVE": (wire.remove(b"/p"), 13, "00000002 2f70"),
    "MKDIR": (wire.mkdir(b"/p"), 14, "00000002 2f70 00000000"),
    "RMDIR": (wire.rmdir(b"/p"), 15, "00000002 2f70"),
    "REALPATH": (wire.realpath(b"."), 16, "00000001 2e"),
    "STAT": (wire.stat(b"/p"), 17, "00000002 2f70"),
    "RENAME": (wire.rename(b"/p", b"/q"), 18, "00000002 2f70 00000002 2f71"),
    "READLINK": (wire.readlink(b"/p"), 19, "00000002 2f70"),
    "SYMLINK": (wire.symlink(b"target", b"/p"), 20, "00000006 746172676574 00000002 2f70"),
}
MUTATING = {"WRITE", "SETSTAT", "FSETSTAT", "REMOVE", "MKDIR", "RMDIR", "RENAME", "SYMLINK"}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_spelt_as_the_draft_says(name: str) -> None:
    request, kind, body = REQUESTS[name]
    assert request.kind == kind
    assert request.body == bytes.fromhex(body)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_knows_whether_it_can_change_the_remote(name: str) -> None:
    assert REQUESTS[name][0].mutates == (name in MUTATING)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (wire.WRITE_NEW, 0x2A),
        (wire.WRITE_TRUNCATED, 0x1A),
        (wire.WRITE_IN_PLACE, 0x0A),
        (wire.WRITE_EXISTING, 0x02),
    ],
)
def test_opening_to_write_is_a_mutation(flags: int, bits: int) -> None:
    request = wire.open_file(b"/p", flags, Attrs(mode=0o600))
    assert request.mutates
    assert request.body[6:10] == bits.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("request_", "name", "mutates"),
    [
        (wire.posix_rename(b"/p", b"/q"), b"posix-rename@openssh.com", True),
        (wire.hardlink(b"/p", b"/q"), b"hardlink@openssh.com", True),
        (wire.limits(), b"limits@openssh.com", False),
        (wire.statvfs(b"/p"), b"statvfs@openssh.com", False),
        (wire.copy_data(b"r", 1, 2, b"w", 3), b"copy-data", True),
    ],
)
def test_an_extended_request_begins_with_its_name(
    request_: Request, name: bytes, mutates: bool
) -> None:
    assert request_.kind == 200
    assert request_.body.startswith(wire.string(name))
    assert request_.mutates == mutates


def test_a_copy_names_both_files_and_never_all_of_one() -> None:
    body = wire.copy_data(b"read", 1 << 33, 5, b"to", 7).body
    expected = "00000004 72656164 0000000200000000 0000000000000005 00000002 746f 0000000000000007"
    assert body == wire.string(b"copy-data") + bytes.fromhex(expected)
    with pytest.raises(AssertionError):
        wire.copy_data(b"read", 0, 0, b"to", 0)


def test_a_frame_counts_the_data_that_follows_it() -> None:
    request = wire.write(b"handle", 0, b"x" * 1000)
    head = wire.frame(request, 0x01020304)
    length, kind, request_id = unpack(">IBI", head[:9])
    assert (kind, request_id) == (wire.WRITE, 0x01020304)
    assert length + 4 == len(head) + 1000


def test_the_data_of_a_write_is_not_copied() -> None:
    data = memoryview(bytearray(b"content"))
    assert wire.write(b"h", 0, data).data is data


def test_the_greeting_asks_for_version_three() -> None:
    assert wire.init() == bytes.fromhex("00000005 01 00000003")


def test_times_go_together() -> None:
    assert wire.encode_attrs(Attrs(mtime=7)) == bytes.fromhex("00000008 00000007 00000007")
    assert wire.encode_attrs(Attrs(atime=6, mtime=7)) == bytes.fromhex("00000008 00000006 00000007")


def test_an_access_time_alone_is_not_sent() -> None:
    assert wire.encode_attrs(Attrs(atime=6)) == bytes(4)


def test_names_are_any_bytes() -> None:
    name = bytes(range(1, 256))
    assert wire.lstat(name).body == (255).to_bytes(4, "big") + name
