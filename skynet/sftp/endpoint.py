"""Where to connect: an endpoint as it was asked for, and the hops that ssh_config makes of it.

An Endpoint is what the user named. `route` turns it into hops, the SSH servers to log in to one
after another: the jump hosts of ProxyJump first, the server itself last.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skynet.errors import ConfigError
from skynet.sftp import hostkeys, sshconfig
from skynet.sftp.dial import one_line

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
# A chain of jump hosts longer than this is taken for a loop in ssh_config.
MAX_HOPS = 8

Options = Mapping[str, str | list[str] | None]
# Text of an ssh_config and a host, to the options that hold for it.
Lookup = Callable[[str, str], Options]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as the user names it; what is None comes from ssh_config, then from defaults.

    host: a name, an address or an alias of ssh_config. identity: the only key file to use.
    known_hosts: the only file of host keys. password_command: argv of a program that prints the
    password, run without a shell. password_file: holds the password, readable by its owner only.
    connect_timeout: seconds for each step (name and TCP, handshake, each login, each channel).
    ssh_config: the only configuration file; None is ~/.ssh/config, then /etc/ssh/ssh_config.
    """

    host: str
    user: str | None = None
    port: int | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    password_command: tuple[str, ...] = field(default=(), repr=False)
    password_file: Path | None = None
    compression: bool = False
    connect_timeout: float = 15.0
    ssh_config: Path | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH server to log in to.

    url: as the user would write it. key_name: its name in known_hosts. strict: the identity was
    named by the user, so trouble with it is an error. only_identities: offer no other keys.
    agent: the agent's socket when ssh_config names one, "none" for no agent.
    """

    url: str
    host: str
    port: int
    user: str
    key_name: str
    identities: tuple[Path, ...]
    strict: bool
    only_identities: bool
    known_hosts: tuple[Path, ...]
    trust_command: str
    compression: bool
    family: socket.AddressFamily
    agent: str | None
    proxy_command: str | None

    @property
    def description(self) -> str:
        """user@host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Name:
    """A server as the command line, the configuration or ProxyJump writes it."""

    host: str
    user: str | None
    port: int | None

    @property
    def url(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sftp://{user}{host}" + (f":{self.port}" if self.port else "")


def route(endpoint: Endpoint, lookup: Lookup) -> list[Hop]:
    """The hops to the endpoint, nearest first, the server itself last.

    Raises ConfigError when ssh_config cannot be followed; the message names file and line, or
    the key and its value.
    """
    text = sshconfig.load(endpoint.ssh_config)
    name = _Name(endpoint.host, endpoint.user, endpoint.port)
    return _Router(endpoint, text, lookup).hops(name, target=True)


class _Router:
    """Follows ssh_config from one server to the jump hosts before it."""

    def __init__(self, endpoint: Endpoint, config: sshconfig.Config, lookup: Lookup) -> None:
        self._endpoint = endpoint
        self._config = config
        self._lookup = lookup

    def hops(self, name: _Name, target: bool = False, depth: int = 1) -> list[Hop]:
        """The hops to `name`. Only the first of several jump hosts may have its own before it."""
        if depth > MAX_HOPS:
            raise _config_error(f"ProxyJump leads through more than {MAX_HOPS} hosts")
        options = self._options(name)
        jumps = _jumps(options)
        hop = self._hop(name, options, target)
        if not jumps:
            return [hop]
        first, *rest = [_parse_jump(jump) for jump in jumps]
        before = self.hops(first, depth=depth + len(jumps))
        return [*before, *(self._hop(jump, self._options(jump), False) for jump in rest), hop]

    def _options(self, name: _Name) -> Options:
        _check(name)
        return self._config.options(name.host, name.user, name.port, self._lookup)

    def _hop(self, name: _Name, options: Options, target: bool) -> Hop:
        host = _text(options, "hostname") or name.host
        port = _port(options)
        user = _text(options, "user") or _local_user()
        identities, strict = self._identities(options, target)
        files = _known_hosts(self._endpoint.known_hosts, options)
        return Hop(
            url=name.url,
            host=host,
            port=port,
            user=user,
            key_name=_text(options, "hostkeyalias").lower() or hostkeys.host_name(host, port),
            identities=identities,
            strict=strict,
            only_identities=strict or _yes(options, "identitiesonly"),
            known_hosts=files,
            trust_command=_trust_command(name.url, self._endpoint.known_hosts),
            compression=self._endpoint.compression or _yes(options, "compression"),
            family=_FAMILIES.get(_text(options, "addressfamily").lower(), socket.AF_UNSPEC),
            agent=_agent(options),
            proxy_command=_proxy_command(options, host, user),
        )

    def _identities(self, options: Options, target: bool) -> tuple[tuple[Path, ...], bool]:
        """The key files of a hop, and whether the user named them for this run.

        A jump host uses what ssh_config gives it, and only else the key that was named.
        """
        configured = [path for path in _list(options, "identityfile") if path.lower() != "none"]
        if self._endpoint.identity is not None and (target or not configured):
            return (self._endpoint.identity.expanduser(),), True
        if configured:
            return tuple(Path(path).expanduser() for path in configured), False
        return tuple(Path.home() / ".ssh" / name for name in DEFAULT_KEYS), False


_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def _config_error(problem: str) -> ConfigError:
    return ConfigError(f"ssh_config: {problem}. Correct it there.", "ssh-config")


def _check(name: _Name) -> None:
    """Refuse names that could smuggle a line into the configuration."""
    for value in (name.host, name.user or ""):
        if value.startswith("-") or any(ord(char) < 33 or char in "'\"\\`$" for char in value):
            raise ConfigError(
                f"{one_line(repr(value))} is no usable host or user name. Correct the target.",
                "bad-name",
            )


def _text(options: Options, key: str) -> str:
    value = options.get(key)
    return value if isinstance(value, str) else ""


def _list(options: Options, key: str) -> list[str]:
    value = options.get(key)
    return value if isinstance(value, list) else []


def _yes(options: Options, key: str) -> bool:
    return _text(options, key).lower() == "yes"


def _port(options: Options) -> int:
    text = _text(options, "port") or str(hostkeys.DEFAULT_PORT)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise _config_error(f"Port {one_line(text)!r} is no number from 1 to 65535")
    return int(text)


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise ConfigError(
            "the name of the local user is unknown, so the user to log in as must be given: "
            "sftp://USER@HOST/...",
            "no-user",
        ) from error


def _known_hosts(named: Path | None, options: Options) -> tuple[Path, ...]:
    """The files of host keys, the user's first; a file that was named is the only one."""
    if named is not None:
        return (named.expanduser(),)
    user = _text(options, "userknownhostsfile") or str(Path.home() / ".ssh" / "known_hosts")
    common = _text(options, "globalknownhostsfile") or GLOBAL_KNOWN_HOSTS
    paths = [path for path in [*_words(user), *_words(common)] if path.lower() != "none"]
    return tuple(Path(path).expanduser() for path in paths)


def _words(text: str) -> list[str]:
    """Words separated by spaces, quotes around those that hold some; backslashes are kept."""
    return [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', text)]


def _trust_command(url: str, known_hosts: Path | None) -> str:
    option = ["--known-hosts", str(known_hosts)] if known_hosts is not None else []
    return shlex.join(["skynet", "trust", url, *option])


def _jumps(options: Options) -> list[str]:
    """The jump hosts, nearest first; none when a ProxyCommand stands before ProxyJump."""
    jump = _text(options, "proxyjump")
    if not jump or jump.lower() == "none":
        return []
    keys = list(options)
    if "proxycommand" in options and keys.index("proxycommand") < keys.index("proxyjump"):
        return []
    return [part.strip() for part in jump.split(",")]


def _agent(options: Options) -> str | None:
    """The socket that IdentityAgent names, "none", or None for the one in SSH_AUTH_SOCK."""
    named = _text(options, "identityagent")
    if not named or named.lstrip("$") == "SSH_AUTH_SOCK":
        return None
    return "none" if named.lower() == "none" else os.path.expanduser(named)


def _proxy_command(options: Options, host: str, user: str) -> str | None:
    command = _text(options, "proxycommand")
    if not command or _jumps(options):
        return None
    # %h and %r are expanded before the command is split into words, so neither may hold a space
    # or a quote.
    for value in (host, user):
        if shlex.quote(value) != value:
            raise _config_error(f"{one_line(value)!r} cannot be given to a ProxyCommand")
    return command.replace("%%", "%")


_JUMP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^]]+\]|[^:@/]+)(?::(?P<port>\d+))?/?"
)


def _parse_jump(text: str) -> _Name:
    """[user@]host[:port], with or without ssh:// before it."""
    found = _JUMP.fullmatch(text)
    if found is None:
        raise _config_error(f"ProxyJump {one_line(text)!r} is not [user@]host[:port]")
    port = found["port"]
    return _Name(found["host"].strip("[]"), found["user"], int(port) if port else None)
