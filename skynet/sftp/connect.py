"""A connection to an SFTP server: the way to it, its host key, the login, and its channels.

With `transport`, the only room that knows paramiko. Every hop is dialled, checked against
known_hosts and logged in to before the next one is reached through it; each of these steps has
connect_timeout seconds. Once connected, a blocked send or recv ends when the other side moves or
`Connection.abort` is called, so whoever waits on a Stream keeps the deadline.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from skynet.errors import ConfigError
from skynet.sftp import hostkeys, refusals
from skynet.sftp.auth import Answer, HungUpError, Offer, Responder, log_in
from skynet.sftp.credentials import (
    NOBODY,
    KeyFile,
    Prompter,
    as_sent,
    unusable_certificate,
    unusable_key,
)
from skynet.sftp.dial import ProxyProcess, dial, dial_agent, one_line
from skynet.sftp.endpoint import Endpoint, Hop, Options, route
from skynet.sftp.hostkeys import HostKey, KnownKey
from skynet.sftp.library import paramiko
from skynet.sftp.session import CLOSE_SECONDS, Connection, Link
from skynet.sftp.transport import AuthHandler, SshTransport
from skynet.sftp.waits import Deadline

__all__ = ["Connection", "Endpoint", "HostKey", "connect", "is_trusted", "scan_host_key", "trust"]

KEEPALIVE_SECONDS = 15
_CONFIG_ERRORS = (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ValueError, KeyError)
_KEY_CLASSES = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa": paramiko.ECDSAKey,
}

_log = logging.getLogger(__name__)


class _Login:
    """The authentication requests of one session, as skynet.sftp.auth.Login wants them."""

    def __init__(
        self, transport: SshTransport, hop: Hop, environ: Mapping[str, str], seconds: float
    ) -> None:
        self._transport = transport
        self._handler = transport.auth_handler = AuthHandler(transport)
        self._hop = hop
        self._environ = environ
        self._seconds = seconds
        self._deadline = Deadline(seconds, transport.close)
        self._agent_socket: Any = None

    def close(self) -> None:
        """Let go of the agent."""
        if self._agent_socket is not None:
            self._agent_socket.close()

    def begin(self) -> None:
        self._deadline.restart()
        try:
            self._handler.ask_for_service()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._ended() from error
        finally:
            self._deadline.stop()

    def none(self) -> Answer:
        return self._ask(self._handler.auth_none)

    def publickey(self, offer: Offer) -> Answer:
        return self._ask(self._handler.auth_publickey, offer.key)

    def password(self, secret: str) -> Answer:
        return self._ask(self._handler.auth_password, as_sent(secret))

    def interactive(self, respond: Responder) -> Answer:
        def handler(_title: str, _text: str, prompts: Sequence[tuple[str, bool]]) -> list[bytes]:
            with self._deadline.paused():
                return [as_sent(answer) for answer in respond(prompts)]

        return self._ask(self._handler.auth_interactive, handler)

    def agent(self) -> list[Offer]:
        try:
            self._agent_socket = _connect_agent(self._hop, self._environ, self._seconds)
            if self._agent_socket is None:
                return []
            agent = paramiko.agent.AgentSSH()
            # Its public child would open a socket of its own, without a timeout.
            agent._connect(self._agent_socket)
        except (paramiko.SSHException, OSError) as error:
            # SSH_AUTH_SOCK outlives its agent; that is as good as none.
            _log.debug("no SSH agent: %s", error)
            return []
        keys = agent.get_keys()
        return [Offer(f"agent key {hostkeys.fingerprint(key.blob)}", key, key.blob) for key in keys]

    def load(self, file: KeyFile, passphrase: str | None) -> list[Offer]:
        key = _load(file, passphrase)
        offers = [Offer(f"key {file.path}", key, key.asbytes())]
        certificate = Path(f"{file.path}-cert.pub")
        if certificate.exists():
            certified = _load(file, passphrase)
            try:
                certified.load_certificate(str(certificate))
            except (ValueError, OSError, paramiko.SSHException) as error:
                raise unusable_certificate(certificate, str(error)) from error
            offers.insert(0, Offer(f"certificate {certificate}", certified, b""))
        return offers

    def _ask(self, request: Callable[..., None], *what: object) -> Answer:
        """One request under the deadline; the server's answer, or HungUpError."""
        answered = threading.Event()
        self._deadline.restart()
        try:
            self._handler.methods = None
            request(self._hop.user, *what, answered)
            rest = self._handler.wait_for_response(answered)
        except paramiko.BadAuthenticationType as error:
            return Answer(accepted=False, methods=frozenset(error.allowed_types))
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._transport.is_active():
                return Answer(accepted=False, methods=self._handler.methods)
            raise self._ended() from error
        finally:
            self._deadline.stop()
        return Answer(not rest, frozenset(rest) if rest else None, bool(rest))

    def _ended(self) -> Exception:
        """What it means that the session is over."""
        if self._deadline.expired:
            return refusals.timeout(self._hop, "did not answer the login", self._seconds)
        return HungUpError(self._transport.farewell)


