"""The manifest's payloads: headers, blocks of entries and deltas, to bytes and back. No I/O.

What comes from a server is bounded before it is parsed. What a reader would refuse, a writer
refuses as well (`path_fault`, `entry_fault`), so no skynet writes what the next cannot load.
The files around the payloads are cut by `manifest_frames`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
import zstandard

from skynet.errors import SkynetError
from skynet.manifest_frames import CHECKPOINT, LOG, MAX_RECORD, Framer, Records, preamble
from skynet.remote.verbs import Facts
from skynet.rules import RESERVED
from skynet.tree import Edit, Entry, Move, Put, is_below, join

HEADER, BLOCK, END, DELTA, PACKED_DELTA = range(1, 6)

MAX_PATH = 1 << 16
MAX_NAME = 1 << 10
MAX_LINK = 1 << 16
MAX_INT = (1 << 63) - 1
MAX_MODE = 0o7777
MAX_ORIGIN = 1 << 12  # characters

# Far below MAX_RECORD: the last item that goes into a record may weigh 200 KiB by itself.
_BLOCK_TARGET = 1 << 18
_DELTA_TARGET = 1 << 20
_FIELDS_WEIGHT = 48  # about what an entry's numbers and digest take, in bytes

# Most paths by far. What it does not match may be fit as well; dots and skynet's own are not.
_USUAL_PATH = re.compile(rb"(?:[^/.\0][^/\0]{0,250}/){0,100}[^/.\0][^/\0]{0,250}")

_COUNT = struct.Struct(">Q")

_Generation = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
_Block = list[tuple[bytes, list[tuple[bytes, Entry]]]]


class Header(msgspec.Struct, frozen=True):
    """What a checkpoint says of itself: `generation` is that of the tree it holds.

    mirror_id: 1 to 64 random bytes made at first contact. origin: who mirrors what to here, for
    people to read.
    """

    mirror_id: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
    generation: _Generation
    origin: Annotated[str, msgspec.Meta(max_length=MAX_ORIGIN)]
    facts: Facts = Facts()


class Head(msgspec.Struct, frozen=True):
    """Where a manifest stands: equal heads mean equal trees.

    checkpoint: its 16-byte id. seal: the chain at the checkpoint's end. chain: the chain at the
    log's end. generation: that of the last delta. Sizes in bytes. torn: the log goes on behind
    `log_size` with an incomplete record, which the next append has to cut off.
    """

    header: Header
    checkpoint: bytes
    seal: bytes
    checkpoint_size: int
    generation: int
    chain: bytes
    log_size: int
    torn: bool = False


class _Delta(msgspec.Struct, frozen=True, array_like=True):
    generation: _Generation
    edits: list[Edit]


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_block = msgspec.msgpack.Decoder(_Block).decode
_decode_delta = msgspec.msgpack.Decoder(_Delta).decode

# What decoding raises for bytes that are none of ours: text that is no UTF-8 and values nested
# without end have errors of their own.
_MALFORMED = (msgspec.DecodeError, zstandard.ZstdError, UnicodeDecodeError, RecursionError)


# What a manifest can hold ------------------------------------------------------------------


def path_fault(path: bytes) -> str:
    """Why a manifest cannot hold `path`; "" when it can."""
    if _USUAL_PATH.fullmatch(path):
        return ""
    if len(path) > MAX_PATH:
        return f"a path of {len(path)} bytes ({MAX_PATH} are allowed)"
    names = path.split(b"/")
    if names[0] == RESERVED:
        return f"{RESERVED.decode()}, which is skynet's own"
    return _names_fault(names)


def entry_fault(entry: Entry) -> str:
    """Why a manifest cannot hold `entry`; "" when it can."""
    if not 0 <= entry.size <= MAX_INT:
        return f"size {entry.size} is out of range"
    if not -MAX_INT <= entry.mtime_ns <= MAX_INT:
        return f"time {entry.mtime_ns} is out of range"
    if entry.mode is not None and not 0 <= entry.mode <= MAX_MODE:
        return f"mode {entry.mode:o} is out of range"
    if len(entry.digest) not in (0, 16):
        return f"a digest of {len(entry.digest)} bytes"
    if len(entry.link) > MAX_LINK or b"\0" in entry.link:
        return "a link target that is too long or holds a NUL"
    return ""


def _names_fault(names: list[bytes]) -> str:
    """Why one of `names` is none; judges them together, since there are so many."""
    joined = b"/".join(names)
    if not names or joined.count(b"/") >= len(names) or b"\0" in joined:
        return "a name with a slash or NUL in it, or an empty directory listing"
    if not {b"", b".", b".."}.isdisjoint(names):
        return "an empty or dot name"
    longest = max(map(len, names))
    if longest > MAX_NAME:
        return f"a name of {longest} bytes ({MAX_NAME} are allowed)"
    return ""


def _listing_fault(directory: bytes, names: list[bytes]) -> str:
    if not directory and RESERVED in names:
        return path_fault(RESERVED)
    longest = max(names, key=len, default=b"")
    return path_fault(join(directory, longest)) or _names_fault(names)


def _block_fault(block: _Block) -> str:
    for directory, rows in block:
        if fault := _listing_fault(directory, [name for name, _ in rows]):
            return f"{fault}, in directory {directory[:80]!r}"
        for name, entry in rows:
            if fault := entry_fault(entry):
                return f"{fault}, at {join(directory, name)[-80:]!r}"
    return ""


def _edits_fault(edits: Iterable[Edit]) -> str:
    for edit in edits:
        fault = path_fault(edit.path)
        if isinstance(edit, Put):
            fault = fault or entry_fault(edit.entry)
        elif isinstance(edit, Move):
            fault = fault or path_fault(edit.source)
            if is_below(edit.path, edit.source) or is_below(edit.source, edit.path):
                fault = fault or "a move between a directory and its own inside"
        if fault:
            return f"{fault}, at {edit.path[-80:]!r}"
    return ""


def _refuse(fault: str) -> None:
    if fault:
        raise SkynetError(f"The manifest cannot hold {fault}. Rename it or ignore it.", "unfit")


# Writing -----------------------------------------------------------------------------------


class CheckpointWriter:
    """Encodes one checkpoint; once `chunks` is exhausted, `seal` and `size` are the file's."""

    def __init__(self, checkpoint: bytes, header: Header) -> None:
        self._start = preamble(CHECKPOINT, checkpoint)
        self._framer = Framer.behind(self._start)
        self._header = _encode(header)
        _decode_header(self._header)  # only decoding checks the bounds

    @property
    def seal(self) -> bytes:
        """The chain at the end of what was written."""
        return self._framer.chain

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._framer.size

    def chunks(self, entries: Iterable[tuple[bytes, Entry]]) -> Iterator[bytes]:
        """The file in pieces of some 100 KiB. `entries` (path, entry): a directory's together."""
        compress = zstandard.ZstdCompressor(level=3).compress
        frame = self._framer.frame
        count = 0
        yield self._start + frame(HEADER, self._header)
        for block in _blocks(entries):
            _refuse(_block_fault(block))
            count += sum(len(rows) for _, rows in block)
            yield frame(BLOCK, compress(_encode(block)))
        yield frame(END, _COUNT.pack(count))


