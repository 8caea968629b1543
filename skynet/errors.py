"""What can go wrong: errors end the cycle (exceptions), problems concern one path (values).

    SkynetError                exit 1
    ├── UsageError             exit 2   the command line asks for something impossible
    │   └── ConfigError        exit 2   skynet.toml or its values do
    ├── SourceError            exit 2   the local directory cannot be read
    ├── TargetError            exit 2   the remote directory cannot be used
    ├── VersionError           exit 2   a newer skynet wrote what is on the remote
    ├── ConnectError           exit 3   no session with the server      (retry helps)
    │   ├── AuthError          exit 3   the server refused every login
    │   ├── HostKeyError       exit 3   the server is unknown or not who it was
    │   └── ProtocolError      exit 3   the server does not speak SSH or SFTP as it should
    ├── LinkLost               exit 3   the session broke or stalled    (retry helps)
    ├── RemoteStopped          exit 1   the whole remote refuses writes (retry helps)
    ├── StalePlan              exit 4   a saved plan does not fit what is there any more
    ├── OwnedError             exit 5   another skynet works on this mirror (retry helps)
    ├── Interrupted            exit 130 asked to end before it was done
    ├── RequestError           exit 1   one SFTP request was refused; becomes a Problem
    │   └── NotPublished       exit 1   all was sent, but may not get its name
    └── TornRead               exit 1   a local file changed while it was read; becomes a Problem

`sftp/` alone raises ConnectError, LinkLost and RequestError and their kin; the daemon alone
retries, and only where `retry` says that it can help.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, NamedTuple


class ExitCode(IntEnum):
    """What a command ends with; of several mirrors, the highest counts."""

    IN_SYNC = 0
    PROBLEMS = 1
    UNUSABLE = 2
    NO_CONNECTION = 3
    HELD = 4
    OWNED = 5
    INTERRUPTED = 130


class Problem(NamedTuple):
    """One path (bytes, relative to the root) that could not be synced, and why."""

    path: bytes
    code: str
    message: str


class SkynetError(Exception):
    """Base of all errors; `str(error)` is a sentence that says what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.PROBLEMS
    retry: ClassVar[bool] = False
    code: str = "failed"

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        if code:
            self.code = code


class UsageError(SkynetError):
    """The command line asks for something impossible."""

    exit_code = ExitCode.UNUSABLE
    code = "usage"


class ConfigError(UsageError):
    """A configuration file or value is wrong; the message names file, key and value."""

    code = "config"


class SourceError(SkynetError):
    """The local directory is missing, unreadable, or not a directory."""

    exit_code = ExitCode.UNUSABLE
    code = "source"


class TargetError(SkynetError):
    """The remote directory is a file, or can be neither made nor written to."""

    exit_code = ExitCode.UNUSABLE
    code = "target"


class VersionError(SkynetError):
    """A newer skynet wrote what is on the remote; nothing of it is touched."""

    exit_code = ExitCode.UNUSABLE
    code = "newer-version"


class ConnectError(SkynetError):
    """No session with the server could be made."""

    exit_code = ExitCode.NO_CONNECTION
    retry = True
    code = "connect"


class AuthError(ConnectError):
    """The server refused every login that was tried."""

    retry = False
    code = "auth"


class HostKeyError(ConnectError):
    """The server's host key is unknown, or is not the one it had before."""

    retry = False
    code = "host-key"


class ProtocolError(ConnectError):
    """The server does not speak SSH or SFTP as it should."""

    retry = False
    code = "protocol"


class LinkLost(SkynetError):
    """A session that worked has broken, or the server stopped answering."""

    exit_code = ExitCode.NO_CONNECTION
    retry = True
    code = "link-lost"


class RemoteStopped(SkynetError):
    """The remote as a whole refuses writes: full, over quota, or read-only."""

    retry = True
    code = "remote-stopped"


class StalePlan(SkynetError):
    """A saved plan does not fit any more: nothing is done before a person has seen a new one."""

    exit_code = ExitCode.HELD
    code = "stale-plan"


class OwnedError(SkynetError):
    """Another skynet works on this mirror."""

    exit_code = ExitCode.OWNED
    retry = True
    code = "owned"


class Interrupted(SkynetError):
    """The work was asked to end before it was done; what was finished is recorded."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"


class RequestError(SkynetError):
    """The server refused one request. `code` is stable, the message is the server's."""

    code = "refused"


class NotPublished(RequestError):
    """What was sent is whole, but cannot be put in place. To send it again would not help."""

    code = "rename-refused"


class TornRead(SkynetError):
    """A local file changed while it was read; what was read is not published."""

    code = "changed-while-read"
