"""The remote over SFTP: a target directory on a server, through one client."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from skynet.errors import RequestError, SkynetError, TargetError
from skynet.ops import Op, Record
from skynet.remote.carry import Carrier, is_directory
from skynet.remote.own import OwnFiles, read_file
from skynet.remote.turnstile import Turnstile
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Listed, Outcome, Site, Trash
from skynet.remote.walk import entry_of, walk
from skynet.rules import shown
from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Work
from skynet.sftp.replies import (
    NO_SUCH_FILE,
    OK,
    expect_attrs,
    expect_handle,
    expect_names,
    expect_ok,
    is_status,
)
from skynet.sftp.upload import Source
from skynet.tree import SECOND, Kind, join, wire_time

# In 2001, so that no server sets it by itself; an odd second, which FAT cannot keep.
PROBE_TIME_NS = 1_000_000_001 * SECOND
PROBE_MODE = 0o640
LOOKS_AT_ONCE = 1000
MANY = 32  # operations under way that make more channels worth their opening
LINGER_SECONDS = 0.005  # for more operations to end, so that they are handled together
WIDE_AT_ONCE = 2  # one file's end overlaps with the next one's beginning


class SftpRemote(OwnFiles):
    """See verbs.Remote. `path`: as in a target URL, absolute or b"~/...". `nonce`: unique text."""

    def __init__(
        self, client: Client, path: bytes, nonce: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._arrived: SimpleQueue[Outcome] = SimpleQueue()
        self._batch: list[Work] = []  # submitted, to begin with the next wait
        self._under_way = 0
        self._wide = Turnstile(WIDE_AT_ONCE, lambda work: client.submit_all([work]))
        self._lock = threading.Lock()
        self._sent = 0
        self.root = self._resolve(path)
        self._carrier = Carrier(self.root, nonce, client.capabilities, self._acknowledge)
        super().__init__(
            client, self._carrier.full(OWN), self._carrier.temp_name, self._carrier.raise_if_full
        )

    @property
    def facts(self) -> Facts:
        """What the file system does; set by who knows."""
        return self._carrier.facts

    @facts.setter
    def facts(self, facts: Facts) -> None:
        self._carrier.facts = facts

    @property
    def trash(self) -> Trash:
        """Where deleted versions go."""
        return self._carrier.trash

    @trash.setter
    def trash(self, trash: Trash) -> None:
        self._carrier.trash = trash

    def examine(self) -> Site:
        """What is at the target. TargetError if it can be no mirror."""
        own = self._carrier.full(OWN)
        target, own_directory, temps = self._client.call(
            _ask([wire.stat(self.root), wire.lstat(own), wire.lstat(join(own, TEMPS))])
        )
        if is_status(target, NO_SUCH_FILE):
            return Site(exists=False, is_prepared=False)
        if not is_directory(target):
            self._refuse_target(target)
        if isinstance(own_directory, wire.Attrs) and not is_directory(own_directory):
            raise TargetError(
                f"{shown(own)} on the server is not a directory, but skynet keeps its manifest "
                "there. Move it away.",
                "target-blocked",
            )
        return Site(exists=True, is_prepared=is_directory(temps))

    def prepare(self) -> None:
        """Make the target and `.skynet`; what is there already stays."""
        own = self._carrier.full(OWN)
        try:
            self._client.call(_make_directories(self.root, None))
            for directory in (own, join(own, TEMPS)):
                self._client.call(_make_directories(directory, 0o700))
        except RequestError as error:
            raise TargetError(
                f"The target {shown(self.root)} cannot be made or written to: {error}. "
                "Give this account write permission there, or choose another directory.",
                "target-not-writable",
            ) from None

    def probe(self) -> Facts:
        """Find out what the file system does, with a file of our own."""
        temp = self._carrier.temp_name()
        return self._client.call(_probe(temp, self._carrier.full(OWN)))

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        """Every directory, in tree order."""
        self._client.widen()
        return walk(self._client, self.root, hides)

    def kinds(self, paths: Sequence[bytes]) -> list[Kind | None]:
        """What is at each path, links not followed; None for nothing or what can be no entry."""
        asked = [wire.lstat(self._carrier.full(path)) for path in paths]
        found = [
            reply
            for start in range(0, len(asked), LOOKS_AT_ONCE)
            for reply in self._client.call(_ask(asked[start : start + LOOKS_AT_ONCE]))
        ]
        entries = [entry_of(reply) if isinstance(reply, wire.Attrs) else None for reply in found]
        return [entry.kind if entry is not None else None for entry in entries]

    def submit(self, op: Op, open_source: Callable[[], Source] | None = None) -> None:
        """Begin an operation."""
        self._under_way += 1
        if isinstance(op, Record):
            self._arrived.put(Outcome(op, b"", None))
            return
        if self._under_way == MANY:
            self._client.widen()

        def done(outcome: Outcome | None, error: BaseException | None) -> None:
            self._arrived.put(outcome or Outcome(op, b"", _as_exception(error)))

        work = Work(self._carrier.carry_out(op, open_source), done, self._carrier.weight(op))
        if self._carrier.is_wide(op):
            self._client.widen()
            self._wide.add(work)
        else:
            self._batch.append(work)

    def wait(self, seconds: float) -> list[Outcome]:
        """The operations that have ended since the last call; what was submitted begins now."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._client.submit_all(batch)
        outcomes: list[Outcome] = []
        try:
            outcomes.append(self._arrived.get(timeout=seconds))
            if self._under_way >= MANY:
                self._sleep(LINGER_SECONDS)
            while True:
                outcomes.append(self._arrived.get_nowait())
        except Empty:
            self._under_way -= len(outcomes)
            return outcomes

    def clear_temps(self, strays: Sequence[bytes] = ()) -> int:
        """Remove what broken uploads left behind."""
        beside = [self._carrier.full(path) for path in strays]
        temps = join(self._carrier.full(OWN), TEMPS)
        return self._client.call(_remove_all(beside)) + self._client.call(_empty(temps))

    def expire_trash(self, before: bytes) -> None:
        """Remove what was put into the trash under a stamp before `before`."""
        self._client.call(_expire(join(self._carrier.full(OWN), TRASH), before))

    def content(self, path: bytes) -> Iterator[bytes]:
        """A mirrored file's content in chunks."""
        return read_file(self._client, self._carrier.full(path))

    @property
    def counts(self) -> Counter[str]:
        """Requests, mutations, and acknowledged content bytes."""
        return self._client.counts + Counter(bytes=self._sent)

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def _acknowledge(self, count: int) -> None:
        with self._lock:  # told by the threads of all channels
            self._sent += count

    def _resolve(self, path: bytes) -> bytes:
        if path.startswith(b"/"):
            return path.rstrip(b"/") or b"/"
        (reply,) = self._client.call(_ask([wire.realpath(b".")]))
        names = expect_names(reply)
        if not names or not names[0].name.startswith(b"/"):
            raise TargetError(
                "The server does not say where the home directory is. "
                "Write the target as an absolute path: sftp://HOST/PATH."
            )
        return join(names[0].name.rstrip(b"/"), path.removeprefix(b"~").strip(b"/")).rstrip(b"/")

    def _refuse_target(self, reply: object) -> None:
        if isinstance(reply, wire.Attrs):
            raise TargetError(
                f"The target {shown(self.root)} is a file on the server, not a directory. "
                "Choose another path in the target URL.",
                "target-is-file",
            )
        try:
            expect_attrs(reply)  # type: ignore[arg-type]  # raises for whatever else it is
        except RequestError as error:
            raise TargetError(
                f"The target {shown(self.root)} cannot be looked at: {error}.", "target-refused"
            ) from None


