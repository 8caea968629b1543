"""Statuses of a daemon as values, for tests of what is told of them."""

from __future__ import annotations

from typing import Any

from skynet.status import Held, Status, Transfer

NOW = 1_700_000_000.0  # unix seconds
PID = 4711

HELD = Held(
    "0123456789ab",
    [("mass-delete", "120 of 130 entries would be deleted.")],
    ["Delete", "  - old/  120 files, 3.4 GB"],
    7,
)
TRANSFERS = [
    Transfer("video/clip.mov", 450_000_000, 1_000_000_000, 5_000_000.0),
    Transfer("video/" + "long" * 20 + ".mov", 0, 2_000_000, 0.0),
]


def status(**changes: Any) -> Status:
    """An idle daemon with nothing to do, three minutes after its last sync, with changes."""
    plain: dict[str, Any] = {
        "mirror": "photos",
        "source": "/data/photos",
        "target": "sftp://me@host/srv/photos",
        "pid": PID,
        "version": "1.2.3",
        "state": "idle",
        "since": NOW - 180,
        "updated": NOW - 180,
        "server": "me@host:22 (OpenSSH_9.2)",
        "watch": "native",
        "last_sync": NOW - 180,
    }
    return Status(**(plain | changes))
