"""The lease: one skynet at a time writes to a remote.

A small file, made so that it must not exist before. Its holder rewrites it every BEAT_SECONDS
with a higher count while it works. Who finds it taken watches it; if it has not changed for
EXPIRY_SECONDS, it is taken over. No clock of another machine is trusted. Known to be gone at once
are only: a holder whose process number means something here, since it is of this very machine,
boot and namespace; and an earlier lease of the taker's own, over a link that it has lost.

A holder with nothing to do keeps its lease and does not beat, so that others who come get the
remote. Before it works again it looks whether the lease is still its own: one request for size and
time of the file, and the content only if these differ. Another's lease may be of the same second,
so every holder's has a length of its own, as far as that can be.

SFTP cannot fence off a holder that was merely asleep, or that looked in the very moment before its
lease was taken away. So a holder looks before it beats, and before it records anything if it has
neither beaten for long nor looked for FRESH_SECONDS; a lease that is not its own any more ends the
cycle. And a taker waits for GRACE_SECONDS after it took a lease away from what may be alive.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

import msgspec

from skynet.errors import OwnedError
from skynet.monitor import Monitor, Notice
from skynet.remote import Remote, Stamp
from skynet.target import printable

LEASE = b"lease"
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 20.0
FRESH_SECONDS = 1.0  # after a look; what is asked in that time must reach the server in GRACE
GRACE_SECONDS = 3.0
MAX_LEASE = 4096
LENGTHS = 1021  # that leases have, by their tokens
MAX_PID = (1 << 31) - 1
MAX_BEAT = 10**10 - 1
UNLOCKED = b"unlocked\n"  # in place of a lease that `unlock` has removed


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
    """The right to write to `remote`, taken by `ensure`. `clock` and `sleep` in seconds.

    pid_space: as of the function of that name. mine: tokens of leases that the caller has had on
    this remote in sessions that have ended since, each with what has_begun was in the end; such a
    lease is taken away without watching.

    is_held: it was taken, and neither given back nor seen to be lost.

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
        mine: Mapping[str, bool] | None = None,
    ) -> None:
        self._remote = remote
        self._me = _Holder(token, printable(socket.gethostname()), os.getpid(), 0, pid_space)
        self._clock = clock
        self._sleep = sleep
        self._monitor = monitor
        self._mine = mine or {}
        self._let_go()
        self.has_begun = False

    def _let_go(self) -> None:
        self.is_held = False
        self._beaten_at = self._seen_at = -math.inf  # so that no check takes it for fresh
        self._stamp: Stamp | None = None

    def ensure(self) -> bool:
        """Hold the lease from here on; as `acquire` if it is not held.

        If it is, it takes one request to see that it is still ours, or none soon after a beat;
        OwnedError if it is not. Who takes the lease anew has to look at the manifest again.
        """
        if not self.is_held:
            return self.acquire()
        if self._clock() - self._beaten_at > BEAT_SECONDS:
            self.ping()
        return False

    def acquire(self) -> bool:
        """Take the lease; whether it was left behind by a run that may not have ended well.

        OwnedError if another skynet holds it and is alive.
        """
        is_doubtful = any(self._mine.values())  # though no lease may tell of it any more
        self.has_begun = is_doubtful
        if self._create():
            return is_doubtful
        self.has_begun = True  # as long as it is not known, and if this breaks off
        was_taken = is_dead = False
        left = _read(self._remote)
        if left is not None:
            is_dead = self._is_known_dead(left)
            if not is_dead and left != UNLOCKED:
                _watch(self._remote, left, self._clock, self._sleep, self._monitor)
            was_taken = _take_away(self._remote, left, self._me.token)
        if not self._create():
            raise _owned(_read(self._remote))
        if was_taken and not is_dead:
            self._sleep(GRACE_SECONDS)
            self._verify()  # a last beat of its may have been under way
        self.has_begun = is_doubtful or left is None or self._may_have_begun(left)
        return self.has_begun

    @property
    def server_time(self) -> int:
        """When the lease was written last, by the server's clock; 0 if it does not say."""
        return self._stamp.mtime if self._stamp is not None else 0

    def check(self) -> None:
        """OwnedError if the lease may have been taken over; asks only if that can be."""
        now = self._clock()
        is_new = now - self._beaten_at <= EXPIRY_SECONDS / 2
        if not is_new and now - self._seen_at > FRESH_SECONDS:
            self.ping()

    def beat(self) -> None:
        """Show that we are alive, if it is time to. OwnedError if the lease was taken over.

        In a cycle that began after a long rest it is, as soon as its first look is not fresh.
        """
        now = self._clock()
        if now - self._beaten_at >= BEAT_SECONDS and now - self._seen_at >= FRESH_SECONDS:
            self.ping()
            began = self._clock()
            self._note(self._remote.write_at(LEASE, 0, self._next()), began)

    def ping(self) -> None:
        """Look whether the lease is ours: one request if nothing has changed. OwnedError if not."""
        began = self._clock()
        found = self._remote.stamp(LEASE)
        if found is None or not found.mtime or found != self._stamp:
            # Looked at in this order, the stamp is that of our own if the content is.
            self._verify()
            self._stamp = found
        self._seen_at = began

    def release(self) -> None:
        """Give the lease back; OwnedError if it may be another's by now."""
        self.check()
        self._remote.remove(LEASE)
        self._let_go()

    def _create(self) -> bool:
        began = self._clock()
        stamp = self._remote.create(LEASE, self._next())
        if stamp is not None:
            self._note(stamp, began)
            self.is_held = True
        return stamp is not None

    def _next(self) -> bytes:
        """What is to be written: never the same twice, not even if the lease is taken anew."""
        self._me = msgspec.structs.replace(self._me, beat=self._me.beat + 1)
        return _encode(self._me)

    def _note(self, stamp: Stamp, began: float) -> None:
        """The file was written, not before `began`."""
        self._stamp = stamp
        self._beaten_at = self._seen_at = began

    def _verify(self) -> None:
        if _read(self._remote) != _encode(self._me):
            self._let_go()
            raise OwnedError(
                "The lease on the remote was taken over while skynet did not answer; "
                "this run has ended. Run skynet again.",
                "lease-lost",
            )

    def _is_known_dead(self, content: bytes) -> bool:
        holder = _decode(content)
        if holder is None:
            return False
        return holder.token in self._mine or _is_dead_here(holder, self._me.pid_space)

    def _may_have_begun(self, content: bytes) -> bool:
        """Whether the run that left this lease behind may have left something half done."""
        holder = _decode(content)
        return holder is None or self._mine.get(holder.token, True)