def _as_exception(error: BaseException | None) -> Exception:
    if isinstance(error, Exception):
        return error
    return SkynetError(f"The operation was given up: {error!r}.")


def _ask(requests: list[wire.Request]) -> Conversation[Any]:
    return (yield requests)


def _make_directories(path: bytes, mode: int | None) -> Conversation[None]:
    """Make a directory and those above it that are missing."""
    missing = [path]
    while True:
        made = yield [wire.mkdir(missing[-1], wire.Attrs(mode=mode))]
        if not is_status(made[0], NO_SUCH_FILE) or b"/" not in missing[-1].strip(b"/"):
            break
        missing.append(missing[-1].rpartition(b"/")[0])
    for directory in reversed(missing):
        yield from _make_directory(directory, mode)


def _make_directory(path: bytes, mode: int | None) -> Conversation[None]:
    found, made = yield [wire.stat(path), wire.mkdir(path, wire.Attrs(mode=mode))]
    if not is_directory(found) and not is_status(made, OK):
        expect_ok(made)


def _probe(temp: bytes, own: bytes) -> Conversation[Facts]:
    swapped = own.rpartition(b"/")[0] + b"/" + own.rpartition(b"/")[2].upper()
    wanted = wire.Attrs(mode=PROBE_MODE, mtime=wire_time(PROBE_TIME_NS))
    reply, folded = yield [wire.open_file(temp, wire.WRITE_NEW), wire.lstat(swapped)]
    handle = expect_handle(reply)
    _, closed = yield [wire.fsetstat(handle, wanted), wire.close(handle)]
    expect_ok(closed)
    found, removed = yield [wire.lstat(temp), wire.remove(temp)]
    expect_ok(removed)
    kept = expect_attrs(found)
    return Facts(
        keeps_times=kept.mtime == wanted.mtime,
        keeps_modes=kept.mode is not None and kept.mode & 0o777 == PROBE_MODE,
        folds_case=isinstance(folded, wire.Attrs),
    )


def _names(directory: bytes) -> Conversation[list[tuple[bytes, bool]]]:
    """(name, whether it is a directory) of everything in a directory of our own, if it exists."""
    (reply,) = yield [wire.opendir(directory)]
    if is_status(reply, NO_SUCH_FILE):
        return []
    handle = expect_handle(reply)
    found: list[tuple[bytes, bool]] = []
    while True:
        (reply,) = yield [wire.readdir(handle)]
        names = expect_names(reply)
        if not names:
            break
        found += [(n.name, is_directory(n.attrs)) for n in names if n.name not in (b".", b"..")]
    yield [wire.close(handle)]
    return [(name, is_dir) for name, is_dir in found if b"/" not in name]


def _empty(directory: bytes) -> Conversation[int]:
    """Remove everything below a directory of our own; how many names that was."""
    removed = 0
    for name, is_dir in (yield from _names(directory)):
        path = join(directory, name)
        if is_dir:
            removed += yield from _empty(path)
        (reply,) = yield [wire.rmdir(path) if is_dir else wire.remove(path)]
        if not is_status(reply, NO_SUCH_FILE):
            expect_ok(reply)
        removed += 1
    return removed


def _remove_all(paths: Sequence[bytes]) -> Conversation[int]:
    for reply in (yield [wire.remove(path) for path in paths]):
        if not is_status(reply, NO_SUCH_FILE):
            expect_ok(reply)
    return len(paths)


def _expire(trash: bytes, before: bytes) -> Conversation[None]:
    for name, is_dir in (yield from _names(trash)):
        if is_dir and name < before:
            yield from _empty(join(trash, name))
            (reply,) = yield [wire.rmdir(join(trash, name))]
            expect_ok(reply)
