"""A manifest that is damaged, torn, newer or hostile is never taken for another tree."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import msgspec
import pytest
import zstandard

from skynet import manifest_codec as codec
from skynet import manifest_frames as frames
from skynet.errors import SkynetError, VersionError
from skynet.manifest import Head, Header, Manifest, ManifestDamaged
from skynet.tree import DIR, FILE, LINK, Drop, Edit, Entry, Move, Put
from tests.support.files import MemoryFiles
from tests.support.manifests import (
    CONTENT,
    HEADER,
    LOG,
    SAMPLE,
    SAMPLE_STATES,
    Tree,
    changed,
    load,
    sample,
    token,
)

# Damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"manifest", LOG])
def test_any_flipped_bit_is_damage(name: bytes) -> None:
    data = CONTENT[name]
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ManifestDamaged):
            load(changed(name, bytes(flipped)))


def test_a_checkpoint_cut_anywhere_is_damage() -> None:
    data = CONTENT[b"manifest"]
    for size in range(len(data)):
        with pytest.raises(ManifestDamaged):
            load(changed(b"manifest", data[:size]))


def test_a_log_cut_anywhere_is_an_earlier_state() -> None:
    data = CONTENT[LOG]
    ends = [*record_ends(data), len(data)]
    for size in range(len(data)):
        tree, head = load(changed(LOG, data[:size]))
        whole = sum(end <= size for end in ends[2:])
        assert tree == SAMPLE_STATES[whole]
        assert head.torn == (size not in ends[1:])
        assert head.generation == HEADER.generation + whole


def record_ends(data: bytes) -> list[int]:
    """Where a log's preamble, and every record behind it but the last, end."""
    records = frames.Records([data], LOG, frames.LOG)
    return [frames.PREAMBLE_SIZE, *(records.offset for _ in records)][:-1]


def test_the_next_append_cuts_a_torn_tail_off() -> None:
    data = CONTENT[LOG]
    for size in range(len(data)):
        files = changed(LOG, data[:size])
        before, head = load(files)
        after = Manifest(files).append(head, [Put(b"z", Entry(DIR))])
        assert load(files) == ({**before, b"z": Entry(DIR)}, after)
        assert not after.torn


def test_damage_names_file_and_place() -> None:
    data = CONTENT[LOG]
    with pytest.raises(ManifestDamaged) as caught:
        load(changed(LOG, data[:-1] + b"?"))
    assert caught.value.offset == record_ends(data)[-1]
    for part in (LOG.decode(), "byte"):
        assert part in str(caught.value)


def test_a_missing_log_is_damage() -> None:
    with pytest.raises(ManifestDamaged, match="missing"):
        load(MemoryFiles({b"manifest": CONTENT[b"manifest"]}))


@pytest.mark.parametrize(
    "other", [codec.log_start(token(16), b"o" * 16)[0], codec.log_start(b"o" * 16, b"m" * 16)[0]]
)
def test_the_log_of_another_mirror_or_checkpoint_is_damage(other: bytes) -> None:
    with pytest.raises(ManifestDamaged, match="another"):
        load(changed(LOG, other))


@pytest.mark.parametrize("name", [b"manifest", LOG])
def test_a_newer_format_is_no_damage(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frames, "VERSION", 2)
        newer = sample()[0].content[name]
    files = changed(name, newer)
    with pytest.raises(VersionError, match="Update skynet"):
        load(files)


def test_a_newer_manifest_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frames, "VERSION", 2)
        files = sample()[0]
    content = dict(files.content)
    with pytest.raises(VersionError):
        Manifest(files).create(HEADER, ())
    assert files.content == content


def test_a_damaged_manifest_can_be_replaced() -> None:
    files = changed(b"manifest", b"garbage")
    head = Manifest(files).create(HEADER, SAMPLE.items())
    assert load(files) == (SAMPLE, head)


# Hostile content ---------------------------------------------------------------------------


def sealed(magic: bytes, records: list[tuple[int, bytes]]) -> bytes:
    """A file whose checks are all right, whatever its payloads are."""
    start = frames.preamble(magic, token(16))
    framer = frames.Framer.behind(start)
    return start + b"".join(framer.frame(*record) for record in records)