def unlock(
    remote: Remote,
    token: str,
    *,
    force: bool,
    pid_space: str,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    monitor: Monitor,
) -> str:
    """Remove the lease, whoever holds it; that holder, for people, or "" if there is none.

    What is left in its place is free for the next run, and tells it to look at what the remote
    really holds. Unless `force`, OwnedError if the holder is seen to be alive. The others as of
    Lease; token: unique text.
    """
    content = _read(remote)
    if content is None or content == UNLOCKED:
        return ""
    holder = _decode(content)
    if force:
        remote.remove(LEASE)
    else:
        if holder is None or not _is_dead_here(holder, pid_space):
            _watch(remote, content, clock, sleep, monitor)
        _take_away(remote, content, token)
    remote.create(LEASE, UNLOCKED)
    return _describe(holder)


def _read(remote: Remote) -> bytes | None:
    return remote.peek([(LEASE, 0, MAX_LEASE)])[0]


def _watch(
    remote: Remote,
    content: bytes,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    monitor: Monitor,
) -> None:
    """Return when this lease is gone, or has not changed for EXPIRY_SECONDS; else OwnedError."""
    monitor(
        Notice(
            "lease-taken",
            f"The remote is in use by {_describe(_decode(content))}; "
            f"watching for {EXPIRY_SECONDS:.0f} s whether it is alive.",
        )
    )
    until = clock() + EXPIRY_SECONDS
    while clock() < until:
        sleep(1.0)
        now = _read(remote)
        if now is None:
            return
        if now != content:
            raise _owned(now)


def _take_away(remote: Remote, content: bytes, token: str) -> bool:
    """Remove a lease that has expired, if it is still there: of several that try, one gets it.

    OwnedError if it is another one by now, which is put back.
    """
    taken = LEASE + b"-" + token.encode()
    if not remote.rename(LEASE, taken):
        return False
    found = remote.peek([(taken, 0, MAX_LEASE)])[0]
    if found != content:  # another was quicker, and its new lease is what we took
        remote.create(LEASE, found or b"")
    remote.remove(taken)
    if found != content:
        raise _owned(found)
    return True


def _owned(content: bytes | None) -> OwnedError:
    return OwnedError(
        f"The remote is in use by {_describe(_decode(content or b''))}. "
        "Wait for it to end, or stop it. If it is gone: skynet unlock.",
        "leased",
    )


def _encode(holder: _Holder) -> bytes:
    # A longer text never follows a shorter one: the beat has a fixed width.
    text = f"{holder.token} {holder.host} {holder.pid} {holder.beat:010d} {holder.pid_space}"
    return text.rstrip().encode() + b" " * (crc32(holder.token.encode()) % LENGTHS) + b"\n"


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


def _is_dead_here(holder: _Holder, pid_space: str) -> bool:
    """Whether it is known to be a process of this pid space that is gone."""
    return bool(pid_space) and holder.pid_space == pid_space and not _is_alive(holder.pid)


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