def _connect_agent(hop: Hop, environ: Mapping[str, str], seconds: float) -> Any:
    """A socket to the SSH agent, None when there is none."""
    if hop.agent == "none":
        return None
    if os.name != "posix":
        return paramiko.agent.get_agent_connection()
    path = hop.agent or environ.get("SSH_AUTH_SOCK")
    return dial_agent(path, seconds) if path else None


def connect(endpoint: Endpoint, *, prompter: Prompter, environ: Mapping[str, str]) -> Connection:
    """Connect, verify and log in, through jump hosts where ssh_config says so.

    `environ` gives SKYNET_PASSWORD, SKYNET_PASSPHRASE and SSH_AUTH_SOCK. Raises ConnectError
    (codes name-not-found, refused, unreachable, timeout, closed, busy, proxy-command), AuthError,
    HostKeyError, ProtocolError (not-ssh, no-algorithm, handshake), ConfigError for ssh_config.
    """
    links = _reach(endpoint, prompter, environ, log_in_to_last=True)
    return Connection(links, endpoint.connect_timeout)


def scan_host_key(
    endpoint: Endpoint,
    *,
    prompter: Prompter = NOBODY,
    environ: Mapping[str, str] = os.environ,
) -> HostKey:
    """The key that the server shows, without a login there. Jump hosts are logged in to.

    Raises what `connect` raises; the key itself is not judged.
    """
    links = _reach(endpoint, prompter, environ, log_in_to_last=False)
    key = links[-1].key
    _close(links)
    return key


def is_trusted(endpoint: Endpoint, key: HostKey) -> bool:
    """Whether the key is known; HostKeyError if another one is, or if this one was revoked."""
    hop = route(endpoint, _lookup)[-1]
    known = hostkeys.known_keys(hop.known_hosts, hop.key_name)
    return hostkeys.is_known(key, known, hop.trust_command)


def trust(endpoint: Endpoint, key: HostKey) -> Path:
    """Append the key to the known_hosts file that `connect` reads first; returns that file."""
    return hostkeys.append(route(endpoint, _lookup)[-1].known_hosts, key)


def _reach(
    endpoint: Endpoint, prompter: Prompter, environ: Mapping[str, str], log_in_to_last: bool
) -> list[Link]:
    """Sessions with all hops, each verified and logged in to before the next is reached."""
    links: list[Link] = []
    hops = route(endpoint, _lookup)
    try:
        for hop in hops:
            known = hostkeys.known_keys(hop.known_hosts, hop.key_name)
            link = _open(hop, links[-1] if links else None, known, endpoint.connect_timeout)
            links.append(link)
            if hop is hops[-1] and not log_in_to_last:
                break
            hostkeys.verify(link.key, known, hop.trust_command)
            # A jump host never sees the password of the server behind it.
            passwords = endpoint if hop is hops[-1] else None
            login = _Login(link.transport, hop, environ, endpoint.connect_timeout)
            with closing(login):
                log_in(login, hop, passwords, environ, prompter)
            link.transport.set_keepalive(KEEPALIVE_SECONDS)
    except BaseException:
        _close(links)
        raise
    return links


