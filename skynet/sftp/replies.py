"""What an SFTP version 3 server answers, as values: parsing, and checks of what was expected.

A length read from a server is checked before it is used; whatever does not fit raises
ProtocolError. A failed Status becomes RequestError where the caller needed success. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, error, unpack_from
from typing import NamedTuple

from skynet.errors import ProtocolError, RequestError
from skynet.sftp import wire
from skynet.sftp.wire import Attrs

MAX_PACKET = 1 << 20  # longest reply accepted; OpenSSH never sends more than 256 KiB

_VERSION, _STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = 0, 1, 2, 3, 4, 5
UNSUPPORTED = 8

STATUS_CODES = {
    EOF: "end-of-file",
    NO_SUCH_FILE: "no-such-file",
    PERMISSION_DENIED: "permission-denied",
    FAILURE: "failure",
    BAD_MESSAGE: "bad-message",
    6: "no-connection",
    7: "connection-lost",
    UNSUPPORTED: "unsupported",
}

Named = tuple[bytes, Attrs]

_INT = Struct(">I")
_HEAD = Struct(">BII")  # type, request id, and the code if it is a status
_READ_ONLY = 1  # among the flags of `statvfs`


class Status(NamedTuple):
    """The answer to a request that returns nothing else, or failed."""

    code: int
    message: bytes


class Handle(NamedTuple):
    """An open file or directory."""

    handle: bytes


class Data(NamedTuple):
    """Bytes read from a file."""

    data: bytes


class Names(NamedTuple):
    """Part of a listing, or the answer to REALPATH and READLINK: names as the server spelt them."""

    names: list[Named]


class Extended(NamedTuple):
    """The answer to an extended request, its body unparsed."""

    body: bytes


class Space(NamedTuple):
    """What an ordinary user may still do: write so many bytes; make files; change anything."""

    free: int
    has_files: bool  # also where the file system does not count them
    is_read_only: bool


Reply = Status | Handle | Data | Names | Attrs | Extended

DONE = Status(OK, b"")
UNANSWERED: Reply = Status(FAILURE, b"not answered")  # stands for a reply that is still to come


def parse_limits(body: bytes) -> tuple[int, int, int, int]:
    """(longest packet, longest read, longest write, most open handles); 0 is unlimited."""
    packet, read_length, write_length, handles = _unpack(">QQQQ", body, 0)
    return packet, read_length, write_length, handles


def parse_space(body: bytes) -> Space:
    """What is left of a file system, from the answer to `statvfs`."""
    _, unit, _, _, available, files, _, files_left, _, flags, _ = _unpack(">11Q", body, 0)
    return Space(unit * available, not files or files_left > 0, bool(flags & _READ_ONLY))


def parse_version(packet: bytes) -> dict[bytes, bytes]:
    """The extensions a server announces in its VERSION packet (without the length field)."""
    kind, version = _unpack(">BI", packet, 0)
    if kind != _VERSION or version < wire.VERSION:
        raise ProtocolError(
            f"The server answered the SFTP greeting with packet type {kind}, version {version}; "
            f"version {wire.VERSION} is needed."
        )
    extensions, offset = {}, 5
    while offset < len(packet):
        key, offset = _string(packet, offset)
        value, offset = _string(packet, offset)
        extensions[key] = value
    return extensions


def _unpack(layout: str, packet: bytes, offset: int) -> tuple[int, ...]:
    try:
        return unpack_from(layout, packet, offset)
    except error:
        raise ProtocolError("The server sent an SFTP packet that ends too early.") from None


def _string(packet: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = _unpack(">I", packet, offset)
    end = offset + 4 + length
    if end > len(packet):
        raise ProtocolError("The server sent a string longer than the SFTP packet that holds it.")
    return packet[offset + 4 : end], end


# What OpenSSH sends for every file: size, owner, mode and times.
_USUAL_FLAGS = wire.HAS_SIZE | wire.HAS_OWNER | wire.HAS_MODE | wire.HAS_TIMES
_USUAL_ATTRS = Struct(">IQIIIII")


def _attrs(packet: bytes, offset: int) -> tuple[Attrs, int]:
    if len(packet) - offset >= _USUAL_ATTRS.size:
        flags, size, _, _, mode, atime, mtime = _USUAL_ATTRS.unpack_from(packet, offset)
        if flags == _USUAL_FLAGS:
            return Attrs(size, mode, atime, mtime), offset + _USUAL_ATTRS.size
    return _unusual_attrs(packet, offset)


def _unusual_attrs(packet: bytes, offset: int) -> tuple[Attrs, int]:
    (flags,) = _unpack(">I", packet, offset)
    offset += 4
    size = mode = atime = mtime = None
    if flags & wire.HAS_SIZE:
        (size,) = _unpack(">Q", packet, offset)
        offset += 8
    if flags & wire.HAS_OWNER:
        offset += 8
    if flags & wire.HAS_MODE:
        (mode,) = _unpack(">I", packet, offset)
        offset += 4
    if flags & wire.HAS_TIMES:
        atime, mtime = _unpack(">II", packet, offset)
        offset += 8
    if flags & wire.HAS_EXTENDED:
        offset = _skip_extended(packet, offset)
    return Attrs(size, mode, atime, mtime), offset


def _skip_extended(packet: bytes, offset: int) -> int:
    (count,) = _unpack(">I", packet, offset)
    offset += 4
    for _ in range(2 * count):  # ends at the packet's end at the latest: _string checks it
        _, offset = _string(packet, offset)
    return offset


def _names(packet: bytes) -> Names:
    (count,) = _unpack(">I", packet, 5)
    offset, names = 9, list[Named]()
    number_at, usual_at, make = _INT.unpack_from, _USUAL_ATTRS.unpack_from, tuple.__new__
    try:
        for _ in range(count):
            start = offset + 4
            end = start + number_at(packet, offset)[0]
            # The `ls -l` line that follows is nothing anybody may rely on.
            offset = end + 4 + number_at(packet, end)[0]
            flags, size, _, _, mode, atime, mtime = usual_at(packet, offset)
            if flags == _USUAL_FLAGS:
                attrs = make(Attrs, (size, mode, atime, mtime))
                offset += 32
            else:
                attrs, offset = _attrs(packet, offset)
            names.append((packet[start:end], attrs))
    except error:
        return _unusual_names(packet, count)
    return Names(names)


def _unusual_names(packet: bytes, count: int) -> Names:
    """A listing whose last attributes are shorter than OpenSSH's, or that ends too early."""
    offset, names = 9, []
    for _ in range(count):
        text, offset = _string(packet, offset)
        _, offset = _string(packet, offset)
        attrs, offset = _attrs(packet, offset)
        names.append((text, attrs))
    return Names(names)