def payloads(name: bytes) -> list[tuple[int, bytes]]:
    magic = frames.CHECKPOINT if name == b"manifest" else frames.LOG
    return list(frames.Records([CONTENT[name]], name, magic))


def checkpoint_of(*block: object) -> MemoryFiles:
    packed = zstandard.compress(msgspec.msgpack.encode(block))
    header = payloads(b"manifest")[0]
    end = (codec.END, len(block).to_bytes(8, "big"))
    return changed(b"manifest", sealed(frames.CHECKPOINT, [header, (codec.BLOCK, packed), end]))


def log_of(*edits: Edit) -> MemoryFiles:
    delta = msgspec.msgpack.encode((HEADER.generation + 1, edits))
    header = (codec.HEADER, HEADER.mirror_id)
    return changed(LOG, sealed(frames.LOG, [header, (codec.DELTA, delta)]))


BAD_PATHS = [
    *(b"", b"/", b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"./a", b"a/."),
    *(b"a\0b", b".skynet", b".skynet/manifest", b"n" * 1025, b"a/" * 32768 + b"a"),
]
BAD_ENTRIES = [
    Entry(FILE, size=-1),
    Entry(FILE, size=1 << 63),
    Entry(FILE, mtime_ns=1 << 63),
    Entry(FILE, mode=0o10000),
    Entry(FILE, mode=-1),
    Entry(FILE, digest=b"short"),
    Entry(LINK, link=b"x" * 65537),
    Entry(LINK, link=b"a\0"),
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:12]))
def test_unclean_paths_are_neither_read_nor_written(path: bytes) -> None:
    directory, _, name = path.rpartition(b"/")
    if path != b"/a":  # in a block, the root's listing is no path with a slash in front
        with pytest.raises(ManifestDamaged):
            load(checkpoint_of((directory, [(name, Entry(FILE))])))
    edits: list[Edit] = [Put(path, Entry(FILE)), Drop(path), Move(path, b"b"), Move(b"b", path)]
    for step in edits:
        with pytest.raises(ManifestDamaged):
            load(log_of(step))
        refuses_to_append(step)
    refused(lambda manifest, _: manifest.create(HEADER, [(path, Entry(FILE))]))


@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=lambda entry: repr(entry)[:60])
def test_entries_out_of_range_are_neither_read_nor_written(entry: Entry) -> None:
    with pytest.raises(ManifestDamaged):
        load(checkpoint_of((b"d", [(b"a", entry)])))
    with pytest.raises(ManifestDamaged):
        load(log_of(Put(b"a", entry)))
    refuses_to_append(Put(b"a", entry))
    refused(lambda manifest, _: manifest.create(HEADER, [(b"a", entry)]))


def refuses_to_append(step: Edit) -> None:
    refused(lambda manifest, head: manifest.append(head, [step]))


def refused(write: Callable[[Manifest, Head], object]) -> None:
    files, head = sample()
    with pytest.raises(SkynetError, match="cannot hold") as caught:
        write(Manifest(files), head)
    assert not isinstance(caught.value, ManifestDamaged)
    assert load(files) == (SAMPLE_STATES[-1], head)


@pytest.mark.parametrize("step", [Move(b"a", b"a/b"), Move(b"a/b", b"a")])
def test_moves_into_themselves_are_refused(step: Move) -> None:
    with pytest.raises(ManifestDamaged):
        load(log_of(step))
    refuses_to_append(step)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        zstandard.compress(b""),
        zstandard.compress(b"\0" * (frames.MAX_RECORD + 1)),
        zstandard.compress(b"\x90") + b"more",
        zstandard.ZstdCompressor(write_content_size=False).compress(b"\x90"),
        zstandard.compress(b"\x90")[:-1],
        zstandard.compress(b"\xc1"),
        zstandard.compress(b"\xdd\xff\xff\xff\xff"),
        zstandard.compress(b"\x91" * 100_000),
    ],
)
def test_blocks_that_are_none_are_damage(payload: bytes) -> None:
    header, _, end = payloads(b"manifest")
    data = sealed(frames.CHECKPOINT, [header, (codec.BLOCK, payload), end])
    with pytest.raises(ManifestDamaged):
        load(changed(b"manifest", data))
    data = sealed(frames.LOG, [payloads(LOG)[0], (codec.PACKED_DELTA, payload)])
    with pytest.raises(ManifestDamaged):
        load(changed(LOG, data))


