"""Replies are parsed, checked, and bounded: hostile bytes end in ProtocolError and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import ProtocolError, RequestError
from skynet.sftp import replies
from skynet.sftp.replies import Data, Extended, Handle, Names, Packets, Reply, Status
from skynet.sftp.wire import Attrs, string
from tests.support import frames

USUAL = Attrs(12, 0o100644, 1_600_000_000, 1_700_000_000)
LISTING = [(b"a\xff\n", USUAL), (b"b", Attrs(mode=0o40755)), (b"", Attrs())]
SAMPLES = {
    "status": frames.status(1, replies.FAILURE, b"no room"),
    "ok": frames.status(2, replies.OK),
    "handle": frames.handle(3, b"\0\0\0\x01"),
    "data": frames.data(4, b"content" * 9),
    "names": frames.names(5, LISTING),
    "attrs": frames.attrs(6, USUAL),
    "limits": frames.limits(7, packet=1, read=2, write=3, handles=4),
}
FUZZED = 30_000


def parse(packet: bytes) -> Reply:
    return replies.parse_reply(packet[4:])[1]


def test_every_reply_is_read_with_its_id() -> None:
    found = [replies.parse_reply(packet[4:]) for packet in SAMPLES.values()]
    assert [request_id for request_id, _ in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [reply for _, reply in found] == [
        Status(replies.FAILURE, b"no room"),
        Status(replies.OK, b""),
        Handle(b"\0\0\0\x01"),
        Data(b"content" * 9),
        Names(LISTING),
        USUAL,
        Extended(pack(">QQQQ", 1, 2, 3, 4)),
    ]


def test_names_with_owners_are_read_fast_and_slow_alike() -> None:
    usual = pack(">IQIIIII", 0xF, 12, 1000, 1000, 0o100644, 5, 6)
    extended = pack(">IQIII", 0x80000007, 12, 1000, 1000, 0o100600)
    extended += pack(">I", 1) + string(b"acl") + string(b"x")
    body = b"".join(string(n) + string(b"-rw-") + a for n, a in [(b"a", usual), (b"b", extended)])
    packet = pack(">BII", frames.NAME, 9, 2) + body
    assert replies.parse_reply(packet)[1] == Names(
        [(b"a", Attrs(12, 0o100644, 5, 6)), (b"b", Attrs(12, 0o100600))]
    )


def test_a_status_without_a_message_is_a_status() -> None:
    assert replies.parse_reply(pack(">BII", frames.STATUS, 1, 4))[1] == Status(4, b"")


def test_a_packet_of_unknown_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown type 77"):
        replies.parse_reply(pack(">BI", 77, 1))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in ("ok", "limits")])
def test_a_reply_cut_short_anywhere_is_refused(name: str) -> None:
    whole = SAMPLES[name][4:]
    for size in range(9 if name == "status" else len(whole)):
        with pytest.raises(ProtocolError):
            replies.parse_reply(whole[:size])


def test_a_count_of_names_beyond_the_packet_is_refused() -> None:
    with pytest.raises(ProtocolError):
        replies.parse_reply(pack(">BII", frames.NAME, 1, 0xFFFFFFFF))


def test_a_count_of_extended_attributes_beyond_the_packet_is_refused() -> None:
    with pytest.raises(ProtocolError):
        replies.parse_reply(pack(">BIII", frames.ATTRS, 1, 0x80000000, 0xFFFFFFFF))


# What cannot be trusted -------------------------------------------------------------------------


def mutate(chance: random.Random, packet: bytes) -> bytes:
    """The packet with some of its bytes changed, cut off, repeated, or made a huge length."""
    changed = bytearray(packet)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            changed[at:] = b""
        elif kind == 1:
            changed[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        elif kind == 2:
            changed[at:at] = changed[: chance.randrange(16)]
        else:
            changed[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(changed)


def refuses_or_accepts(parser: Callable[[bytes], object], data: bytes) -> bool:
    """Whether it was accepted; any error but ProtocolError goes on."""
    try:
        parser(data)
    except ProtocolError:
        return False
    return True


def test_mutated_replies_are_refused_or_harmless() -> None:
    chance = random.Random(2)
    samples = [packet[4:] for packet in SAMPLES.values()]
    accepted = sum(
        refuses_or_accepts(replies.parse_reply, mutate(chance, chance.choice(samples)))
        for _ in range(FUZZED)
    )
    assert 0 < accepted < FUZZED


def test_mutated_greetings_are_refused_or_harmless() -> None:
    chance = random.Random(3)
    sample = frames.version(b"limits@openssh.com", b"x")[4:]
    accepted = sum(
        refuses_or_accepts(replies.parse_version, mutate(chance, sample)) for _ in range(FUZZED)
    )
    assert 0 < accepted < FUZZED


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_harmless(data: bytes) -> None:
    for parser in (replies.parse_reply, replies.parse_version, replies.parse_limits):
        refuses_or_accepts(parser, data)
    refuses_or_accepts(replies.parse_space, data)
    refuses_or_accepts(lambda stream: list(Packets().feed(stream)), data)


def test_what_is_kept_of_a_hostile_stream_is_bounded() -> None:
    packets = Packets()
    with pytest.raises(ProtocolError, match="login script"):
        list(packets.feed(pack(">I", replies.MAX_PACKET + 1)))
    assert list(Packets().feed(pack(">I", replies.MAX_PACKET) + b"x" * 100)) == []


@pytest.mark.parametrize("length", [0, 4])
def test_a_packet_too_short_for_an_id_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError):
        list(Packets().feed(pack(">I", length) + bytes(10)))


@given(st.lists(st.integers(1, 40), max_size=30))
def test_packets_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(SAMPLES.values())
    packets, found, at = Packets(), [], 0
    for cut in [*cuts, len(stream)]:
        found += list(packets.feed(stream[at : at + cut]))
        at += cut
    assert found == [packet[4:] for packet in SAMPLES.values()]


# The greeting and the limits --------------------------------------------------------------------


def test_the_greeting_tells_the_extensions() -> None:
    packet = frames.version(b"limits@openssh.com", b"fsync@openssh.com")[4:]
    assert replies.parse_version(packet) == {
        b"limits@openssh.com": b"1",
        b"fsync@openssh.com": b"1",
    }


@pytest.mark.parametrize("packet", [frames.version(number=2), frames.status(3, 0)])
def test_another_version_or_another_packet_is_no_greeting(packet: bytes) -> None:
    with pytest.raises(ProtocolError, match="version 3 is needed"):
        replies.parse_version(packet[4:])


def test_limits_and_free_space_are_read_and_bounded() -> None:
    assert replies.parse_limits(pack(">QQQQ", 1, 2, 3, 4)) == (1, 2, 3, 4)
    space = pack(">11Q", 9, 4096, 9, 9, 5, 7, 9, 0, 9, 1, 9)
    assert replies.parse_space(space) == (5 * 4096, False, True)
    uncounted = pack(">11Q", 9, 4096, 9, 9, 5, 0, 0, 0, 9, 0, 9)
    assert replies.parse_space(uncounted) == (5 * 4096, True, False)
    for parser in (replies.parse_limits, replies.parse_space):
        with pytest.raises(ProtocolError):
            parser(b"short")


# What was expected ------------------------------------------------------------------------------

EXPECTATIONS: list[tuple[Callable[[Reply], object], Reply, object]] = [
    (replies.expect_ok, Status(replies.OK, b""), None),
    (replies.expect_handle, Handle(b"h"), b"h"),
    (replies.expect_attrs, USUAL, USUAL),
    (replies.expect_data, Data(b"d"), b"d"),
    (replies.expect_data, Status(replies.EOF, b""), b""),
    (replies.expect_names, Names([]), []),
    (replies.expect_names, Status(replies.EOF, b""), []),
]


@pytest.mark.parametrize(("expect", "reply", "value"), EXPECTATIONS)
def test_what_was_expected_is_handed_on(
    expect: Callable[[Reply], object], reply: Reply, value: object
) -> None:
    assert expect(reply) == value


@pytest.mark.parametrize("expect", [expect for expect, _, _ in EXPECTATIONS])
def test_a_failure_is_the_error_of_that_request(expect: Callable[[Reply], object]) -> None:
    with pytest.raises(RequestError, match="go away") as caught:
        expect(Status(replies.PERMISSION_DENIED, b"go away"))
    assert caught.value.code == "permission-denied"


@pytest.mark.parametrize("expect", [expect for expect, _, _ in EXPECTATIONS])
def test_an_answer_that_does_not_fit_is_the_servers_fault(
    expect: Callable[[Reply], object],
) -> None:
    with pytest.raises(ProtocolError):
        expect(Extended(b""))


def test_success_where_a_value_was_expected_is_the_servers_fault() -> None:
    with pytest.raises(ProtocolError):
        replies.expect_handle(Status(replies.OK, b""))


@pytest.mark.parametrize(
    ("code", "name"), [(8, "unsupported"), (4_000_000_000, "status-4000000000")]
)
def test_a_refusal_without_words_says_its_code(code: int, name: str) -> None:
    error = replies.refusal(Status(code, b""))
    assert (error.code, str(error)) == (name, name)


def test_the_words_of_a_refusal_are_short_and_printable() -> None:
    words = str(replies.refusal(Status(4, b"\x1b[31mred\n\xff" + b"x" * 10_000)))
    assert words.isprintable()
    assert words.startswith("?[31mred?\\xff")
    assert len(words) < 300
