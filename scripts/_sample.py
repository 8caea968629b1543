"""A folder of pictures and one video-sized file, made up on the spot for the quickstart.

Standard library only. The same seed makes the same folder, byte for byte.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDERS = (
    "Été à la mer/plage nord",
    "Été à la mer/plage sud",
    "studio/series 01/raw",
    "studio/series 01/final cut",
    "straße & café",
)
PICTURES_PER_FOLDER = 8
VIDEO = "video/interview, take 2.mov"
VIDEO_MIB = 64
WIDTH, HEIGHT = 640, 480
CHANNELS = 3  # red, green, blue: one byte each


def make_sample(folder: Path, seed: int = 2) -> None:
    """Fill `folder` with 40 PNG pictures of 50 KB to 1 MB in nested folders, and a 64 MiB file."""
    source = random.Random(seed)
    for name in FOLDERS:
        place = folder / name
        place.mkdir(parents=True)
        for number in range(1, PICTURES_PER_FOLDER + 1):
            (place / f"picture {number:02}.png").write_bytes(picture(source))
    video = folder / VIDEO
    video.parent.mkdir(parents=True)
    with video.open("wb") as file:
        for _ in range(VIDEO_MIB):
            file.write(source.randbytes(1 << 20))


def picture(source: random.Random) -> bytes:
    """A PNG: a slanted gradient with a band of noise, whose width decides the file's size."""
    noise = int(WIDTH * source.uniform(0.05, 0.95))
    ramp = bytes(range(256)) * (WIDTH * CHANNELS // 256 + 2)
    slant = source.randrange(1, 8)
    rows = b"".join(_rows(source, ramp, slant, noise))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(rows, level=1)),
            _chunk(b"IEND", b""),
        ]
    )


def _rows(source: random.Random, ramp: bytes, slant: int, noise: int) -> Iterator[bytes]:
    """Each row of pixels, after the byte that says it is stored unfiltered."""
    smooth = (WIDTH - noise) * CHANNELS
    for y in range(HEIGHT):
        start = y * slant % 256
        yield b"\0" + ramp[start : start + smooth] + source.randbytes(noise * CHANNELS)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
