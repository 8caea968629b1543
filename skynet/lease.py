"""The lease: one skynet at a time writes to a remote.

A small file, made so that it must not exist before. Its holder rewrites it every BEAT_SECONDS
with a higher count. Who finds it taken watches it; if it has not changed for EXPIRY_SECONDS, its
holder is gone and it is taken over. No clock of another machine is trusted. Only a holder whose
process number means something here, since it is of this very machine, boot and namespace, is
known to be gone at once.

SFTP cannot fence off a holder that was merely asleep. So a holder looks at its lease before it
beats, and before it records anything if its last beat is old; a lease that is not its own any
more ends the cycle.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from skynet.errors import OwnedError, SkynetError
from skynet.monitor import Monitor, Notice
from skynet.remote import Remote
from skynet.target import printable

LEASE = b"lease"
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 20.0
MAX_LEASE = 4096
MAX_PID = (1 << 31) - 1
MAX_BEAT = 10**10 - 1


class _Holder(msgspec.Struct, frozen=True):
    """What the file says. pid_space: as of the function of that name."""

    token: str
    host: str
    pid: int
    beat: int
    pid_space: str = ""


def pid_space() -> str:
    """Where this process's number is unique: machine, boot and namespace. "" if not to be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except (OSError, UnicodeDecodeError):
        return ""


class Lease:
    """The right to write to `remote`, taken by `acquire`. `clock` and `sleep` in seconds.

    pid_space: as of the function of that name.

    has_begun: set by the holder once a run that breaks off may leave something half done. The
    lease stays then, and tells the next run to look at what the remote really holds.
    """

    def __init__(
        self,
        remote: Remote,
        token: str,
        *,
        pid_space: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        monitor: Monitor,
    ) -> None:
        self._remote = remote
        self._me = _Holder(token, printable(socket.gethostname()), os.getpid(), 0, pid_space)
        self._clock = clock
        self._sleep = sleep
        self._monitor = monitor
        self._beaten_at = 0.0
        self.has_begun = False

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lease; True if the last holder's run broke off. See `acquire`."""
        was_left_behind = self.acquire()
        try:
            yield was_left_behind
        except BaseException:
            # The error that ends the run is what matters; a lease that stays is taken over.
            if not self.has_begun:
                with contextlib.suppress(SkynetError):
                    self.release()
            raise
        self.release()

    def acquire(self) -> bool:
        """Take the lease; whether it was left behind by a run that did not end well.

        OwnedError if another skynet holds it and is alive.
        """
        if self._create():
            return False
        content = self._read()
        if content is not None:
            self._wait_for_expiry(content)
            self._take_away(content)
        if not self._create():
            raise self._owned(self._read())
        return True

    def check(self) -> None:
        """OwnedError if the lease may have been taken over; asks only if the last beat is old."""
        if self._clock() - self._beaten_at > EXPIRY_SECONDS / 2:
            self._verify()

    def beat(self) -> None:
        """Show that we are alive, if it is time to. OwnedError if the lease was taken over."""
        if self._clock() - self._beaten_at >= BEAT_SECONDS:
            self._verify()
            self._me = msgspec.structs.replace(self._me, beat=self._me.beat + 1)
            self._remote.write_at(LEASE, 0, _encode(self._me))
            self._beaten_at = self._clock()

    def release(self) -> None:
        """Give the lease back; OwnedError if it may be another's by now."""
        self.check()
        self._remote.remove(LEASE)

    def _create(self) -> bool:
        made = self._remote.create(LEASE, _encode(self._me))
        if made:
            self._beaten_at = self._clock()
        return made

    def _read(self) -> bytes | None:
        return self._remote.peek([(LEASE, 0, MAX_LEASE)])[0]

    def _verify(self) -> None:
        content = self._read()
        if content != _encode(self._me):
            self._beaten_at = -math.inf  # once lost, no later check takes it for fresh
            raise OwnedError(
                "The lease on the remote was taken over while skynet did not answer; "
                "this run has ended. Run skynet again.",
                "lease-lost",
            )

    def _wait_for_expiry(self, content: bytes) -> None:
        holder = _decode(content)
        if holder is not None and self._is_known_dead(holder):
            return
        self._monitor(
            Notice(
                "lease-taken",
                f"The remote is in use by {_describe(holder)}; "
                f"watching for {EXPIRY_SECONDS:.0f} s whether it is alive.",
            )
        )
        until = self._clock() + EXPIRY_SECONDS
        while self._clock() < until:
            self._sleep(1.0)
            now = self._read()
            if now is None:
                return
            if now != content:
                raise self._owned(now)

    def _is_known_dead(self, holder: _Holder) -> bool:
        is_here = bool(holder.pid_space) and holder.pid_space == self._me.pid_space
        return is_here and not _is_alive(holder.pid)

    def _take_away(self, content: bytes) -> None:
        """Remove an expired lease: of several that try, one gets it."""
        taken = LEASE + b"-" + self._me.token.encode()
        if self._remote.rename(LEASE, taken):
            found = self._remote.peek([(taken, 0, MAX_LEASE)])[0]
            self._remote.remove(taken)
            if found != content:  # another was quicker, and its new lease is what we took
                raise self._owned(found)

    @staticmethod
    def _owned(content: bytes | None) -> OwnedError:
        return OwnedError(
            f"The remote is in use by {_describe(_decode(content or b''))}. "
            "Wait for it to end, or stop it.",
            "leased",
        )


def _encode(holder: _Holder) -> bytes:
    # A longer text never follows a shorter one: the beat has a fixed width.
    text = f"{holder.token} {holder.host} {holder.pid} {holder.beat:010d} {holder.pid_space}"
    return text.rstrip().encode() + b"\n"


def _decode(content: bytes) -> _Holder | None:
    try:
        # Where the system has no name for the pid space, the line ends before it.
        token, host, pid, beat, space = [*content.decode().split(), ""][:5]
        holder = _Holder(token, host, int(pid), int(beat), space)
    except ValueError:
        return None
    is_possible = 0 < holder.pid <= MAX_PID and 0 <= holder.beat <= MAX_BEAT
    return holder if is_possible else None


def _describe(holder: _Holder | None) -> str:
    return f"process {holder.pid} on {printable(holder.host)}" if holder else "another skynet"


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; in doubt it does."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
