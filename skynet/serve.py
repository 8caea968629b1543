"""`skynet serve`: an SFTP server over one directory, for a first try or between own machines.

It speaks SFTP and nothing else: no shell, no command, no forwarding. This room decides what is
served, where, and to whom; `sftpserver` does the serving. The library for it comes with the
`serve` extra and is imported only when a server starts.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import secrets
import socket
import stat
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from skynet.errors import UsageError
from skynet.state import make_directories

if TYPE_CHECKING:
    from skynet.sftpserver import Guests, HostKey

PASSWORD_BYTES = 24  # of randomness in a generated password
MAX_KEYS_FILE = 1 << 20
SSH_PORT = 22
MAX_PORT = 65535


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """What to serve, where, and to whom.

    port 0 takes any free one. Without `authorized_keys` and `password` a password is generated.
    `state` is the directory that keeps the server's host key from one run to the next.
    """

    directory: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    user: str = "skynet"
    authorized_keys: Path | None = None
    password: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Announcement:
    """What a client must know to connect.

    url ends with the "/" that is the served directory. fingerprint is "SHA256:...", known_hosts
    one line for such a file. password is None unless it was generated for this run.
    """

    url: str
    user: str
    fingerprint: str
    known_hosts: str
    loopback_only: bool
    password: str | None = dataclasses.field(default=None, repr=False)


def serve(
    options: ServeOptions,
    announce: Callable[[Announcement], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve until `stop` is set, or for ever; `announce` is called once clients can connect.

    Raises UsageError when the options cannot be served.
    """
    import asyncio  # slow to load, and needed by nobody else

    try:
        from skynet import sftpserver
    except ModuleNotFoundError as error:
        if error.name != "asyncssh":
            raise
        raise UsageError(
            "skynet serve needs the asyncssh library, which is not installed: "
            "pip install 'skynet-mirror[serve]'"
        ) from error
    directory = _served_directory(options)
    guests = _guests(options)
    host_key = _host_key(options.state)
    with _listening_socket(options.host, options.port) as listener:
        told = _announcement(options, listener, host_key, guests)
        asyncio.run(
            sftpserver.run(directory, guests, host_key, listener, lambda: announce(told), stop)
        )


def _served_directory(options: ServeOptions) -> str:
    """The real path of the directory; UsageError unless it can be served without harm."""
    try:
        directory = os.path.realpath(options.directory, strict=True)
    except OSError as error:
        raise UsageError(
            f"Cannot serve {options.directory}: {error.strerror}. Name a directory that exists."
        ) from error
    if not os.path.isdir(directory):
        raise UsageError(
            f"Cannot serve {options.directory}: it is not a directory. Name one that is."
        )
    _require_outside(directory, "state directory", options.state)
    if options.authorized_keys is not None:
        _require_outside(directory, "file of authorized keys", options.authorized_keys)
    return directory


def _require_outside(directory: str, label: str, path: Path) -> None:
    """Refuse to serve what decides who may log in: every client could change it."""
    if Path(os.path.realpath(path)).is_relative_to(directory):
        raise UsageError(
            f"The {label} {path} lies inside the served directory {directory}, where every "
            "client could change it. Name one outside."
        )


def _guests(options: ServeOptions) -> Guests:
    from skynet.sftpserver import Guests

    if not options.user:
        raise UsageError("The user name is empty. Name the user that may log in.")
    if options.password == "":
        raise UsageError("The password is empty. Give one, or leave it out to have one made.")
    password = options.password
    if password is None and options.authorized_keys is None:
        password = secrets.token_urlsafe(PASSWORD_BYTES)
    return Guests(options.user, _authorized_keys(options.authorized_keys), password)


def _authorized_keys(path: Path | None) -> str:
    """The text of the file, checked to hold a key; "" without a file."""
    from skynet.sftpserver import require_keys

    if path is None:
        return ""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_KEYS_FILE)
        require_keys(text)
    except OSError as error:
        raise UsageError(
            f"Cannot read the authorized keys in {path}: {error.strerror}. Name a file of "
            "public keys, one a line."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} cannot be used as authorized keys: {error}. Each line should look like "
            "'ssh-ed25519 AAAA... name', as in the .pub file of a key."
        ) from error
    return text


def _host_key(state: Path) -> HostKey:
    """The server's own key, made at the first run and kept where only its owner can read it."""
    from skynet.sftpserver import HostKey

    path = state / "serve" / "host_key"
    try:
        if not path.exists():
            _write_secret(path, HostKey.generate().private)
        _require_private(path)
        return HostKey.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"Cannot keep a host key in {path}: {error.strerror}. Choose another --state-dir."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} is not a host key ({error}). Delete it to have a new one made; "
            "clients must then trust the server anew."
        ) from error


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file for its owner alone, whole or not at all."""
    make_directories(path.parent)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _require_private(path: Path) -> None:
    # Windows keeps such permissions in access lists, which mode bits do not show.
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(
            f"The host key {path} can be read by others on this machine. Delete it to have a new "
            f"one made, or run chmod 600 {path} if nobody can have copied it."
        )


def _listening_socket(host: str, port: int) -> socket.socket:
    """One socket, on the first address of `host`: several would each get a port of their own."""
    if not 0 <= port <= MAX_PORT:
        raise UsageError(
            f"There is no port {port}. Choose one up to {MAX_PORT}; 0 takes a free one."
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"Cannot listen on {host} port {port}: {error}. "
            "Choose another --host or --port; port 0 takes a free one."
        ) from error


def _announcement(
    options: ServeOptions, listener: socket.socket, host_key: HostKey, guests: Guests
) -> Announcement:
    bound, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(bound.partition("%")[0])
    # A wildcard address is no name to connect to.
    host = socket.gethostname() if address.is_unspecified else options.host
    location = f"[{host}]" if ":" in host else host
    label = host if port == SSH_PORT else f"[{host}]:{port}"
    return Announcement(
        url=f"sftp://{urllib.parse.quote(options.user, safe='')}@{location}:{port}/",
        user=options.user,
        fingerprint=host_key.fingerprint,
        known_hosts=f"{label} {host_key.public}",
        loopback_only=address.is_loopback,
        password=guests.password if options.password is None else None,
    )
