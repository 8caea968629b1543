"""From a configured mirror to what keeps it in sync, in this process and on this machine."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from skynet.config import Mirror
from skynet.daemon import Kept
from skynet.keeper import Means
from skynet.logs import Level
from skynet.monitor import Monitor
from skynet.remote import Remote
from skynet.wiring import connector, surroundings

if TYPE_CHECKING:
    from skynet.sftp.credentials import Prompter


def keeping(
    mirror: Mirror,
    prompter: Prompter,
    log: Callable[[Level, str, str], None],
    monitor: Monitor,
) -> Kept:
    """What a daemon needs to keep a mirror. log: takes level, the mirror's name and a message."""

    def connect(events: Monitor) -> Remote:
        return connector(mirror, prompter, os.environ, events)()

    means = Means(
        connect=connect,
        around=surroundings(monitor),
        random=random.random,
        log=lambda level, message: log(level, mirror.name, message),
        route=_route,
    )
    return Kept(mirror, means)


def _route() -> str:
    """The address that this machine would use to reach others; "" if it has none.

    Nothing is sent: a datagram socket only looks up the way. The address is of a block that is
    for documentation.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""
