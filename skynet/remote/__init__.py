"""The verbs sync needs of a remote, and their implementation over SFTP."""

from skynet.remote.sftp import SftpRemote
from skynet.remote.verbs import Facts, Intent, Listed, Outcome, Remote, Site, Stamp, Trash

__all__ = [
    "Facts",
    "Intent",
    "Listed",
    "Outcome",
    "Remote",
    "SftpRemote",
    "Site",
    "Stamp",
    "Trash",
]