def log_start(checkpoint: bytes, mirror_id: bytes) -> tuple[bytes, Framer]:
    """The first bytes of a log, and the framer that goes on behind them."""
    start = preamble(LOG, checkpoint)
    framer = Framer.behind(start)
    return start + framer.frame(HEADER, mirror_id), framer


def encode_deltas(generation: int, edits: Sequence[Edit]) -> Iterator[tuple[int, bytes]]:
    """Tag and payload of the records that hold `edits`: at least one, each within bounds."""
    _refuse(_edits_fault(edits))
    compress = zstandard.ZstdCompressor(level=3).compress
    for part in _parts(edits):
        plain = _encode(_Delta(generation, part))
        packed = compress(plain)
        yield (PACKED_DELTA, packed) if len(packed) < len(plain) else (DELTA, plain)


def _blocks(entries: Iterable[tuple[bytes, Entry]]) -> Iterator[_Block]:
    block: _Block = []
    rows: list[tuple[bytes, Entry]] = []
    current: bytes | None = None
    weight = 0
    for path, entry in entries:
        directory, slash, name = path.rpartition(b"/")
        if slash and not directory:
            _refuse(path_fault(path))
        if directory != current:
            current, rows = directory, []
            block.append((directory, rows))
            weight += len(directory)
        rows.append((name, entry))
        weight += len(name) + len(entry.link) + _FIELDS_WEIGHT
        if weight >= _BLOCK_TARGET:
            yield block
            block, current, weight = [], None, 0
    if block:
        yield block


