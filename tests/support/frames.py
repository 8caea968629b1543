"""SFTP packets from the server's side: requests taken apart, replies put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack, unpack_from
from typing import NamedTuple

from skynet.sftp import wire
from skynet.sftp.wire import Attrs

KINDS = {
    wire.INIT: "INIT",
    wire.OPEN: "OPEN",
    wire.CLOSE: "CLOSE",
    wire.READ: "READ",
    wire.WRITE: "WRITE",
    wire.LSTAT: "LSTAT",
    wire.FSTAT: "FSTAT",
    wire.SETSTAT: "SETSTAT",
    wire.FSETSTAT: "FSETSTAT",
    wire.OPENDIR: "OPENDIR",
    wire.READDIR: "READDIR",
    wire.REMOVE: "REMOVE",
    wire.MKDIR: "MKDIR",
    wire.RMDIR: "RMDIR",
    wire.REALPATH: "REALPATH",
    wire.STAT: "STAT",
    wire.RENAME: "RENAME",
    wire.READLINK: "READLINK",
    wire.SYMLINK: "SYMLINK",
}
VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201


class Asked(NamedTuple):
    """A request as a server sees it. `kind` is its name, or the extension's name.

    text: its first string, a path or a handle. packet: all of it, with its length field.
    """

    kind: str
    request_id: int
    text: bytes
    packet: bytes


class Frames:
    """Cuts a byte stream into packets, each with its length field."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + unpack_from(">I", self._buffer)[0]
            if len(self._buffer) < end:
                return
            packet = bytes(self._buffer[:end])
            del self._buffer[:end]
            yield packet


def asked(packet: bytes) -> Asked:
    """A request; `packet` has its length field."""
    kind, request_id = unpack_from(">BI", packet, 4)
    if kind == wire.INIT:
        return Asked("INIT", 0, b"", packet)
    text, rest = _string(packet, 9)
    if kind != wire.EXTENDED:
        return Asked(KINDS[kind], request_id, text, packet)
    argument = _string(packet, rest)[0] if len(packet) > rest else b""
    return Asked(text.decode(), request_id, argument, packet)


def written(request: Asked) -> tuple[int, bytes]:
    """(offset, data) of a WRITE."""
    at = 13 + len(request.text)
    return unpack_from(">Q", request.packet, at)[0], _string(request.packet, at + 8)[0]


def renamed(request: Asked) -> tuple[bytes, bytes]:
    """(source, path) of a rename, RENAME or of an extension."""
    at = 9 if request.kind == "RENAME" else 13 + len(request.kind)
    source, at = _string(request.packet, at)
    return source, _string(request.packet, at)[0]


def reply_id(packet: bytes) -> int:
    """The request that a reply answers; `packet` has its length field."""
    return int(unpack_from(">I", packet, 5)[0])


def reply_kind(packet: bytes) -> int:
    """The type of a reply; `packet` has its length field."""
    return packet[4]


def version(*extensions: bytes, number: int = 3) -> bytes:
    """A greeting that announces extensions, each in its version 1."""
    announced = b"".join(wire.string(name) + wire.string(b"1") for name in extensions)
    return _packet(pack(">BI", VERSION, number) + announced)


def status(request_id: int, code: int, message: bytes = b"") -> bytes:
    return _packet(pack(">BII", STATUS, request_id, code) + wire.string(message) + wire.string(b""))


def handle(request_id: int, text: bytes) -> bytes:
    return _packet(pack(">BI", HANDLE, request_id) + wire.string(text))


def data(request_id: int, content: bytes) -> bytes:
    return _packet(pack(">BI", DATA, request_id) + wire.string(content))


def attrs(request_id: int, found: Attrs) -> bytes:
    return _packet(pack(">BI", ATTRS, request_id) + wire.encode_attrs(found))


def names(request_id: int, listed: Sequence[tuple[bytes, Attrs]]) -> bytes:
    body = b"".join(
        wire.string(name) + wire.string(b"") + wire.encode_attrs(found) for name, found in listed
    )
    return _packet(pack(">BII", NAME, request_id, len(listed)) + body)


def limits(request_id: int, *, packet: int, read: int, write: int, handles: int) -> bytes:
    body = pack(">QQQQ", packet, read, write, handles)
    return _packet(pack(">BI", EXTENDED_REPLY, request_id) + body)


def _packet(body: bytes) -> bytes:
    return pack(">I", len(body)) + body


def _string(packet: bytes, offset: int) -> tuple[bytes, int]:
    end = offset + 4 + int(unpack_from(">I", packet, offset)[0])
    return packet[offset + 4 : end], end
