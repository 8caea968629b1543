"""The manifest store: what is written loads, and what that costs in requests."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import manifest_frames as frames
from skynet.errors import LinkLost
from skynet.manifest import Head, Manifest, wants_compaction
from skynet.tree import FILE, LINK, Drop, Edit, Entry, Put, edit
from tests.support.files import MemoryFiles
from tests.support.histories import History, entries, histories
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
)

DATA = Path(__file__).parent / "data"

# What is written loads ---------------------------------------------------------------------


@given(histories(), st.lists(st.integers(0, 40), max_size=4).map(sorted), st.integers(1, 99))
def test_what_is_written_loads(history: History, cuts: list[int], chunk: int) -> None:
    bounds = [0, *cuts, len(history.edits)]
    parts = [history.edits[low:high] for low, high in pairwise(bounds)]
    tree: Tree = {}
    edit(tree, parts[0])
    files = MemoryFiles(chunk=chunk)
    manifest = Manifest(files)
    head = manifest.create(HEADER, tree.items())
    for part in parts[1:]:
        head = manifest.append(head, part)
    assert head.generation == HEADER.generation + len(parts) - 1
    assert load(files) == (history.tree, head)


@given(st.lists(entries, min_size=1))
def test_entries_of_one_directory_keep_their_order(some: list[Entry]) -> None:
    listed = [(b"%06d" % number, entry) for number, entry in enumerate(some)]
    files = MemoryFiles()
    Manifest(files).create(HEADER, listed)
    loaded = Manifest(files).load()
    assert loaded is not None
    assert loaded.header == HEADER
    assert list(loaded.entries) == listed


def test_what_an_old_skynet_wrote_loads() -> None:
    files = MemoryFiles(
        {path.name.encode(): path.read_bytes() for path in DATA.glob("manifest-v1/*")}
    )
    tree, head = load(files)
    assert tree == SAMPLE_STATES[-1]
    assert head.header == HEADER
    assert head.generation == HEADER.generation + 3
    assert Manifest(files).is_current(head)


def test_no_manifest_is_none() -> None:
    assert Manifest(MemoryFiles()).load() is None


def test_an_append_larger_than_a_record_is_split() -> None:
    files = MemoryFiles()
    noise = random.Random(1)
    edits: list[Edit] = [
        Put(b"%03d" % number, Entry(LINK, link=noise.randbytes(60_000).replace(b"\0", b"x")))
        for number in range(100)
    ]
    head = Manifest(files).append(Manifest(files).create(HEADER, ()), edits)
    tree, loaded = load(files)
    assert tree == {step.path: step.entry for step in edits if isinstance(step, Put)}
    assert loaded == head
    assert head.generation == HEADER.generation + 1
    assert head.log_size > frames.MAX_RECORD


def test_an_append_of_nothing_counts() -> None:
    files = MemoryFiles()
    head = Manifest(files).append(Manifest(files).create(HEADER, ()), [])
    assert load(files) == ({}, head)


def many(count: int) -> Iterator[tuple[bytes, Entry]]:
    noise = random.Random(1)
    for number in range(count):
        path = b"projects/film%03d/scene%04d/IMG_%04d_render.exr"
        mtime = 1_700_000_000_000_000_000 + noise.randrange(10**17)
        size = int(noise.lognormvariate(12, 3))
        where = (number // 10_000, number // 100, number % 100)
        yield path % where, Entry(FILE, size, mtime, 0o644, noise.randbytes(16))


def test_a_large_tree_is_small_on_the_wire_and_in_memory() -> None:
    count = 50_000
    files = MemoryFiles(chunk=1 << 16)
    head = Manifest(files).create(HEADER, many(count))
    assert head.checkpoint_size / count <= 60
    loaded = Manifest(files).load()
    assert loaded is not None
    tracemalloc.start()
    try:
        assert sum(1 for _ in loaded.entries) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20  # the entries together take 15 MB


# Requests ----------------------------------------------------------------------------------


def test_is_current_is_one_peek() -> None:
    files, head = sample()
    files.calls.clear()
    assert Manifest(files).is_current(head)
    assert files.calls == [("peek", b"manifest " + LOG)]


def test_is_current_sees_every_other_state() -> None:
    files, head = sample()
    manifest = Manifest(files)
    later = manifest.append(head, [Drop(b"many")])
    assert not manifest.is_current(head)
    assert manifest.is_current(later)
    manifest.create(HEADER, SAMPLE.items())
    assert not manifest.is_current(later)
    for name, data in CONTENT.items():
        for other in (data[:-1], data + b"\0", data[:-1] + b"?"):
            assert not Manifest(changed(name, other)).is_current(head)
    for gone in CONTENT:
        kept = {name: data for name, data in CONTENT.items() if name != gone}
        assert not Manifest(MemoryFiles(kept)).is_current(head)


def test_append_is_one_write() -> None:
    files, head = sample()
    files.calls.clear()
    Manifest(files).append(head, [Drop(b"many")])
    assert files.calls == [("append", LOG)]


def test_compaction_replaces_log_then_manifest_then_removes_the_old_log() -> None:
    files, _ = sample()
    files.calls.clear()
    head = Manifest(files, lambda size: b"\xab" * size).create(HEADER, SAMPLE_STATES[-1].items())
    log = b"log-" + b"ab" * 8
    assert files.calls == [
        ("peek", b"manifest"),
        ("replace", log),
        ("replace", b"manifest"),
        ("remove", LOG),
    ]
    assert set(files.content) == {b"manifest", log}
    assert load(files) == (SAMPLE_STATES[-1], head)


@pytest.mark.parametrize("calls", range(5))
def test_compaction_that_breaks_off_leaves_a_whole_manifest(calls: int) -> None:
    files, old = sample()
    files.calls.clear()
    files.break_at = calls
    try:
        new: Head | None = Manifest(files).create(HEADER, SAMPLE_STATES[-1].items())
    except LinkLost:
        new = None
    assert (new is None) == (calls < 4)
    files.break_at = None
    tree, head = load(files)
    assert tree == SAMPLE_STATES[-1]
    assert (head == old) == (calls < 3)


def test_a_manifest_can_be_compacted_out_of_itself() -> None:
    files, _ = sample()
    manifest = Manifest(files)
    loaded = manifest.load()
    assert loaded is not None
    manifest.create(HEADER, loaded.entries)
    assert load(files)[0] == SAMPLE


def test_compaction_is_wanted_when_the_log_outgrew_the_checkpoint() -> None:
    head = sample()[1]

    def grown(log: int, checkpoint: int) -> Head:
        return msgspec.structs.replace(head, log_size=log, checkpoint_size=checkpoint)

    assert not wants_compaction(grown(1 << 20, 100))
    assert wants_compaction(grown((1 << 20) + 1, 100))
    assert not wants_compaction(grown(5 << 20, 5 << 20))
    assert wants_compaction(grown((5 << 20) + 1, 5 << 20))


def test_reading_out_of_order_is_refused() -> None:
    loaded = Manifest(MemoryFiles(CONTENT)).load()
    assert loaded is not None
    with pytest.raises(RuntimeError, match="entries"):
        next(loaded.edits)
    with pytest.raises(RuntimeError, match="entries, then the edits"):
        _ = loaded.head
