"""What it means when a server does not go along: errors told by what was heard from it."""

from __future__ import annotations

from skynet.errors import ConnectError, ProtocolError
from skynet.sftp.dial import one_line
from skynet.sftp.endpoint import Hop

# How OpenSSH turns away a client while it has too many others.
BUSY_GREETINGS = (b"Exceeded MaxStartups", b"Not allowed at this time")


def timeout(hop: Hop, problem: str, seconds: float) -> ConnectError:
    """A step that did not end in time; `problem` continues "the server ..."."""
    return ConnectError(
        f"{hop.description} {problem} within {seconds:g} s. Try again, or raise connect_timeout.",
        "timeout",
    )


def no_handshake(hop: Hop, heard: bytes, complaint: str, why: str) -> ConnectError:
    """The error for a handshake that ended early.

    heard: the first bytes from the server. complaint: what the ProxyCommand said on stderr, ""
    if nothing or none. why: the reason that the library gives.
    """
    if heard.startswith(BUSY_GREETINGS):
        return ConnectError(f"{hop.description} is too busy for a login. Try again later.", "busy")
    if not heard:
        return _closed(hop, complaint)
    if b"SSH-" not in heard:
        return ProtocolError(
            f"{hop.host} port {hop.port} is not an SSH server; it answered {one_line(heard)!r}. "
            "Check the port.",
            "not-ssh",
        )
    why = one_line(why) or "it closed the connection"
    return ProtocolError(
        f"the SSH handshake with {hop.description} failed ({why}). Try again; if it stays, ask "
        "the server's owner.",
        "handshake",
    )


def _closed(hop: Hop, complaint: str) -> ConnectError:
    said = f" The ProxyCommand said: {complaint}." if complaint else ""
    return ConnectError(
        f"{hop.description} closed the connection without a greeting.{said} It may not allow this "
        "address, or have too many clients; try again later.",
        "closed",
    )


def no_algorithm(hop: Hop, why: str) -> ProtocolError:
    """Client and server have no algorithm in common."""
    return ProtocolError(
        f"{hop.description} and skynet have no common algorithm ({one_line(why)}). The server is "
        "very old or very strict; ask its owner.",
        "no-algorithm",
    )


def no_channel(hop: Hop) -> ConnectError:
    """The server's session limit is reached."""
    return ConnectError(
        f"{hop.description} allows no more channels on this connection. Use fewer channels.",
        "no-channel",
    )


def no_sftp(hop: Hop) -> ConnectError:
    """The server has no sftp subsystem."""
    return ConnectError(
        f"{hop.description} refused the sftp subsystem, so it has no SFTP. Enable it there; for "
        "OpenSSH, sshd_config needs the line: Subsystem sftp internal-sftp",
        "no-sftp",
    )


def no_greeting() -> ConnectError:
    """The subsystem was taken up, and ended at once."""
    return ConnectError(
        "The server began SFTP and ended it without a greeting. Its SFTP program may be missing, "
        "or this account may not use it: because of its login shell, a password that has expired, "
        "or a chroot directory that others may write to. The server's log tells why; ask its "
        "owner.",
        "no-sftp",
    )


def no_tunnel(jump: Hop, hop: Hop, why: str) -> ConnectError:
    """A jump host did not connect on to the next hop."""
    return ConnectError(
        f"the jump host {jump.description} did not connect on to {hop.host} port {hop.port} "
        f"({one_line(why)}). Check that address, and that the jump host allows forwarding.",
        "unreachable",
    )
