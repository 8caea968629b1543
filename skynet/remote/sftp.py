"""The remote over SFTP: a target directory on a server, through one client."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from skynet.delta import Delta
from skynet.errors import RequestError, SkynetError, TargetError
from skynet.ops import Op, Record
from skynet.remote.carry import Carrier
from skynet.remote.copies import Copies
from skynet.remote.own import OwnFiles, read_file
from skynet.remote.places import Places, is_directory
from skynet.remote.removal import empty, names_in, remove_each, remove_trees
from skynet.remote.send import Opener, Sender
from skynet.remote.turnstile import Turnstile
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Intent, Listed, Outcome, Site, Trash
from skynet.remote.walk import entry_of, walk
from skynet.rules import shown
from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Work
from skynet.sftp.replies import (
    NO_SUCH_FILE,
    OK,
    Handle,
    Names,
    expect_attrs,
    expect_handle,
    expect_ok,
    is_status,
)
from skynet.tree import SECOND, Kind, join, wire_time

# In 2001, so that no server sets it by itself; an odd second, which FAT cannot keep.
PROBE_TIME_NS = 1_000_000_001 * SECOND
PROBE_MODE = 0o640
PROBE = b"probe"
LOOKS_AT_ONCE = 1000
MANY = 32  # operations under way that make more channels worth their opening
LINGER_SECONDS = 0.005  # for more operations to end, so that they are handled together
WIDE_AT_ONCE = 2  # one file's end overlaps with the next one's beginning


class SftpRemote(OwnFiles):
    """See verbs.Remote. `path`: as in a target URL, absolute or b"~/...". `nonce`: unique text.

    reads_back: what the server has put together is read and compared before it is published.
    """

    def __init__(
        self,
        client: Client,
        path: bytes,
        nonce: str,
        sleep: Callable[[float], None] = time.sleep,
        *,
        reads_back: bool = False,
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._arrived: SimpleQueue[Outcome] = SimpleQueue()
        self._batch: list[Work] = []  # submitted, to begin with the next wait
        self._under_way = 0
        self._wide = Turnstile(WIDE_AT_ONCE, lambda work: client.submit_all([work]))
        self._lock = threading.Lock()
        self._sent = self._resumed = 0
        self.root = self._resolve(path)
        can, told = client.capabilities, self._acknowledge
        self._places = Places(self.root, nonce)
        self._sender = Sender(self._places, can, told, self._take_up, can.copy_data)
        self._copies = Copies(self._places, self._sender, can, told, reads_back)
        self._carrier = Carrier(self._places, self._sender, self._copies, can)
        super().__init__(
            client, self._places.full(OWN), self._places.temp_name, self._sender.raise_if_stopped
        )

    @property
    def facts(self) -> Facts:
        """What the file system does; set by who knows."""
        return self._places.facts

    @facts.setter
    def facts(self, facts: Facts) -> None:
        self._places.facts = facts

    @property
    def trash(self) -> Trash:
        """Where deleted versions go."""
        return self._places.trash

    @trash.setter
    def trash(self, trash: Trash) -> None:
        self._places.use_trash(trash)

    @property
    def can_copy(self) -> bool:
        """Whether files can be copied on the server."""
        return self._copies.are_possible

    def examine(self) -> Site:
        """What is at the target. TargetError if it can be no mirror."""
        own = self._places.full(OWN)
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

    def prepare(self) -> Facts:
        """Make the target and `.skynet`; find out what the file system does."""
        own = self._places.full(OWN)
        probe = self._places.temp_name()
        wanted = {self.root: None, own: 0o700, join(own, TEMPS): 0o700, probe: 0o700}
        try:
            return self._client.call(_prepare(wanted, probe, self._places.temp_name(), own))
        except RequestError as error:
            self._tell_if_stopped(error)
            raise TargetError(
                f"The target {shown(self.root)} cannot be made or written to: {error}. "
                "Give this account write permission there, or choose another directory.",
                "target-not-writable",
            ) from None

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        """Every directory, in tree order."""
        return walk(self._client, self.root, hides)

    def kinds(self, paths: Sequence[bytes]) -> Callable[[], list[Kind | None]]:
        """Ask what is at each path."""
        return self._client.begin(_kinds([self._places.full(path) for path in paths]))

    def expect(self, operations: int) -> None:
        """Open the channels that so many operations are worth."""
        if operations >= MANY:
            self._client.widen()

    def submit(
        self,
        op: Op,
        open_source: Opener | None = None,
        intent: Intent | None = None,
        delta: Delta | None = None,
    ) -> None:
        """Begin an operation."""
        self._under_way += 1
        if isinstance(op, Record):
            self._arrived.put(Outcome(op, b"", None))
            return
        if self._under_way == MANY:
            self._client.widen()
            self._client.submit(self._places.spread_temps(), _ended)

        def done(outcome: Outcome | None, error: BaseException | None) -> None:
            self._arrived.put(outcome or Outcome(op, b"", _as_exception(error)))

        conversation = self._carrier.carry_out(op, open_source, intent, delta)
        work = Work(conversation, done, self._carrier.weight(op))
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

    def unfinished(self) -> dict[bytes, Intent]:
        """How far large uploads have got."""
        return self._sender.unfinished()

    def clear_temps(self, strays: Sequence[bytes] = (), keep: Collection[bytes] = ()) -> int:
        """Remove what broken uploads left behind."""
        beside = [self._places.full(path) for path in strays]
        own = self._places.full(OWN)
        kept = frozenset(join(own, name) for name in keep)
        answers = self._client.call(remove_each(beside))
        removed = sum(is_status(answer, OK) for answer in answers)
        return removed + self._call("clear", TEMPS, empty(join(own, TEMPS), kept))

    def expire_trash(self, before: bytes) -> Callable[[int], None]:
        """Look what was put into the trash under a stamp before `before`; to be removed later."""
        trash = join(self._places.full(OWN), TRASH)
        found = self._client.begin(names_in(trash))

        def remove(young: int) -> None:
            try:
                old = [
                    join(trash, name)
                    for name, attrs in found()
                    if is_directory(attrs) and name < before and (attrs.mtime or 0) < young
                ]
                self._client.call(remove_trees(old))
            except RequestError as error:
                raise self._explained("empty", TRASH, error) from None

        return remove

    def content(self, path: bytes) -> Iterator[bytes]:
        """A mirrored file's content in chunks."""
        return read_file(self._client, self._places.full(path))

    @property
    def counts(self) -> Counter[str]:
        """See verbs.Remote."""
        return self._client.counts + Counter(bytes=self._sent, resumed=self._resumed)

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def _acknowledge(self, count: int) -> None:
        with self._lock:  # told by the threads of all channels
            self._sent += count

    def _take_up(self, count: int) -> None:
        with self._lock:
            self._resumed += count

    def _resolve(self, path: bytes) -> bytes:
        if path.startswith(b"/"):
            return path.rstrip(b"/") or b"/"
        (reply,) = self._client.call(_ask([wire.realpath(b".")]))
        home = reply.names[0][0] if isinstance(reply, Names) and reply.names else b""
        if not home.startswith(b"/"):
            raise TargetError(
                "The server does not say where the home directory is. "
                "Write the target as an absolute path: sftp://HOST/PATH."
            )
        # In a chroot the home directory often is "/", which must not become a name of nothing.
        full = home.rstrip(b"/") + b"/" + path.removeprefix(b"~").strip(b"/")
        return full.rstrip(b"/") or b"/"

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


