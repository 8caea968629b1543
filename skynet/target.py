"""Targets: the sftp:// URL that names where a mirror lives, taken apart and written again.

A URL with a password is refused, and no message here repeats one. Nothing here opens a connection.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from skynet.errors import ConfigError

TARGET_FORM = (
    "A target looks like sftp://me@host/absolute/path, "
    "or sftp://me@host/~/path for a path below the login's home."
)


class _Wrong(Exception):
    """What is wrong with a URL, as a clause that continues "the target is wrong:"."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the mirror lives.

    path: b"/absolute", or b"~/relative" to the login's home (b"~" alone is the home), normalised.
    user and port: None leaves them to ssh_config.
    """

    host: str
    path: bytes
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """The canonical sftp:// URL: percent-encoded, and never with a password."""
        user = "" if self.user is None else quote(self.user, safe="") + "@"
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        path = quote(self.path)
        if not path.startswith("/"):
            path = "/" + path
        elif path == "/~" or path.startswith("/~/"):
            path = "/%7E" + path[2:]  # a directory that is called "~", not the home
        return f"sftp://{user}{host}{port}{path}"


def parse_target(url: str) -> Target:
    """The target that an sftp:// URL names, its path decoded to bytes and normalised.

    Raises ConfigError, which says what is wrong and what is right, and repeats no password.
    """
    return _parse(url, path_if_missing="")


def parse_server(url: str) -> Target:
    """The same for an URL that need name no more than the server; its path is then "/"."""
    return _parse(url, path_if_missing="/")


def _parse(url: str, path_if_missing: str) -> Target:
    try:
        authority, slash, path = _without_scheme(url).partition("/")
        login, at, address = authority.rpartition("@")
        user = _user(login) if at else None
        host, port = _address(address)
        path = "/" + path if slash else path_if_missing
        if path:
            return Target(host, _remote_path(path), user, port)
        why = "it names no path"
    except _Wrong as wrong:
        why = str(wrong)
    except UnicodeError:
        why = "it is not valid UTF-8"
    raise ConfigError(f'the target "{printable(redacted(url))}" is wrong: {why}. {TARGET_FORM}')


def _without_scheme(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() == "sftp":
        return rest
    if mark and scheme.lower() in ("scp", "ssh"):
        raise _Wrong(f"skynet speaks SFTP; write sftp://{printable(redacted(rest))}")
    # Two characters at least: a single one is a drive letter, not a host.
    scp = re.fullmatch(r"(?!sftp:)([^\s:/@\\]+@)?([\w.-]{2,}):(?!//)([^\\@]*)", url)
    if scp:
        login, host, path = scp.groups(default="")
        rooted = path if path.startswith("/") else "/~/" + path.removeprefix("~").lstrip("/")
        shown = quote(rooted, errors="surrogateescape")
        raise _Wrong(f"it is not a URL; write sftp://{login}{host}{shown}")
    raise _Wrong("it does not begin with sftp://")


def printable(text: str) -> str:
    """`text` with every character that a terminal would obey or lose written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def redacted(text: str) -> str:
    """`text` without what may be a URL's password; it hides too much rather than too little."""
    scheme, mark, rest = text.partition("://")
    if not mark or ":" in scheme:
        scheme, mark, rest = "", "", text
    before, colon, after = rest.partition(":")
    if "@" not in after:
        return text
    return f"{scheme}{mark}{before}{colon}***@{after.rpartition('@')[2]}"


def _decoded(text: str) -> bytes:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _Wrong("a % is not followed by two hexadecimal digits; write %25 for a % itself")
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def _user(login: str) -> str:
    if ":" in login:
        raise _Wrong(
            "it holds a password, which lists of processes and shell histories would show; "
            "leave it out, and see `skynet guide passwords` for safe ways to give it"
        )
    user = _decoded(login).decode("utf-8")
    if not user.isprintable() or not re.match(r"[^\s-]", user):
        raise _Wrong("its user name is empty, or has characters that no user name has")
    return user


def _address(address: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `[ipv6]` or `[ipv6]:port`."""
    parts = re.fullmatch(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", address)
    if parts is None or ":" in (parts["port"] or ""):
        raise _Wrong("an IPv6 address stands in brackets, as in sftp://me@[::1]:22/path")
    host = _ipv6(parts["ipv6"]) if parts["name"] is None else parts["name"]
    if parts["name"] is not None and not re.fullmatch(r"\w[\w.-]*", host):
        raise _Wrong("its host is missing, or has characters that no host name has")
    if parts["port"] is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", parts["port"]) or not 1 <= int(parts["port"]) <= 65535:
        raise _Wrong("its port is not a number from 1 to 65535")
    return host, int(parts["port"])


def _ipv6(literal: str) -> str:
    address, percent, zone = literal.replace("%25", "%", 1).partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise _Wrong("what stands in brackets is not an IPv6 address") from None
    if percent and not re.fullmatch(r"[\w.-]+", zone):
        raise _Wrong("the zone of its IPv6 address has characters that no interface has")
    return address + percent + zone


def _remote_path(raw: str) -> bytes:
    if "?" in raw or "#" in raw:
        raise _Wrong("its path has a ? or #; write %3F or %23 where a name really holds it")
    decoded = _decoded(raw)
    names = [name for name in decoded.split(b"/") if name not in (b"", b".")]
    if b".." in names or b"\0" in decoded:
        raise _Wrong('its path holds ".." or a NUL; write the directory that is meant')
    # Only an unencoded "~" means the home, so that a directory of that name stays reachable.
    is_home = raw == "/~" or raw.startswith("/~/")
    return (b"" if is_home else b"/") + b"/".join(names)
