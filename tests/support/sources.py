"""Local files in memory, and who is told how conversations ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from skynet.errors import TornRead
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Done
from skynet.sftp.upload import Placement, Tracks, Uploaded, upload
from skynet.sftp.wire import Attrs

PATIENCE = 30.0  # seconds until a conversation that nobody ends fails a test


class BytesSource:
    """A source of these bytes. It says `size` bytes, and is torn if that is not what it gave.

    fails_at: the offset at which reading raises OSError, -1 for nowhere.
    """

    def __init__(self, content: bytes, size: int = -1, fails_at: int = -1) -> None:
        self.size = len(content) if size < 0 else size
        self.identity = b"identity"
        self.closed = 0
        self.offset = 0
        self._content = content
        self._fails_at = fails_at

    def read(self, limit: int) -> bytes:
        if 0 <= self._fails_at < self.offset + limit:
            raise OSError(5, "Input/output error")
        data = self._content[self.offset : self.offset + limit]
        self.offset += len(data)
        return data

    def verify(self) -> bytes:
        if self.offset != self.size:
            raise TornRead("It changed while it was read.")
        return self.identity

    def close(self) -> None:
        self.closed += 1


class End(NamedTuple):
    """How a conversation ended."""

    key: object
    result: object
    error: BaseException | None


class Ends:
    """Collects the ends of conversations."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[End] = SimpleQueue()

    def of(self, key: object) -> Done:
        """What to give to `submit` for the conversation of this key."""
        return lambda result, error: self._queue.put(End(key, result, error))

    def wait(self, count: int) -> list[End]:
        """The next `count` ends; fails if one does not come."""
        try:
            return [self._queue.get(timeout=PATIENCE) for _ in range(count)]
        except Empty:
            raise AssertionError("a conversation was never told of its end") from None

    def nothing_more(self) -> bool:
        """Whether no end has come that `wait` has not given out."""
        return self._queue.empty()


class Sending:
    """Uploads of one content after another to one path, and what was acknowledged."""

    def __init__(self, directory: bytes, name: bytes = b"picture", mtime: int = 1_000_000) -> None:
        self.directory = directory
        self.path = directory + b"/" + name
        self.attrs = Attrs(mode=0o640, mtime=mtime)
        self.acknowledged: list[int] = []

    def placement(self, *, keep_old: bool = False) -> Placement:
        temps = self.directory + b"/tmp"
        name = self.path.rpartition(b"/")[2]
        return Placement(
            temps + b"/new-" + name, self.path, temps + b"/old-" + name, self.attrs, keep_old
        )

    def conversation(
        self, client: Client, source: BytesSource, *, keep_old: bool = False
    ) -> Conversation[Uploaded]:
        return upload(
            lambda: source,
            self.placement(keep_old=keep_old),
            client.capabilities,
            Tracks(self.acknowledged.append),
        )

    def send(self, client: Client, content: bytes, *, keep_old: bool = False) -> Uploaded:
        return client.call(self.conversation(client, BytesSource(content), keep_old=keep_old))


def submit_all(
    client: Client, ends: Ends, conversations: Iterable[tuple[object, Conversation[object]]]
) -> int:
    """Submit every (key, conversation); how many there were."""
    count = 0
    for key, conversation in conversations:
        client.submit(conversation, ends.of(key))
        count += 1
    return count


def raised(call: Callable[[], object]) -> BaseException | None:
    """What a call raised."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  the test looks at it
        return error
    return None
