"""The SFTP server behind `skynet serve`: who may log in, and files confined to one directory.

Every path of a client is confined, symbolic links included: a link may be stored and read back
with any target, but nothing is reached through one that leads outside.

The confinement rests on one fact: a path is resolved and used within one step of the event loop,
so no client can swap a directory for a link between the look and the act.

asyncssh comes with the `serve` extra; this is the only room that imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import io
import os
import posixpath
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self, cast

import asyncssh

MAX_CONNECTIONS = 64
MAX_WRONG_PASSWORDS = 6  # per connection
FAIR_SHARE = 8 << 20  # bytes that one channel writes before the others get a turn
LOGIN_SECONDS = 60.0
KEEPALIVE_SECONDS = 30.0
CLOSE_SECONDS = 5.0
STOP_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Guests:
    """The one user, and the keys (text of authorized_keys) or the password that let that user in.

    Empty keys or a password of None switch that way in off.
    """

    user: str
    keys: str
    password: str | None = dataclasses.field(repr=False)

    def admits(self, user: str, password: str) -> bool:
        """Whether both are right, in a time that tells nothing about how wrong they are."""
        if self.password is None:
            return False
        right_user = hmac.compare_digest(user.encode(), self.user.encode())
        right_password = hmac.compare_digest(password.encode(), self.password.encode())
        return right_user & right_password


@dataclasses.dataclass(frozen=True)
class HostKey:
    """A server's own key: private as the bytes of its file, public as "ssh-ed25519 AAAA...".

    fingerprint is "SHA256:...".
    """

    private: bytes = dataclasses.field(repr=False)
    public: str
    fingerprint: str

    @classmethod
    def generate(cls) -> Self:
        """A new ed25519 key."""
        return cls.parse(asyncssh.generate_private_key("ssh-ed25519").export_private_key())

    @classmethod
    def parse(cls, private: bytes) -> Self:
        """The key in the bytes of a private key file; ValueError when they hold none."""
        key = asyncssh.import_private_key(private)
        algorithm, blob = key.export_public_key().decode("ascii").split()[:2]
        return cls(private, f"{algorithm} {blob}", key.get_fingerprint("sha256"))


def require_keys(text: str) -> None:
    """Raise ValueError unless the text of an authorized_keys file can let somebody in here."""
    if not text:  # which the library takes
        raise ValueError("it is empty")
    asyncssh.import_authorized_keys(text)
    for number, line in enumerate(text.splitlines(), start=1):
        options = line.partition(" ssh-")[0]
        if not line.startswith("#") and 'command="' in options:
            # The library would run it in place of SFTP, and no command is ever run here.
            raise ValueError(f"line {number} forces a command, and skynet serve runs none")


async def run(
    directory: str,
    guests: Guests,
    host_key: HostKey,
    listener: socket.socket,
    ready: Callable[[], None],
    stop: threading.Event | None,
) -> None:
    """Serve the real path `directory` on a bound socket until `stop` is set, or for ever.

    `ready` is called once when clients can connect.
    """
    connections: set[asyncssh.SSHServerConnection] = set()
    acceptor = await asyncssh.listen(
        sock=listener,
        config=None,
        server_factory=lambda: _Door(guests, connections),
        server_host_keys=[asyncssh.import_private_key(host_key.private)],
        sftp_factory=lambda channel: _Files(channel, directory),
        sftp_version=3,
        encoding=None,
        allow_pty=False,
        agent_forwarding=False,
        gss_host=None,
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=KEEPALIVE_SECONDS,
    )
    try:
        ready()
        while stop is None or not stop.is_set():
            await asyncio.sleep(STOP_POLL_SECONDS)
    finally:
        acceptor.close()
        await _hang_up(connections)


async def _hang_up(connections: set[asyncssh.SSHServerConnection]) -> None:
    leaving = [asyncio.ensure_future(each.wait_closed()) for each in connections]
    for each in list(connections):
        each.abort()
    if leaving:
        await asyncio.wait(leaving, timeout=CLOSE_SECONDS)


class _Door(asyncssh.SSHServer):
    """Lets guests in; all that SSH offers besides SFTP is refused by the base class."""

    def __init__(self, guests: Guests, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._guests = guests
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None
        self._wrong_passwords = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)
        if len(self._connections) > MAX_CONNECTIONS:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # it is given for a link that broke, which is all the same here
        if self._connection is not None:
            self._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        if self._guests.keys and username == self._guests.user and self._connection is not None:
            keys = asyncssh.import_authorized_keys(self._guests.keys)
            self._connection.set_authorized_keys(keys)
        return True

    def password_auth_supported(self) -> bool:
        return self._guests.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        if self._guests.admits(username, password):
            return True
        self._wrong_passwords += 1
        if self._wrong_passwords >= MAX_WRONG_PASSWORDS:
            raise asyncssh.PermissionDenied("Too many wrong passwords")
        return False


class _Files(asyncssh.SFTPServer):
    """One channel's view of the served directory, which is its "/".

    What is not defined here goes through `map_path`, so that an operation which a later asyncssh
    adds is confined too.
    """

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: str) -> None:
        super().__init__(channel, chroot=os.fsencode(root))
        self._root = root
        self._written = 0

    def map_path(self, path: bytes) -> bytes:
        """The local path that a client's path leads to, links followed, never outside."""
        place = self._place(path)
        return os.fsencode(self._inside(place) if os.path.lexists(place) else place)

    def _place(self, path: bytes) -> str:
        """The local path of the name itself; only links above it are followed."""
        *above, last = ["", *_names(path)]
        if not last:
            return self._root
        return os.path.join(self._inside(os.path.join(self._root, *above)), last)

    def _inside(self, place: str) -> str:
        """The real path of what exists at `place`; refused when it lies outside."""
        # strict, for realpath otherwise returns loops of links unresolved, which may lead anywhere.
        real = os.path.realpath(place, strict=True)
        if real != self._root and not real.startswith(self._root.rstrip(os.sep) + os.sep):
            raise asyncssh.SFTPPermissionDenied("A link on this path leads outside")
        return real

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a regular file, as asyncssh does it."""
        local = self.map_path(path)
        # Opening a pipe could block, and with it the whole server.
        if os.path.exists(local) and not os.path.isfile(local):
            raise asyncssh.SFTPPermissionDenied("Only regular files can be opened")
        return super().open(path, pflags, attrs)

    def write(self, file_obj: object, offset: int, data: bytes) -> int | Awaitable[int]:
        """Write all of `data`: a raw file may take less at a time, as on a full disk."""
        file = cast(io.FileIO, file_obj)
        file.seek(offset)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        self._written += len(data)
        if self._written < FAIR_SHARE:
            return len(data)
        self._written = 0
        return _after_others(len(data))

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return _attributes(os.stat(self.map_path(path)))

    def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return _attributes(os.lstat(self._place(path)))

    def fstat(self, file_obj: object) -> asyncssh.SFTPAttrs:
        return _attributes(os.fstat(cast(io.FileIO, file_obj).fileno()))

    def lsetstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> Awaitable[None] | None:
        if os.path.islink(self._place(path)):
            raise asyncssh.SFTPOpUnsupported("Links have no attributes of their own here")
        return super().setstat(path, attrs)

    def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        return _Listing(os.fsdecode(self.map_path(path)))

    def realpath(self, path: bytes) -> bytes:
        """The client's path with links resolved; a path that leads nowhere is only tidied."""
        try:
            real = self._inside(self._place(path))
        except FileNotFoundError:
            return b"/" + os.fsencode("/".join(_names(path)))
        inner = os.path.relpath(real, self._root).replace(os.sep, "/")
        return b"/" + os.fsencode("" if inner == "." else inner)

    def readlink(self, path: bytes) -> bytes:
        return os.fsencode(os.readlink(self._place(path)))

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        """Make a link at `newpath` with the target `oldpath`, kept to the byte."""
        os.symlink(os.fsdecode(oldpath), self._place(newpath))

    def remove(self, path: bytes) -> None:
        os.remove(self._place(path))

    def rmdir(self, path: bytes) -> None:
        place = self._place(path)
        if place == self._root:
            raise asyncssh.SFTPPermissionDenied("The served directory itself stays")
        os.rmdir(place)

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        place, wanted = self._place(oldpath), self._place(newpath)
        if os.path.lexists(wanted):
            raise asyncssh.SFTPFileAlreadyExists("The new name is taken")
        os.rename(place, wanted)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        os.replace(self._place(oldpath), self._place(newpath))

    def format_user(self, uid: int | None) -> str:
        return str(uid)  # a look-up of names for each entry would be slow and tell of accounts

    def format_group(self, gid: int | None) -> str:
        return str(gid)


