"""paramiko's transport, adapted to servers as they are, and to long links.

Reading is bounded, AES-GCM comes first, the login service is asked for once, a rekey is rare and
may take long, and what opens an SFTP channel does not wait for the answer to the subsystem's
request.

These classes override parts of paramiko that have no public name; look at them whenever its
version is raised. Only `connect` uses them.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from skynet.errors import ConnectError
from skynet.sftp import hostkeys, refusals
from skynet.sftp.dial import one_line
from skynet.sftp.endpoint import Hop
from skynet.sftp.hostkeys import KnownKey
from skynet.sftp.library import paramiko

# What a server may send us on one channel before we have read it.
WINDOW_BYTES = 8 * 2**20
# RFC 4253 asks for packets up to 35,000 bytes; a server that sends far more is broken or hostile.
MAX_PACKET_BYTES = 2**20
RECEIVE_BYTES = 64 * 2**10
MAX_GREETING_BYTES = 16 * 2**10
# On a slow link the answer to a rekey stands behind megabytes that are on their way. paramiko's
# own 30 s broke long uploads; a link that is really dead is noticed by others before this.
REKEY_SECONDS = 300.0
# Each rekey stops an upload for some round trips. This is a sixteenth of what RFC 4344 allows a
# cipher with blocks of so many bytes (2**32 blocks, of which OpenSSH makes full use).
REKEY_BYTES = 4 * 2**30
REKEY_BLOCK_BYTES = 16
# How often the thread that reads looks whether it is to end, when nothing comes.
# paramiko's own 0.1 s were more than half of what an idle daemon took.
LOOK_SECONDS = 1.0
# How long the end of a session takes to show after its channels have heard of it.
NOTICE_SECONDS = 0.1
# How often who waits for the login service looks whether the session has ended.
ALIVE_SECONDS = 0.1

# Nothing below the command line prints: without a handler, errors would reach stderr.
_paramiko_log = logging.getLogger("paramiko")
_paramiko_log.addHandler(logging.NullHandler())
_paramiko_log.propagate = False


class Buffered:
    """A socket that is read in large pieces: paramiko reads each packet in two small ones."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._data = b""
        self._at = 0

    def recv(self, n: int) -> bytes:
        """At most n bytes."""
        if self._at == len(self._data):
            self._data, self._at = self._sock.recv(RECEIVE_BYTES), 0
        piece = self._data[self._at : self._at + n]
        self._at += len(piece)
        return piece

    def interrupt(self) -> None:
        """Let who is reading know at once that there is no more."""
        if isinstance(self._sock, socket.socket):  # a channel through another host might block
            with suppress(OSError):  # it is broken already
                self._sock.shutdown(socket.SHUT_RDWR)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Packetizer(paramiko.packet.Packetizer):  # type: ignore[misc]  # the base is untyped
    """Bounds what is read: the greeting as a whole, then each packet. Rekeys no sooner than due."""

    REKEY_BYTES = REKEY_BYTES

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.greeting = b""

    def set_outbound_cipher(self, *, block_size: int, **settings: Any) -> None:
        """What is sent from now on; block_size in bytes."""
        self._note_blocks(block_size)
        super().set_outbound_cipher(block_size=block_size, **settings)

    def set_inbound_cipher(self, *, block_size: int, **settings: Any) -> None:
        """What is received from now on; block_size in bytes."""
        self._note_blocks(block_size)
        super().set_inbound_cipher(block_size=block_size, **settings)

    def _note_blocks(self, block_size: int) -> None:
        if block_size < REKEY_BLOCK_BYTES:
            self.REKEY_BYTES = super().REKEY_BYTES

    def _read_timeout(self, timeout: float) -> bytes:
        data: bytes = super()._read_timeout(timeout)
        self.greeting += data
        if len(self.greeting) > MAX_GREETING_BYTES:
            raise paramiko.SSHException("the greeting has no end")
        return data

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read exactly n bytes, if no packet may be longer than that."""
        if n > MAX_PACKET_BYTES:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data


class SshTransport(paramiko.Transport):  # type: ignore[misc]  # the base is untyped
    """An SSH session that prefers AES-GCM, asks for known host keys first, and hears farewells."""

    _active_check_timeout = LOOK_SECONDS

    def __init__(self, sock: Any, hop: Hop, known: Sequence[KnownKey]) -> None:
        super().__init__(
            Buffered(sock), default_window_size=WINDOW_BYTES, packetizer_class=Packetizer
        )
        self.farewell = ""
        self.auth_timeout = None
        self.clear_to_send_timeout = REKEY_SECONDS
        self.use_compression(hop.compression)
        options = self.get_security_options()
        options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
        options.key_types = hostkeys.known_first(options.key_types, known)

    def close(self) -> None:
        """Break the session at once; the thread that reads would notice at its next look only."""
        self.sock.interrupt()
        super().close()

    def open_sftp(self, hop: Hop, seconds: float, opening: bytes) -> Any:
        """A channel with the sftp subsystem, which was sent `opening`.

        ConnectError no-channel or no-sftp, else EOFError or OSError.
        """
        try:
            channel = self.open_session(timeout=seconds)
        except paramiko.SSHException as error:
            raise self._refusal(error, refusals.no_channel(hop)) from error
        try:
            self._begin_sftp(channel, opening)
        except paramiko.SSHException as error:
            channel.close()
            raise self._refusal(error, refusals.no_sftp(hop)) from error
        except OSError as error:  # it was taken up, and has ended already
            raise self._refusal(error, refusals.no_greeting()) from error
        return channel

    def _begin_sftp(self, channel: Any, opening: bytes) -> None:
        """As channel.invoke_subsystem, but `opening` does not wait for the answer to the request.

        OpenSSH's client sends so as well. Its server takes nothing before it has answered.
        """
        request = paramiko.Message()
        request.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("subsystem")
        request.add_boolean(True)  # an answer is wanted
        request.add_string("sftp")
        channel._event_pending()
        if channel.closed or channel.eof_received:  # before now, that was no event
            raise paramiko.SSHException("Channel closed.")
        self._send_user_message(request)
        takes_it_now = channel.out_window_size >= len(opening)
        if takes_it_now:
            with suppress(OSError):  # closed meanwhile; the answer tells what that means
                channel.sendall(opening)
        channel._wait_for_event()
        if not takes_it_now:
            channel.sendall(opening)

    def _refusal(self, error: Exception, refused: ConnectError) -> Exception:
        """What a failed request means: the server said no, unless it is gone."""
        self.join(NOTICE_SECONDS)  # a channel hears of the session's end before that shows
        return refused if self.is_active() else EOFError(str(error))

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()
        self.farewell = one_line(m.get_binary())
        m.rewind()
        super()._parse_disconnect(m)

    def _send_user_message(self, data: Any) -> None:
        # During a rekey this waits for the transport's thread. On that very thread (a keepalive,
        # the reply to a close) it would wait for itself.
        if threading.current_thread() is self and not self.clear_to_send.is_set():
            threading.Thread(
                target=self._send_notice, args=(data,), name="skynet-notice", daemon=True
            ).start()
            return
        try:
            super()._send_user_message(data)
        except paramiko.SSHException as error:
            # The rekey took too long. To whoever sends, the link has ended.
            raise EOFError(str(error)) from error

    def _send_notice(self, data: Any) -> None:
        with suppress(EOFError, OSError):  # whoever waits for the server notices by himself
            self._send_user_message(data)


class AuthHandler(paramiko.auth_handler.AuthHandler):  # type: ignore[misc]  # the base is untyped
    """Asks for the login service once; some servers hang up on paramiko, which asks every time.

    Attempts are therefore signed in the thread that makes them: a key that will not sign fails an
    attempt and not the session. methods: what the server accepts, by its last refusal.
    """

    def __init__(self, transport: SshTransport) -> None:
        super().__init__(transport)
        self.methods: frozenset[str] | None = None
        self._granted = threading.Event()

    def ask_for_service(self) -> None:
        """Wait until the server grants the login service; raises what broke the session if it did.

        Only then is it known which signatures of an RSA key the server takes.
        """
        super()._request_auth()
        while not self._granted.wait(ALIVE_SECONDS):
            if not self.transport.is_active():
                raise self.transport.get_exception() or EOFError("the session has ended")

    def _request_auth(self) -> None:
        granted = paramiko.Message()
        granted.add_string("ssh-userauth")
        granted.rewind()
        super()._parse_service_accept(granted)

    def _parse_service_accept(self, _message: Any) -> None:
        self._granted.set()

    def _parse_userauth_failure(self, m: Any) -> None:
        self.methods = frozenset(m.get_list())
        m.rewind()
        super()._parse_userauth_failure(m)