def _parts(edits: Sequence[Edit]) -> Iterator[list[Edit]]:
    part: list[Edit] = []
    weight = 0
    for edit in edits:
        part.append(edit)
        more = edit.entry.link if isinstance(edit, Put) else b""
        more = edit.source if isinstance(edit, Move) else more
        weight += len(edit.path) + len(more) + _FIELDS_WEIGHT
        if weight >= _DELTA_TARGET:
            yield part
            part, weight = [], 0
    if part or not edits:
        yield part


# Reading -----------------------------------------------------------------------------------


def read_header(records: Records) -> Header:
    """The header of a checkpoint, its first record."""
    tag, payload = next(iter(records), (0, b""))
    if tag != HEADER:
        raise records.damaged("the header is missing")
    try:
        return _decode_header(payload)
    except _MALFORMED as error:
        raise records.damaged(f"the header: {error}") from error


def read_entries(records: Records) -> Iterator[tuple[bytes, Entry]]:
    """The (path, entry) pairs behind a checkpoint's header, in the order written."""
    count = 0
    ended = False
    for tag, payload in records:
        if ended or tag not in (BLOCK, END):
            raise records.damaged(f"a record {tag} where none belongs")
        if tag == BLOCK:
            for directory, rows in _read_block(records, payload):
                count += len(rows)
                prefix = directory + b"/" if directory else b""
                for name, entry in rows:
                    yield prefix + name, entry
        elif payload != _COUNT.pack(count):
            raise records.damaged(f"the number of entries is not {count}")
        ended = ended or tag == END
    if records.torn or not ended:
        raise records.damaged("the file ends too early")


def read_log_header(records: Records, checkpoint: bytes, mirror_id: bytes) -> bool:
    """Check that a log belongs to the checkpoint; False when it is torn before that shows."""
    record = next(iter(records), None)
    if record is None and records.checkpoint in (b"", checkpoint):
        return False
    if records.checkpoint != checkpoint or record != (HEADER, mirror_id):
        raise records.damaged("the log belongs to another mirror or checkpoint")
    return True


def read_deltas(records: Records, generation: int) -> Iterator[tuple[int, list[Edit]]]:
    """Generation and edits of each delta behind a log's header; the checkpoint's is given."""
    for tag, payload in records:
        delta = _read_delta(records, tag, payload)
        if delta.generation not in (generation, generation + 1):
            raise records.damaged(f"generation {delta.generation} follows {generation}")
        generation = delta.generation
        yield generation, delta.edits


def _read_block(records: Records, payload: bytes) -> _Block:
    try:
        block = _decode_block(_decompress(payload))
    except _MALFORMED as error:
        raise records.damaged(f"a block: {error}") from error
    if fault := _block_fault(block):
        raise records.damaged(fault)
    return block


def _read_delta(records: Records, tag: int, payload: bytes) -> _Delta:
    if tag not in (DELTA, PACKED_DELTA):
        raise records.damaged(f"a record {tag} where none belongs")
    try:
        delta = _decode_delta(_decompress(payload) if tag == PACKED_DELTA else payload)
    except _MALFORMED as error:
        raise records.damaged(f"a delta: {error}") from error
    if fault := _edits_fault(delta.edits):
        raise records.damaged(fault)
    return delta


def _decompress(packed: bytes) -> bytes:
    # The library trusts the size that the frame declares, so that is what has to be bounded.
    size = zstandard.frame_content_size(packed)
    if not 0 < size <= MAX_RECORD:
        raise zstandard.ZstdError(f"{size} bytes when decompressed")
    inflater = zstandard.ZstdDecompressor(max_window_size=2 * MAX_RECORD)
    return inflater.decompress(packed, allow_extra_data=False)
