"""From a configured mirror to the parts that serve it, in this process and on this machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skynet.bandwidth import Bandwidth
from skynet.config import Login, Mirror, Target
from skynet.cycle import Surroundings
from skynet.errors import AuthError, UsageError
from skynet.monitor import Connected, Monitor, Stage
from skynet.processors import Processors
from skynet.state import make_private

if TYPE_CHECKING:
    from skynet.remote import Remote
    from skynet.serve import ServeOptions
    from skynet.sftp.credentials import Prompter
    from skynet.sftp.endpoint import Endpoint
    from skynet.sftp.pace import Pace


def surroundings(monitor: Monitor) -> Surroundings:
    """The real clocks and randomness, and what this machine is called."""
    from skynet.lease import pid_space

    return Surroundings(
        clock=_awake_or_asleep,
        sleep=time.sleep,
        now_ns=time.time_ns,
        token=os.urandom,
        host=platform.node(),
        pid_space=pid_space(),
        monitor=monitor,
        on_one_processor=Processors().one,
    )


def _awake_or_asleep() -> float:
    """Seconds of a clock that never jumps, and goes on while the machine sleeps where it can.

    A lease must not look fresh to a machine that has slept through its expiry.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def endpoint(target: Target, login: Login) -> Endpoint:
    """How to reach and enter the server of a target."""
    from skynet.sftp.endpoint import Endpoint

    return Endpoint(
        target.host,
        target.user,
        target.port,
        identity=login.identity,
        known_hosts=login.known_hosts,
        password_command=login.password_command,
        password_file=login.password_file,
        compression=login.compression,
        connect_timeout=login.connect_timeout,
    )


def connector(
    mirror: Mirror, prompter: Prompter, environ: Mapping[str, str], monitor: Monitor
) -> Callable[[], Remote]:
    """What connects to a mirror's target.

    The SSH library is loaded now, and what is built on a connection when there is one.
    """
    from skynet.sftp.connect import connect as dial

    def connect() -> Remote:
        monitor(Stage("connecting"))
        connection = dial(endpoint(mirror.target, mirror.login), prompter=prompter, environ=environ)
        monitor(Connected(f"{connection.description} ({connection.server_version})"))
        from skynet.remote import SftpRemote
        from skynet.sftp.client import Client

        client = Client(
            connection,
            channels=mirror.channels,
            timeout=mirror.login.timeout,
            pace=_pace(mirror.bwlimit),
        )
        reads_back = mirror.verify_patches == "read-back"
        try:
            path = mirror.target.path
            return SftpRemote(client, path, os.urandom(5).hex(), reads_back=reads_back)
        except BaseException:
            client.close()
            raise

    return connect


def _pace(bwlimit: Bandwidth) -> Pace | None:
    """What keeps one connection to `bwlimit`, by this machine's local time; None if nothing must.

    The time of day is asked again and again, so a change counts in the middle of an upload, and
    daylight saving is what the local clock makes of it.
    """
    if not bwlimit.is_limited:
        return None
    from skynet.sftp.pace import Pace

    def rate() -> int | None:
        now = time.localtime()
        return bwlimit.rate_at(now.tm_hour, now.tm_min)

    return Pace(rate)


def serve_options(options: ServeOptions, password_file: Path | None) -> ServeOptions:
    """The options with the password from its file, and the state directory made.

    Raises UsageError for an unfit file.
    """
    if password_file is not None:
        from skynet.sftp.credentials import read_password_file

        try:
            options = replace(options, password=read_password_file(password_file))
        except AuthError as error:  # nobody has been refused: it is the option that is wrong
            raise UsageError(str(error), error.code) from None
    make_private(options.state)
    return options