def _close(links: Sequence[Link]) -> None:
    for link in links:
        link.close()


def _open(hop: Hop, before: Link | None, known: Sequence[KnownKey], seconds: float) -> Link:
    """An SSH session with a hop, not yet verified nor logged in."""
    proxy = ProxyProcess(hop.proxy_command) if hop.proxy_command and before is None else None
    if before is not None:
        sock = _tunnel(before, hop, seconds)
    elif proxy is not None:
        sock = proxy.sock
    else:
        sock = dial(hop.host, hop.port, seconds, hop.family)
    try:
        transport = _handshake(hop, sock, known, seconds, proxy)
    except BaseException:
        sock.close()
        if proxy is not None:
            proxy.close()
        raise
    key = transport.get_remote_server_key()
    shown = hostkeys.host_key(hop.key_name, key.get_name(), key.asbytes())
    return Link(hop, transport, shown, proxy)


def _tunnel(before: Link, hop: Hop, seconds: float) -> Any:
    """A channel from one hop on to the next."""
    ends = (hop.host, hop.port), ("127.0.0.1", 0)
    try:
        return before.transport.open_channel("direct-tcpip", *ends, timeout=seconds)
    except paramiko.ChannelException as error:
        raise refusals.no_tunnel(before.hop, hop, str(error.text)) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        problem = f"did not connect on to {hop.host}"
        raise refusals.timeout(before.hop, problem, seconds) from error


def _handshake(
    hop: Hop, sock: Any, known: Sequence[KnownKey], seconds: float, proxy: ProxyProcess | None
) -> SshTransport:
    """Exchange greetings and keys, within `seconds`."""
    transport = SshTransport(sock, hop, known)
    # Ours is the one deadline; paramiko's only have to be later.
    transport.banner_timeout = transport.handshake_timeout = 2 * seconds
    done = threading.Event()
    transport.start_client(event=done)
    in_time = done.wait(seconds)
    if in_time and transport.is_active():
        return transport
    error = transport.get_exception()
    transport.close()
    transport.join(CLOSE_SECONDS)
    # paramiko's handshake timer is no daemon thread: left alone, it would delay our exit.
    transport.packetizer.complete_handshake()
    heard = transport.packetizer.greeting
    if not in_time and (not heard or b"SSH-" in heard):
        problem = "took the connection but did not finish the SSH handshake"
        raise refusals.timeout(hop, problem, seconds) from error
    complaint = proxy.complaint() if proxy is not None else ""
    if isinstance(error, paramiko.IncompatiblePeer):
        raise refusals.no_algorithm(hop, str(error)) from error
    raise refusals.no_handshake(hop, heard, complaint, str(error or "")) from error


def _lookup(text: str, host: str) -> Options:
    """The options that an ssh_config gives for a host, as paramiko understands it."""
    try:
        options: Options = paramiko.SSHConfig.from_text(text).lookup(host)
    except _CONFIG_ERRORS as error:
        raise ConfigError(
            f"ssh_config cannot be followed for {host!r} ({one_line(str(error))}). Correct it.",
            "ssh-config",
        ) from error
    return options


def _load(file: KeyFile, passphrase: str | None) -> Any:
    """The key in a file; AuthError, code "passphrase" when that is what is wrong."""
    try:
        return _KEY_CLASSES[file.kind].from_private_key(io.StringIO(file.text), passphrase)
    except (paramiko.SSHException, ValueError) as error:
        raise unusable_key(file, passphrase) from error
