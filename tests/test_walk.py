"""The audit's walk: order, bounds, and listings that no honest server gives."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import pytest

from skynet.errors import LinkLost, ProtocolError, RequestError
from skynet.remote import walk as room
from skynet.remote.removal import empty
from skynet.remote.verbs import Listed
from skynet.remote.walk import walk
from skynet.sftp import replies, wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from skynet.sftp.wire import Attrs
from skynet.tree import DIR, FILE, LINK, Entry, order
from tests.support import frames
from tests.support.command import bound_by_modes
from tests.support.faults import Act, FaultConnection, nth
from tests.support.frames import Asked
from tests.support.pipes import client_over, pipe_client
from tests.support.scripted import ScriptedConnection, greeting
from tests.support.turns import TurnConnection, Turns

A_FILE = Attrs(7, 0o100644, 1, 1)
A_DIR = Attrs(mode=0o40755)
A_LINK = Attrs(mode=0o120777)
Batch = list[tuple[bytes, Attrs]]


def refusing(status: int) -> Callable[[int], bytes]:
    return lambda number: frames.status(number, status)


class Listings:
    """Answers as a server whose directories hold what `batches(path)` says, READDIR by READDIR.

    nobodys: the answer about a name that is not listed. asked: the directories opened so far.
    open: those not yet closed. reads: how many READDIRs.
    """

    def __init__(self, batches: Callable[[bytes], Iterable[Batch]]) -> None:
        self._batches = batches
        self._reading: dict[bytes, Iterator[Batch]] = {}
        self.asked: list[bytes] = []
        self.open: set[bytes] = set()
        self.reads = 0
        self.nobodys: Callable[[int], bytes] = refusing(replies.NO_SUCH_FILE)

    def __call__(self, request: Asked) -> Iterable[bytes]:
        number, text = request.request_id, request.text
        if request.kind == "OPENDIR":
            self.asked.append(text)
            self.open.add(text)
            self._reading[text] = iter(self._batches(text))
            return [frames.handle(number, text)]
        if request.kind == "READDIR":
            self.reads += 1
            batch = next(self._reading[text], None)
            if batch is None:
                return [frames.status(number, replies.EOF)]
            return [frames.names(number, batch)]
        if request.kind == "READLINK":
            return [frames.names(number, [(b"target", Attrs())])]
        if request.kind == "LSTAT":
            return [self.nobodys(number)]
        self.open.discard(text)
        return [frames.status(number, replies.OK)]

    def client(self) -> ScriptedConnection:
        return ScriptedConnection(greeting(self))


def listing(*batches: Batch) -> Listings:
    """One directory, without others below it."""
    return Listings(lambda path: batches if path == b"/r" else [])


def walk_all(listings: Listings) -> list[Listed]:
    with client_over(listings.client()) as client:
        return list(walk(client, b"/r", nothing))


def empty_all(listings: Listings) -> int:
    """Remove what is below a directory of our own, as the trash is emptied."""
    with client_over(listings.client()) as client:
        return client.call(empty(b"/r"))


def nothing(path: bytes) -> bool:
    return False


def walk_to_the_last_close(client: Client, root: bytes) -> list[Listed]:
    """The walk waits for no CLOSE, so ask for something that is answered after all of them."""
    found = list(walk(client, root, nothing))

    def ask() -> Conversation[None]:
        yield [wire.realpath(b".")]

    client.call(ask())
    return found


def build(root: Path) -> None:
    for directory in ("a", "a/b", "a-b", "empty", "hidden/below"):
        (root / directory).mkdir(parents=True)
    for file in ("top", "a/one", "a/b/two", "a-b/three", "hidden/below/four"):
        (root / file).write_bytes(file.encode())
        os.utime(root / file, (1_000_000, 1_000_000))
        (root / file).chmod(0o640)


# Honest servers ---------------------------------------------------------------------------------


def test_a_tree_is_listed_whole_and_in_order(tmp_path: Path) -> None:
    build(tmp_path)
    os.symlink("..", tmp_path / "a" / "loop")
    with pipe_client() as client:
        found = list(walk(client, os.fsencode(tmp_path), lambda path: path == b"hidden"))
    directories = [listed.directory for listed in found]
    assert directories == sorted([b"", b"a", b"a/b", b"a-b", b"empty"], key=order)
    tree = {listed.directory: listed.children for listed in found}
    assert tree[b"a"] == {
        b"b": Entry(DIR, mode=(tmp_path / "a" / "b").stat().st_mode & 0o7777),
        b"one": Entry(FILE, 5, 1_000_000 * 10**9, 0o640),
        b"loop": Entry(LINK, link=b".."),
    }
    assert sorted(tree[b""]) == [b"a", b"a-b", b"empty", b"hidden", b"top"]
    assert all(listed.error is None and not listed.unknown for listed in found)


def test_a_directory_takes_four_requests(tmp_path: Path) -> None:
    build(tmp_path)
    connection = FaultConnection()
    with client_over(connection) as client:
        connection.arm(connection.fault)
        found = walk_to_the_last_close(client, os.fsencode(tmp_path))
    assert len(found) == 7
    assert Counter(connection.seen) == {"OPENDIR": 7, "READDIR": 14, "CLOSE": 7, "REALPATH": 1}


def test_a_level_costs_two_turns_with_links_and_without(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/link").symlink_to("x")
    turns = Turns(
        ["OPENDIR"],
        ["READDIR", "READDIR"],
        ["CLOSE", "OPENDIR"],  # the directory below
        ["READDIR", "READDIR"],
        ["CLOSE", "READLINK"],  # with a link, what is there is known a turn later
        ["OPENDIR"],
        ["READDIR", "READDIR"],
        ["CLOSE", "REALPATH"],
    )
    with client_over(TurnConnection(turns)) as client:
        found = walk_to_the_last_close(client, os.fsencode(tmp_path))
    assert [listed.directory for listed in found] == [b"", b"a", b"a/b"]
    turns.check()


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_close_is_answered_concerns_nobody(tmp_path: Path, number: int) -> None:
    build(tmp_path)
    with client_over(FaultConnection(nth("CLOSE", number, replies.FAILURE))) as client:
        found = list(walk(client, os.fsencode(tmp_path), nothing))
    assert [listed.error for listed in found] == [None] * 7


def test_a_link_lost_behind_the_last_listing_is_told_by_whatever_comes_next(
    tmp_path: Path,
) -> None:
    with client_over(FaultConnection(nth("CLOSE", 0, Act.CUT_BEFORE))) as client:
        assert len(list(walk(client, os.fsencode(tmp_path), nothing))) == 1
        with pytest.raises(LinkLost):
            list(walk(client, os.fsencode(tmp_path), nothing))


def test_a_directory_that_may_not_be_entered_is_not_taken_for_empty(tmp_path: Path) -> None:
    """OpenSSH lists nothing there, and says nothing."""
    build(tmp_path)
    connection = FaultConnection()
    connection.prefix = bound_by_modes()
    (tmp_path / "a").chmod(0o644)
    with client_over(connection) as client:
        found = {
            listed.directory: listed for listed in walk(client, os.fsencode(tmp_path), nothing)
        }
        assert connection.seen.count("CLOSE") == connection.seen.count("OPENDIR") == 6
        assert connection.seen.count("LSTAT") == 1
    (tmp_path / "a").chmod(0o755)
    assert isinstance(found[b"a"].error, RequestError)
    assert found[b"a"].error.code == "permission-denied"
    assert {path for path, listed in found.items() if listed.error is None} == {
        *(b"", b"a-b", b"empty", b"hidden", b"hidden/below"),
    }


def test_an_empty_directory_is_asked_about_where_a_server_does_not_list_a_dot() -> None:
    listings = listing()
    assert walk_all(listings) == [Listed(b"", {}, frozenset(), None)]
    for answer in (
        refusing(replies.PERMISSION_DENIED),
        refusing(replies.FAILURE),
        lambda number: frames.attrs(number, A_FILE),
    ):
        listings = listing()
        listings.nobodys = answer
        (listed,) = walk_all(listings)
        assert isinstance(listed.error, RequestError)
        assert listings.open == set()


def test_a_large_directory_is_read_many_batches_at_a_time(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}").touch()
    connection = FaultConnection(reorder=True)
    with client_over(connection) as client:
        (found,) = walk(client, os.fsencode(tmp_path), nothing)
    assert len(found.children) == 3000


def test_the_root_of_the_server_can_be_walked() -> None:
    listings = Listings(lambda path: [[(b"d", A_DIR)]] if path == b"/" else [[(b"l", A_LINK)]])
    with client_over(listings.client()) as client:
        found = [listed.directory for listed in walk(client, b"/", nothing)]
    assert found == [b"", b"d"]
    assert listings.asked == [b"/", b"/d"]


@pytest.mark.parametrize("kind", ["OPENDIR", "READDIR"])
def test_a_directory_that_cannot_be_listed_is_told_and_the_others_go_on(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "link").symlink_to("x")
    (tmp_path / "open").mkdir()
    # The root is listed first; what is refused here is of the directory `locked`.
    number = {"OPENDIR": 1, "READDIR": 2}[kind]
    connection = FaultConnection(nth(kind, number, replies.PERMISSION_DENIED))
    with client_over(connection) as client:
        found = {got.directory: got for got in walk_to_the_last_close(client, bytes(tmp_path))}
    refused = found[b"locked"]
    assert isinstance(refused.error, RequestError)
    assert refused.children == {}
    assert found[b"open"].error is None
    assert connection.seen.count("CLOSE") == (2 if kind == "OPENDIR" else 3)


def test_a_link_that_cannot_be_read_is_unknown_and_alone(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("x")
    (tmp_path / "there").symlink_to("y")
    with client_over(FaultConnection(nth("READLINK", 0, replies.NO_SUCH_FILE))) as client:
        (root,) = walk(client, os.fsencode(tmp_path), nothing)
    assert root.error is None
    assert len(root.children) == len(root.unknown) == 1
    assert {*root.children, *root.unknown} == {b"gone", b"there"}


def test_a_lost_link_ends_the_walk(tmp_path: Path) -> None:
    build(tmp_path)
    connection = FaultConnection(nth("OPENDIR", 3, Act.CUT_BEFORE))
    with client_over(connection) as client, pytest.raises(LinkLost):
        list(walk(client, os.fsencode(tmp_path), nothing))


# Servers with manners of their own --------------------------------------------------------------


def test_what_no_entry_can_hold_is_unknown() -> None:
    strange = [
        (b"device", Attrs(0, 0o60644, 1, 1)),
        (b"without mode", Attrs(5, None, 1, 1)),
        (b"without size", Attrs(None, 0o100644, 1, 1)),
        (b"without time", Attrs(5, 0o100644)),
        (b"file", A_FILE),
    ]
    (found,) = walk_all(listing(strange))
    assert list(found.children) == [b"file"]
    assert found.unknown == {name for name, _ in strange[:4]}


def test_the_directory_itself_and_the_one_above_are_no_entries() -> None:
    (found,) = walk_all(listing([(b".", A_DIR), (b"..", A_DIR), (b"...", A_FILE)]))
    assert list(found.children) == [b"..."]


def test_a_server_that_refuses_to_read_past_the_end_has_listed_all() -> None:
    listings = listing([(b"a", A_FILE)], [(b"b", A_FILE)])

    reads: list[int] = []

    def strict(request: Asked) -> Iterable[bytes]:
        if request.kind == "READDIR":
            reads.append(request.request_id)
        if len(reads) < 3 or request.kind != "READDIR":
            return listings(request)
        code = replies.EOF if len(reads) == 3 else replies.FAILURE
        return [frames.status(request.request_id, code)]

    with client_over(ScriptedConnection(greeting(strict))) as client:
        (found,) = walk(client, b"/r", nothing)
    assert found.error is None
    assert list(found.children) == [b"a", b"b"]


# Hostile servers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [b""],
        [b"/"],
        [b"../outside"],
        [b"/etc/passwd"],
        [b"a/b"],
        [b"a\0b"],
        [b"x" * 5000],
        [b"same", b"same"],
    ],
)
@pytest.mark.parametrize("attrs", [A_FILE, A_DIR, A_LINK, Attrs()])
def test_an_impossible_name_ends_the_walk(names: list[bytes], attrs: Attrs) -> None:
    listings = listing([(b"fine", A_FILE)], [(name, attrs) for name in names])
    with pytest.raises(ProtocolError, match=r"impossible name|a name twice"):
        walk_all(listings)
    assert listings.open == set()


def test_a_listing_that_begins_again_and_again_ends_the_walk() -> None:
    again = Listings(lambda path: ([(b"a", A_FILE), (b"b", A_FILE)] for _ in count()))
    with pytest.raises(ProtocolError, match="a name twice"):
        walk_all(again)


@pytest.mark.parametrize("name", [b"%d", b"."])
def test_a_listing_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.setattr(room, "MAX_ENTRIES", 1000)
    read = 0

    def endless(path: bytes) -> Iterator[Batch]:
        nonlocal read
        for number in count():
            read += 1
            yield [(name % number if b"%" in name else name, A_FILE)]

    for look in (walk_all, empty_all):
        read = 0
        with pytest.raises(ProtocolError, match="more than 1000 names"):
            look(Listings(endless))
        assert read <= 1000 + 2 * room.READS_AT_ONCE


@pytest.mark.parametrize("look", [walk_all, empty_all])
def test_directories_that_nest_without_end_are_given_up(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[Listings], object]
) -> None:
    monkeypatch.setattr(room, "MAX_PATH", 200)
    nested = Listings(lambda path: [[(b"again", A_DIR)]])
    with pytest.raises(ProtocolError, match="without end"):
        look(nested)
    assert len(nested.asked) < 50


def test_what_is_ours_is_removed_however_deep_it_is() -> None:
    depth = 2 * sys.getrecursionlimit()
    nested = Listings(lambda path: [[(b"d", A_DIR)]] if path.count(b"/") < depth else [])
    assert empty_all(nested) == depth - 1
    assert not nested.open


def test_links_are_never_followed() -> None:
    listings = Listings(lambda path: [[(b"loop", A_LINK), (b"file", A_FILE)]])
    (found,) = walk_all(listings)
    assert found.children[b"loop"] == Entry(LINK, link=b"target")
    assert listings.asked == [b"/r"]


# Bounds -----------------------------------------------------------------------------------------


def wide(path: bytes) -> list[Batch]:
    """A tree of 40 directories with 40 directories each."""
    names = [(b"%02d" % number, A_DIR) for number in range(40)]
    return [names] if path.count(b"/") < 3 else []


def walk_slowly(client: Client, listings: Listings) -> Iterator[int]:
    """After every directory: how many have been asked for and not handed out."""
    for handed_out, _ in enumerate(walk(client, b"/r", nothing), 1):
        yield len(listings.asked) - handed_out


def test_no_more_than_some_directories_are_held_ahead_of_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "AHEAD", 8)
    monkeypatch.setattr(room, "BURST", 4)
    listings = Listings(wide)
    with client_over(listings.client()) as client:
        ahead = list(walk_slowly(client, listings))
    assert len(ahead) == 1 + 40 + 40 * 40
    assert max(ahead) <= 8 + 2 * 4  # two levels below the root


def test_the_more_names_directories_hold_the_fewer_are_held_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: bytes) -> list[Batch]:
        kind = A_DIR if path == b"/r" else A_FILE
        return [[(b"%02d" % number, kind) for number in range(40)]]

    monkeypatch.setattr(room, "BURST", 4)
    monkeypatch.setattr(room, "NAMES_AHEAD", 8 * 40)
    listings = Listings(full)
    with client_over(listings.client()) as client:
        ahead = list(walk_slowly(client, listings))
    assert len(ahead) == 1 + 40
    assert max(ahead) <= 8 + 4


def test_behind_a_short_answer_a_listing_asks_once_at_a_time() -> None:
    """It is most often the last one that has names; if it is not, the listing is whole still."""
    files = [(b"%03d" % number, A_FILE) for number in range(10)]
    usual = listing(files[:8], files[8:])
    odd = listing(files[:7], files[7:8], files[8:9], files[9:])
    assert [len(found.children) for found in walk_all(usual) + walk_all(odd)] == [10, 10]
    assert (usual.reads, odd.reads) == (2 + 1, 2 + 1 + 1 + 1)


def test_directories_are_asked_for_side_by_side() -> None:
    # The second directory is answered when 20 have been asked for: one at a time would stall.
    listings = Listings(wide)
    held: list[bytes] = []

    def crowd(request: Asked) -> Iterable[bytes]:
        held.extend(listings(request))
        if 1 < len(listings.asked) < 20:
            return []
        answers = held[:]
        held.clear()
        return answers

    with client_over(ScriptedConnection(greeting(crowd))) as client:
        assert sum(1 for _ in walk(client, b"/r", nothing)) == 1 + 40 + 40 * 40