def parse_reply(packet: bytes) -> tuple[int, Reply]:
    """(request id, reply) of one packet without its length field."""
    if len(packet) >= _HEAD.size:  # nearly all that comes are statuses, and nearly all of them OK
        kind, request_id, code = _HEAD.unpack_from(packet)
        if kind == _STATUS and code == OK:
            return request_id, DONE
    kind, request_id = _unpack(">BI", packet, 0)
    if kind == _STATUS:
        (code,) = _unpack(">I", packet, 5)
        # Version 3 requires a message; some servers leave it out.
        message = _string(packet, 9)[0] if len(packet) > 9 else b""
        return request_id, Status(code, message)
    if kind == _HANDLE:
        return request_id, Handle(_string(packet, 5)[0])
    if kind == _DATA:
        return request_id, Data(_string(packet, 5)[0])
    if kind == _NAME:
        return request_id, _names(packet)
    if kind == _ATTRS:
        return request_id, _attrs(packet, 5)[0]
    if kind == _EXTENDED_REPLY:
        return request_id, Extended(packet[5:])
    raise ProtocolError(f"The server sent an SFTP packet of unknown type {kind}.")


class Packets:
    """Cuts a byte stream into packets (without their length fields)."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every packet that is complete with `data`; consume all of it before the next call."""
        buffer = self._buffer + data if self._buffer else data
        offset, end = 0, len(buffer)
        while end - offset >= 4:
            (length,) = _INT.unpack_from(buffer, offset)
            if not 5 <= length <= MAX_PACKET:
                raise ProtocolError(
                    f"The server sent an SFTP packet of {length} bytes; "
                    "something else than SFTP may be writing to the channel "
                    "(a login script that prints, for instance)."
                )
            if end - offset - 4 < length:
                break
            yield buffer[offset + 4 : offset + 4 + length]
            offset += 4 + length
        self._buffer = buffer[offset:]


def expect_ok(reply: Reply) -> None:
    """Pass on Status OK; raise RequestError for a failure."""
    if not isinstance(reply, Status):
        raise ProtocolError(f"The server answered with {type(reply).__name__}, not a status.")
    if reply.code != OK:
        raise refusal(reply)


def expect_handle(reply: Reply) -> bytes:
    """The handle of a Handle reply."""
    if isinstance(reply, Handle):
        return reply.handle
    raise _unexpected(reply)


def expect_attrs(reply: Reply) -> Attrs:
    """The attributes of an Attrs reply."""
    if isinstance(reply, Attrs):
        return reply
    raise _unexpected(reply)


def expect_data(reply: Reply) -> bytes:
    """The bytes of a Data reply; b"" at the end of the file."""
    if isinstance(reply, Data):
        return reply.data
    if isinstance(reply, Status) and reply.code == EOF:
        return b""
    raise _unexpected(reply)


def expect_names(reply: Reply) -> list[Named]:
    """The names of a Names reply; none at the end of a listing."""
    if isinstance(reply, Names):
        return reply.names
    if isinstance(reply, Status) and reply.code == EOF:
        return []
    raise _unexpected(reply)


def is_status(reply: Reply, code: int) -> bool:
    """Whether the reply is a Status of this code."""
    return isinstance(reply, Status) and reply.code == code


def refusal(status: Status) -> RequestError:
    """The error that a failed Status stands for, with the server's own words."""
    code = STATUS_CODES.get(status.code, f"status-{status.code}")
    text = status.message[:200].decode("utf-8", "backslashreplace")
    words = "".join(c if c.isprintable() else "?" for c in text)
    return RequestError(words or code, code)


def _unexpected(reply: Reply) -> ProtocolError | RequestError:
    if isinstance(reply, Status) and reply.code != OK:
        return refusal(reply)
    return ProtocolError(f"The server answered with {type(reply).__name__}, which does not fit.")
