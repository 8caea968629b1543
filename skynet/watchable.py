"""Whether a directory can be watched by the system's own means, and what to do at its limits."""

from __future__ import annotations

import errno
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LIMITS = Path("/proc/sys/fs/inotify")
LONGEST = 16 << 20  # bytes of mountinfo; longer ones belong to machines with a million mounts

# Others change these without this system's knowing, so it reports only what is done here.
NETWORK = frozenset(
    b"9p acfs afs beegfs ceph cifs drvfs fuse gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 "
    b"orangefs prl_fs pvfs2 smb3 smbfs vboxsf virtiofs vmhgfs".split()
)


def network_kind(root: bytes, mountinfo: bytes) -> str:
    """The kind of a network file system that holds `root` or is mounted below it, or "".

    `root` is an absolute path without symbolic links, `mountinfo` as in proc(5).
    """
    mounts = dict(_mounts(mountinfo))  # of several mounted at one place, the last is seen
    holding = max((at for at in mounts if _holds(at, root)), key=len, default=b"")
    inside = [at for at in mounts if at == holding or _holds(root, at)]
    kinds = sorted(mounts[at] for at in inside if _is_network(mounts[at]))
    return kinds[0].decode("ascii", "replace") if kinds else ""


def read_mounts() -> bytes:
    """The mountinfo of this process; b"" where there is none."""
    try:
        with MOUNTS.open("rb") as file:
            return file.read(LONGEST)
    except OSError:
        return b""  # no Linux, or no /proc: what cannot be known is taken for local


def _mounts(mountinfo: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")[0]
        if len(fields) > 4 and kind:
            found.append((_unescaped(fields[4]), kind))
    return found


def _unescaped(place: bytes) -> bytes:
    return re.sub(rb"\\([0-3][0-7]{2})", lambda octal: bytes([int(octal[1], 8)]), place)


def _holds(outer: bytes, inner: bytes) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(b"/") + b"/")


def _is_network(kind: bytes) -> bool:
    return kind in NETWORK or kind.startswith(b"fuse.")


# Limits

_SETTINGS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}


def is_limit(error: OSError) -> bool:
    """Whether the system refuses to watch more than it does."""
    return error.errno in {errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Limit:
    """The setting that a refusal ran into, and its value when this was made."""

    def __init__(self, refusal: OSError) -> None:
        self.setting = _SETTINGS.get(refusal.errno or 0, "")
        self.value = self._read()

    def _read(self) -> int | None:
        try:
            return int((LIMITS / self.setting).read_text("ascii"))
        except (OSError, ValueError):
            return None  # no Linux, or a limit of another kind

    def is_raised(self) -> bool:
        """Whether it is higher now."""
        now = self._read()
        return now is not None and self.value is not None and now > self.value


def advice(refusal: OSError, left_out: int) -> str:
    """What is wrong and the exact commands that mend it. `left_out`: directories not watched."""
    limit = Limit(refusal)
    if limit.value is None:
        return f"The system refuses to watch more directories: {refusal.strerror}."
    setting = f"fs.inotify.{limit.setting}"
    wanted = 1 << (limit.value + 2 * left_out).bit_length()
    return (
        f"The system refuses to watch more: {setting} is {limit.value}, {wanted} would do. "
        f"Now: sudo sysctl {setting}={wanted}. For good: "
        f"echo {setting}={wanted} | sudo tee /etc/sysctl.d/60-skynet.conf."
    )