def _kinds(paths: Sequence[bytes]) -> Conversation[list[Kind | None]]:
    found: list[Kind | None] = []
    for start in range(0, len(paths), LOOKS_AT_ONCE):
        for reply in (yield [wire.lstat(path) for path in paths[start : start + LOOKS_AT_ONCE]]):
            entry = entry_of(reply) if isinstance(reply, wire.Attrs) else None
            found.append(entry.kind if entry is not None else None)
    return found


def _prepare(
    wanted: dict[bytes, int | None], probe: bytes, moved: bytes, own: bytes
) -> Conversation[Facts]:
    """Make directories (path -> mode), each in one before it; make a file in the last, and look.

    probe: the last, which is renamed to `moved`; nothing is left of it.
    """
    makes = [wire.mkdir(path, wire.Attrs(mode=mode)) for path, mode in wanted.items()]
    opening = wire.open_file(join(probe, PROBE), wire.WRITE_NEW)
    *_, opened = yield [*makes, opening]  # which are there already does not matter, if it opens
    if not isinstance(opened, Handle):
        for path, mode in wanted.items():
            yield from _make_directories(path, mode)
        (opened,) = yield [opening]
    return (yield from _probe(expect_handle(opened), probe, moved, own))


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


def _probe(handle: bytes, probe: bytes, moved: bytes, own: bytes) -> Conversation[Facts]:
    """Find out what the file system does, with a file that is open in a directory of its own."""
    swapped = own.rpartition(b"/")[0] + b"/" + own.rpartition(b"/")[2].upper()
    wanted = wire.Attrs(mode=PROBE_MODE, mtime=wire_time(PROBE_TIME_NS))
    _, closed, folded, renamed = yield [
        *(wire.fsetstat(handle, wanted), wire.close(handle)),
        *(wire.lstat(swapped), wire.rename(probe, moved)),
    ]
    expect_ok(closed)
    directory = moved if is_status(renamed, OK) else probe
    file = join(directory, PROBE)
    found, *removed = yield [wire.lstat(file), wire.remove(file), wire.rmdir(directory)]
    for reply in removed:
        expect_ok(reply)
    kept = expect_attrs(found)
    return Facts(
        keeps_times=kept.mtime == wanted.mtime,
        keeps_modes=kept.mode is not None and kept.mode & 0o777 == PROBE_MODE,
        folds_case=isinstance(folded, wire.Attrs),
        moves_directories=directory == moved,
    )


def _ended(_result: None, _error: BaseException | None) -> None:
    """Nobody waits for it: a lost link is told by all that is under way, a refusal does no harm."""
