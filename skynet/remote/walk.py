"""The audit: every directory of the remote, listed ahead of whoever reads, in tree order.

Listings are asked for many at a time and arrive in any order. The directories that are known and
not yet handed out are kept sorted, and the smallest is asked for first. So the listings held in
memory are AHEAD, or fewer that are likely to hold NAMES_AHEAD names, and a BURST for each level
below the root, however large the tree is; beside them are the paths of the directories found and
not yet handed out, which are all the directories of one parent if it has that many.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator
from heapq import heappop, heappush
from queue import SimpleQueue

from skynet.errors import LinkLost, ProtocolError, RequestError
from skynet.remote.verbs import Listed
from skynet.rules import STRAY_TEMP
from skynet.sftp import replies, wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Lanes, Work
from skynet.tree import DIR, FILE, LINK, SECOND, Entry, join, order

_Arrival = tuple[bytes, Listed | None, BaseException | None]

BURST = 64  # directories asked for together
AHEAD = 1024  # directories listed and not yet handed out
NAMES_AHEAD = 100_000  # what these may hold, by what those before them held: some 25 MB
READS_AT_ONCE = 32  # READDIR requests in flight for one large directory
MAX_ENTRIES = 4_000_000  # in one directory; a listing that goes on is a server gone mad
MAX_NAME = 4096  # bytes; no file system has longer names
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: LINK}
NOBODYS = STRAY_TEMP + b"nobodys"  # a name that nothing has
MAX_PATH = 64 * 1024  # bytes; a tree that is deeper has no end


def walk(client: Client, root: bytes, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
    """Every directory below `root`, itself (as b"") first; see verbs.Remote.walk."""
    arrived: SimpleQueue[_Arrival] = SimpleQueue()
    first = _listing(root, b"", arrived)
    client.pin(first.conversation, first.done)  # which waits for nothing that is asked before
    return _go_on(client, root, hides, arrived)


def _go_on(
    client: Client, root: bytes, hides: Callable[[bytes], bool], arrived: SimpleQueue[_Arrival]
) -> Iterator[Listed]:
    client.widen()
    known = [(order(b""), b"")]  # to be handed out
    waiting: list[tuple[bytes, bytes]] = []  # to be asked for
    listed: dict[bytes, Listed] = {}
    in_flight, count, names = 1, 0, 0
    while known:
        _, directory = known[0]
        room = min(AHEAD, NAMES_AHEAD * count // max(names, 1)) - in_flight - len(listed)
        # In bursts, which share packets and wake-ups; but what is needed next is asked at once.
        if waiting and (room >= BURST or waiting[0][1] == directory):
            paths = [heappop(waiting)[1] for _ in range(min(max(room, BURST), len(waiting)))]
            client.submit_all([_listing(root, path, arrived) for path in paths])
            in_flight += len(paths)
        if directory not in listed:
            path, got, error = arrived.get()  # the client's supervisor bounds this wait
            in_flight -= 1
            listed[path] = _accept(path, got, error)
            count += 1
            names += len(listed[path].children)
            for name, entry in listed[path].children.items():
                if entry.kind != DIR:
                    continue
                child = join(path, name)
                expect_end_of_depth(child)
                if not hides(child):
                    heappush(known, (order(child), child))
                    heappush(waiting, (order(child), child))
            continue
        heappop(known)
        yield listed.pop(directory)


def expect_end_of_depth(path: bytes) -> None:
    """ProtocolError for what is deeper than any tree."""
    if len(path) > MAX_PATH:
        raise ProtocolError("The server lists directories that nest without end.")


def expect_end_of_names(count: int) -> None:
    """ProtocolError for more names than any directory has."""
    if count > MAX_ENTRIES:
        raise ProtocolError(f"The server lists more than {MAX_ENTRIES} names in a directory.")


def _listing(root: bytes, directory: bytes, arrived: SimpleQueue[_Arrival]) -> Work:
    """Lists one directory. What it holds arrives as soon as it is known, an error in the end."""

    def tell(listed: Listed) -> None:
        arrived.put((directory, listed, None))

    def end(_: None, error: BaseException | None) -> None:
        if error is not None:  # if it was listed already, the link is lost, which ends the walk
            arrived.put((directory, None, error))

    return Work(_list(root, directory, tell), end)


def _accept(path: bytes, got: Listed | None, error: BaseException | None) -> Listed:
    if got is not None:
        return got
    if isinstance(error, RequestError):
        return Listed(path, {}, frozenset(), error)
    raise error or LinkLost("The listing was given up.")


def _list(root: bytes, directory: bytes, tell: Callable[[Listed], None]) -> Conversation[None]:
    full = _below(root, directory) if directory else root
    (reply,) = yield [wire.opendir(full)]
    handle = replies.expect_handle(reply)
    children: dict[bytes, Entry] = {}
    unknown: set[bytes] = set()
    try:
        if not (yield from _read_names(handle, children, unknown)):
            yield from _expect_empty(full)
    except Exception:
        yield [wire.close(handle)]
        raise
    # What is below need not wait for this to be closed; that is asked first, and nobody waits.
    ending = Lanes([_close(handle), _finish(full, directory, children, unknown, tell)])
    del children, unknown  # they belong to whoever is told of them
    yield ending


def _close(handle: bytes) -> Conversation[None]:
    yield [wire.close(handle)]


def _finish(
    full: bytes,
    directory: bytes,
    children: dict[bytes, Entry],
    unknown: set[bytes],
    tell: Callable[[Listed], None],
) -> Conversation[None]:
    yield from _read_links(full, children, unknown)
    tell(Listed(directory, children, frozenset(unknown), None))


def _below(full: bytes, path: bytes) -> bytes:
    return full.rstrip(b"/") + b"/" + path


def _read_names(
    handle: bytes, children: dict[bytes, Entry], unknown: set[bytes]
) -> Conversation[int]:
    """How many names there were, "." and ".." among them where the server lists these."""
    at_once, at_end, count, longest = 2, False, 0, 0
    while not at_end:
        for answer in (yield [wire.readdir(handle)] * at_once):
            if at_end and isinstance(answer, replies.Status):
                continue  # some servers refuse to read past the end
            names = replies.expect_names(answer)
            at_end = at_end or not names
            count += len(names)
            longest = max(longest, len(names))
            _understand(names, children, unknown)
        expect_end_of_names(count)
        # An answer shorter than another was is most often the last one that has names.
        at_once = min(2 * at_once, READS_AT_ONCE) if len(names) == longest else 1
    return count


def _expect_empty(full: bytes) -> Conversation[None]:
    """RequestError unless names in the directory can be looked at: it lists none, not even ".".

    That is how OpenSSH lists, without an error, what this account may read and not enter.
    """
    (reply,) = yield [wire.lstat(_below(full, NOBODYS))]
    if not replies.is_status(reply, replies.NO_SUCH_FILE):
        replies.expect_attrs(reply)
        raise RequestError("Something is in it that is not listed.", "failure")


def _understand(
    names: list[replies.Named], children: dict[bytes, Entry], unknown: set[bytes]
) -> None:
    found = dict(names)
    is_new = found.keys().isdisjoint(children) and found.keys().isdisjoint(unknown)
    if len(found) < len(names) or not is_new:
        raise ProtocolError("The server lists a name twice in one directory.")
    found.pop(b".", None)
    found.pop(b"..", None)
    _expect_possible(found)
    for name, attrs in found.items():
        entry = entry_of(attrs)
        if entry is None:
            unknown.add(name)
        else:
            children[name] = entry


def _expect_possible(names: Collection[bytes]) -> None:
    """ProtocolError for a name that no directory has; all at once, since names are many."""
    together, lengths = b"/".join(names), {*map(len, names)}
    has_others = b"\0" in together or together.count(b"/") >= len(names)
    if names and (has_others or min(lengths) == 0 or max(lengths) > MAX_NAME):
        name = next(name for name in names if not _is_possible(name))
        raise ProtocolError(f"The server lists an impossible name: {name[:80]!r}.")


def _is_possible(name: bytes) -> bool:
    return 0 < len(name) <= MAX_NAME and b"/" not in name and b"\0" not in name


def _read_links(
    full: bytes, children: dict[bytes, Entry], unknown: set[bytes]
) -> Conversation[None]:
    links = [name for name, entry in children.items() if entry.kind == LINK]
    if links:
        answers = yield [wire.readlink(_below(full, name)) for name in links]
        for name, answer in zip(links, answers, strict=True):
            if isinstance(answer, replies.Names) and answer.names:
                children[name] = Entry(LINK, link=answer.names[0][0])
            else:  # gone meanwhile, or a server that does not tell
                del children[name]
                unknown.add(name)


def entry_of(attrs: wire.Attrs) -> Entry | None:
    """What a listing says of a name; None if that is too little, or no entry can hold it."""
    size, mode, _, mtime = attrs
    if mode is None:
        return None
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind == FILE and size is not None and mtime is not None:
        return Entry(FILE, size, mtime * SECOND, stat.S_IMODE(mode))
    if kind == DIR:
        return Entry(DIR, mode=stat.S_IMODE(mode))
    return Entry(LINK) if kind == LINK else None