class _Listing:
    """The entries of one directory, even when it is moved or replaced while it is read."""

    def __init__(self, directory: str) -> None:
        self._open = contextlib.ExitStack()
        place: str | int = directory
        if sys.platform != "win32":
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            self._open.callback(os.close, place)
        self._entries = self._open.enter_context(os.scandir(place))

    def __del__(self) -> None:
        # asyncssh drops a listing without a word when its client closes it early or leaves.
        self._open.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> asyncssh.SFTPName:
        for entry in self._entries:
            try:
                attributes = _attributes(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue  # it was removed since the directory was read
            return asyncssh.SFTPName(os.fsencode(entry.name), attrs=attributes)
        raise StopAsyncIteration


def _names(path: bytes) -> list[str]:
    """The names of a client's path from the root down, with "." and ".." worked out."""
    if os.sep != "/":
        path = path.replace(os.fsencode(os.sep), b"/")
    tidy = posixpath.normpath(posixpath.join(b"/", path))
    if b"\0" in tidy or (os.name == "nt" and b":" in tidy):
        # On Windows a colon names a drive or a hidden stream.
        raise asyncssh.SFTPInvalidFilename("The path holds a character that no name can have")
    return [os.fsdecode(name) for name in tidy.split(b"/") if name]


def _attributes(of: os.stat_result) -> asyncssh.SFTPAttrs:
    """What SFTP tells of a file; asyncssh itself would look up the owner's name each time."""
    return asyncssh.SFTPAttrs(
        size=of.st_size,
        uid=of.st_uid,
        gid=of.st_gid,
        permissions=of.st_mode,
        atime=int(of.st_atime),
        mtime=int(of.st_mtime),
        nlink=of.st_nlink,
    )


async def _after_others(result: int) -> int:
    """`result`, once the event loop has served whoever else waits."""
    await asyncio.sleep(0)
    return result
