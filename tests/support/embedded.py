"""A running `skynet serve` and clients of it, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from skynet.errors import UsageError
from skynet.serve import Announcement, ServeOptions, serve

DEADLINE = 30.0
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and modes")


def directory_beside_a_secret(parent: Path) -> Path:
    """A directory to serve; the file `outside/secret` beside it is what no client may reach."""
    directory = parent / "served"
    directory.mkdir()
    outside = parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return directory


@contextlib.contextmanager
def serving(options: ServeOptions) -> Iterator[Announcement]:
    """Run the server in a thread for the length of the block."""
    announced: queue.Queue[Announcement | UsageError] = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        try:
            serve(options, announced.put, stop)
        except UsageError as error:
            announced.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        first = announced.get(timeout=DEADLINE)
        if isinstance(first, UsageError):
            raise first
        yield first
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def port_of(announcement: Announcement) -> int:
    return int(announcement.url.rstrip("/").rpartition(":")[2])


def connection(announcement: Announcement, **login: Any) -> Any:
    """An asyncssh connection that verifies the announced host key."""
    chosen = {"password": announcement.password, "username": announcement.user, **login}
    return asyncssh.connect(
        "127.0.0.1",
        port_of(announcement),
        known_hosts=asyncssh.import_known_hosts(announcement.known_hosts + "\n"),
        client_keys=chosen.pop("client_keys", None),
        agent_path=None,
        config=None,
        **chosen,
    )


def use(
    announcement: Announcement, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, None]]
) -> None:
    """Do `work` over one SFTP channel."""

    async def session() -> None:
        async with connection(announcement) as conn, conn.start_sftp_client() as sftp:
            await work(sftp)

    asyncio.run(asyncio.wait_for(session(), DEADLINE))


async def refused(request: Awaitable[Any]) -> None:
    """Await an SFTP request that the server must refuse."""
    with pytest.raises(asyncssh.SFTPError):
        await request
