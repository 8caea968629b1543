"""SFTP version 3 requests as values, and their bytes. No I/O.

Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the extensions. Names and
handles are bytes throughout. What comes back is in replies.py.
"""

from __future__ import annotations

from struct import Struct, pack
from typing import NamedTuple

VERSION = 3

INIT, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT = 1, 3, 4, 5, 6, 7, 8
SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR, RMDIR = 9, 10, 11, 12, 13, 14, 15
REALPATH, STAT, RENAME, READLINK, SYMLINK, EXTENDED = 16, 17, 18, 19, 20, 200

READ_ONLY = 0x01
READ_AND_WRITE = 0x01 | 0x02  # what is there, else it fails
WRITE_NEW = 0x02 | 0x08 | 0x20  # write, create, fail if the name is taken
WRITE_TRUNCATED = 0x02 | 0x08 | 0x10  # write, create, empty what is there
WRITE_IN_PLACE = 0x02 | 0x08  # write, create, keep what is there
WRITE_EXISTING = 0x02  # write, keep what is there, else it fails

HAS_SIZE, HAS_OWNER, HAS_MODE, HAS_TIMES, HAS_EXTENDED = 1, 2, 4, 8, 0x80000000

_HEADER = Struct(">IBI")  # length, type, id
_INT = Struct(">I")


class Request(NamedTuple):
    """One request without its id. `data` follows `body` on the wire and is not copied."""

    kind: int
    body: bytes
    data: bytes | memoryview = b""
    mutates: bool = False


class Attrs(NamedTuple):
    """File attributes; what a server did not send is None. mode holds the file type too."""

    size: int | None = None
    mode: int | None = None
    atime: int | None = None
    mtime: int | None = None


def string(value: bytes) -> bytes:
    """A length-prefixed string."""
    return _INT.pack(len(value)) + value


def encode_attrs(attrs: Attrs) -> bytes:
    """Attributes as SETSTAT, OPEN and MKDIR carry them. Times go together or not at all."""
    flags, fields = 0, b""
    if attrs.size is not None:
        flags |= HAS_SIZE
        fields += pack(">Q", attrs.size)
    if attrs.mode is not None:
        flags |= HAS_MODE
        fields += _INT.pack(attrs.mode)
    if attrs.mtime is not None:
        flags |= HAS_TIMES
        fields += pack(">II", attrs.mtime if attrs.atime is None else attrs.atime, attrs.mtime)
    return _INT.pack(flags) + fields


NO_ATTRS = Attrs()


def init() -> bytes:
    """The first packet of a channel, complete."""
    return pack(">IBI", 5, INIT, VERSION)


def frame(request: Request, request_id: int) -> bytes:
    """All of a request but its `data`, which must follow."""
    kind, body, data, _ = request
    return _HEADER.pack(5 + len(body) + len(data), kind, request_id) + body


def open_file(path: bytes, flags: int, attrs: Attrs = NO_ATTRS) -> Request:
    """OPEN: answered by Handle."""
    return Request(
        OPEN, string(path) + _INT.pack(flags) + encode_attrs(attrs), b"", flags != READ_ONLY
    )


def close(handle: bytes) -> Request:
    """CLOSE: answered by Status."""
    return Request(CLOSE, string(handle))


def read(handle: bytes, offset: int, length: int) -> Request:
    """READ: answered by Data, or Status EOF."""
    return Request(READ, string(handle) + pack(">QI", offset, length))


def write(handle: bytes, offset: int, data: bytes | memoryview) -> Request:
    """WRITE: answered by Status."""
    return Request(WRITE, string(handle) + pack(">QI", offset, len(data)), data, True)


def lstat(path: bytes) -> Request:
    """LSTAT: answered by Attrs."""
    return Request(LSTAT, string(path))


def stat(path: bytes) -> Request:
    """STAT, which follows links: answered by Attrs."""
    return Request(STAT, string(path))


def fstat(handle: bytes) -> Request:
    """FSTAT: answered by Attrs."""
    return Request(FSTAT, string(handle))


def setstat(path: bytes, attrs: Attrs) -> Request:
    """SETSTAT, which follows links: answered by Status."""
    return Request(SETSTAT, string(path) + encode_attrs(attrs), b"", True)


def fsetstat(handle: bytes, attrs: Attrs) -> Request:
    """FSETSTAT: answered by Status."""
    return Request(FSETSTAT, string(handle) + encode_attrs(attrs), b"", True)


def opendir(path: bytes) -> Request:
    """OPENDIR: answered by Handle."""
    return Request(OPENDIR, string(path))


def readdir(handle: bytes) -> Request:
    """READDIR: answered by Names, or Status EOF."""
    return Request(READDIR, string(handle))


def remove(path: bytes) -> Request:
    """REMOVE: answered by Status."""
    return Request(REMOVE, string(path), b"", True)


def mkdir(path: bytes, attrs: Attrs = NO_ATTRS) -> Request:
    """MKDIR: answered by Status."""
    return Request(MKDIR, string(path) + encode_attrs(attrs), b"", True)


def rmdir(path: bytes) -> Request:
    """RMDIR: answered by Status."""
    return Request(RMDIR, string(path), b"", True)


def realpath(path: bytes) -> Request:
    """REALPATH: answered by Names of one."""
    return Request(REALPATH, string(path))


def rename(source: bytes, path: bytes) -> Request:
    """RENAME, which must not replace: answered by Status."""
    return Request(RENAME, string(source) + string(path), b"", True)


def readlink(path: bytes) -> Request:
    """READLINK: answered by Names of one."""
    return Request(READLINK, string(path))


def symlink(target: bytes, path: bytes) -> Request:
    """SYMLINK in OpenSSH's argument order, which other servers have taken over."""
    return Request(SYMLINK, string(target) + string(path), b"", True)


def extended(name: bytes, body: bytes, *, mutates: bool) -> Request:
    """A request of an extension that the server announced."""
    return Request(EXTENDED, string(name) + body, b"", mutates)


def posix_rename(source: bytes, path: bytes) -> Request:
    """Rename that replaces atomically: answered by Status."""
    return extended(b"posix-rename@openssh.com", string(source) + string(path), mutates=True)


def hardlink(source: bytes, path: bytes) -> Request:
    """A second name for a file: answered by Status."""
    return extended(b"hardlink@openssh.com", string(source) + string(path), mutates=True)


def limits() -> Request:
    """Answered by Extended with four 64-bit numbers: packet, read, write, handles."""
    return extended(b"limits@openssh.com", b"", mutates=False)


def statvfs(path: bytes) -> Request:
    """Answered by Extended with eleven 64-bit numbers."""
    return extended(b"statvfs@openssh.com", string(path), mutates=False)


def copy_data(source: bytes, offset: int, length: int, handle: bytes, at: int) -> Request:
    """Copy `length` bytes of the open file `source`, from `offset` on, to offset `at` of `handle`.

    Answered by Status, EOF if `source` ends before. No length is 0, which would mean all of it.
    """
    assert length > 0
    read = string(source) + pack(">QQ", offset, length)
    return extended(b"copy-data", read + string(handle) + pack(">Q", at), mutates=True)