@pytest.mark.parametrize("depth", [10, 100_000])
def test_a_header_with_something_unknown_and_deep(depth: int) -> None:
    known = payloads(b"manifest")[0][1]
    deep = bytes([known[0] + 1]) + known[1:] + b"\xa3new" + b"\x91" * depth + b"\xc0"
    files = changed(
        b"manifest",
        sealed(frames.CHECKPOINT, [(codec.HEADER, deep), *payloads(b"manifest")[1:]]),
    )
    if depth == 10:  # a later skynet of the same format may know more
        assert load(files)[0] == SAMPLE_STATES[-1]
    else:
        with pytest.raises(ManifestDamaged):
            load(files)


def test_a_record_too_large_is_not_read() -> None:
    start = frames.preamble(frames.LOG, token(16))
    oversized = frames.Framer.behind(start).frame(codec.HEADER, bytes(frames.MAX_RECORD + 1))
    with pytest.raises(ManifestDamaged, match="too large"):
        load(changed(LOG, start + oversized[:9]))


def test_records_where_none_belong_are_damage() -> None:
    header, block, end = payloads(b"manifest")
    for records in (
        [header, end],
        [header, block],
        [block, end],
        [header, header, block, end],
        [header, block, end, end],
        [header, block, end, block],
        [header, (99, b""), block, end],
    ):
        with pytest.raises(ManifestDamaged):
            load(changed(b"manifest", sealed(frames.CHECKPOINT, records)))
    start, first, second, third = payloads(LOG)
    for records in ([start, second], [start, first, third], [start, start], [start, block]):
        with pytest.raises(ManifestDamaged):
            load(changed(LOG, sealed(frames.LOG, records)))


# Fuzz --------------------------------------------------------------------------------------

EXAMPLES = int(os.environ.get("SKYNET_EXAMPLES", "20000"))


def mutated(data: bytes, noise: random.Random) -> bytes:
    """`data` with a few bytes flipped, cut out, doubled, or put in."""
    changing = bytearray(data)
    for _ in range(noise.randint(1, 3)):
        at = noise.randrange(len(changing) + 1)
        end = at + noise.choice([0, 1, 1, 4, 30])
        new = noise.choice([b"", noise.randbytes(1), noise.randbytes(8), changing[at:end] * 2])
        changing[at:end] = new
    return bytes(changing)


def test_fuzzed_files_are_damage_or_an_earlier_state() -> None:
    noise = random.Random(2)
    for _ in range(EXAMPLES // 2):
        name = noise.choice([b"manifest", LOG])
        try:
            tree, head = load(changed(name, mutated(CONTENT[name], noise)))
        except ManifestDamaged:
            continue
        assert tree == SAMPLE_STATES[head.generation - HEADER.generation]


def resealed(name: bytes, noise: random.Random) -> bytes:
    """The file of a liar: some payloads are changed, and all checks made right again."""
    records = payloads(name)
    which = noise.randrange(len(records))
    tag, payload = records[which]
    if tag in (codec.BLOCK, codec.PACKED_DELTA) and noise.random() < 0.8:
        payload = zstandard.compress(mutated(zstandard.decompress(payload), noise))
    else:
        payload = mutated(payload, noise)
    records[which] = (tag, payload)
    return sealed(frames.CHECKPOINT if name == b"manifest" else frames.LOG, records)


def test_fuzzed_lies_are_damage_or_could_have_been_written() -> None:
    noise = random.Random(3)
    loaded = 0
    for _ in range(EXAMPLES // 2):
        name = noise.choice([b"manifest", LOG])
        files = changed(name, resealed(name, noise))
        try:
            tree, head = load(files)
        except ManifestDamaged:
            continue
        loaded += 1
        assert Manifest(files).is_current(head)
        for path, entry in tree.items():
            assert codec.path_fault(path) == codec.entry_fault(entry) == ""
        assert load_again(head.header, tree) == tree
    assert loaded  # else nothing got past the checks, and nothing was tried


def load_again(header: Header, tree: Tree) -> Tree:
    files = MemoryFiles()
    Manifest(files).create(header, tree.items())
    return load(files)[0]
