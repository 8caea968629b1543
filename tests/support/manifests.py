"""One small manifest with all that the format knows, as bytes and as trees.

`python -m tests.support.manifests DIRECTORY` writes it there. Do so for a new format only, into
a new directory of tests/data: what an old skynet wrote has to load for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

from skynet.manifest import Facts, Head, Header, Manifest
from skynet.tree import DIR, FILE, LINK, Drop, Edit, Entry, Move, Put, edit
from tests.support.files import MemoryFiles

Tree = dict[bytes, Entry]

HEADER = Header(b"m" * 16, 41, "host:/pictures", Facts(keeps_modes=False))

SAMPLE: Tree = {
    b"clips": Entry(DIR, mode=0o755),
    b"to \xff\n": Entry(LINK, link=b"clips/\xfe"),
    b"clips/a.mov": Entry(FILE, 7 << 32, 1_700_000_000_123_456_789, 0o644, b"d" * 16),
    b"clips/old": Entry(FILE, 1, -5, None, b"", retained=True),
}
SAMPLE_EDITS: list[list[Edit]] = [
    [Put(b"new", Entry(DIR, mode=0o700)), Put(b"new/empty", Entry(FILE))],
    [Move(b"clips", b"new/clips")],
    [Drop(b"to \xff\n"), Put(b"many", Entry(LINK, link=b"x" * 300))],
]
SAMPLE_STATES: list[Tree] = [dict(SAMPLE)]
for _edits in SAMPLE_EDITS:
    SAMPLE_STATES.append(dict(SAMPLE_STATES[-1]))
    edit(SAMPLE_STATES[-1], _edits)


def token(size: int) -> bytes:
    return bytes(range(size))


def sample() -> tuple[MemoryFiles, Head]:
    files = MemoryFiles()
    manifest = Manifest(files, token)
    head = manifest.create(HEADER, SAMPLE.items())
    for edits in SAMPLE_EDITS:
        head = manifest.append(head, edits)
    return files, head


LOG = b"log-0001020304050607"
CONTENT = sample()[0].content


def load(files: MemoryFiles) -> tuple[Tree, Head]:
    loaded = Manifest(files).load()
    assert loaded is not None
    tree = dict(loaded.entries)
    edit(tree, loaded.edits)
    return tree, loaded.head


def changed(name: bytes, data: bytes) -> MemoryFiles:
    return MemoryFiles({**CONTENT, name: data})


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENT.items():
        (directory / name.decode()).write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
