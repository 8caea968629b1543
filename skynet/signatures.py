"""Signatures of what the remote holds, kept here so that later versions can be patched.

They are found by the digest of the whole content, so a file that moves keeps its own. They are
hints (see hints.py): one that is lost or damaged costs a whole upload, and the least recently used
go when all together take more than MAX_KEPT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skynet.blocks import MAX_ENCODED, Signature, decode
from skynet.hints import Bounds, Hinted, Hints, HintsDamaged
from skynet.monitor import Monitor, Notice

MAX_KEPT = 256 << 20  # bytes on the disk
_BOUNDS = Bounds(item=MAX_ENCODED, database=MAX_KEPT + (16 << 20), keep=MAX_KEPT)


class Signatures(Hinted):
    """The signatures of one mirror; as a context manager, closed at its end."""

    @classmethod
    def open(
        cls,
        directory: Path | None,
        monitor: Monitor = lambda _: None,
        *,
        read_only: bool = False,
    ) -> Signatures:
        """The signatures kept in a directory of their own; without one, none are kept."""
        if directory is None:
            return cls(None)

        def forgotten(error: Exception) -> None:
            monitor(
                Notice(
                    "signatures-damaged",
                    f"The signatures of large files in {directory} cannot be used ({error}). They "
                    "are begun anew; files that change are sent whole once.",
                )
            )

        return cls(Hints(directory, _BOUNDS, forgotten, read_only=read_only))

    def get(self, digest: bytes, size: int) -> Signature | None:
        """The signature of content of this xxh3-128 and size in bytes, None if there is none."""
        found: list[Signature] = []

        def read(cache: Any) -> None:
            value = cache.get(digest)
            if value is None:
                return
            signature = decode(value)
            if signature is None or signature.digest != digest:
                raise HintsDamaged("it holds a signature that cannot be")
            found.append(signature)

        if self._hints is not None and self._hints.exist:
            self._hints.use(read)
        return found[0] if found and found[0].size == size else None

    def put(self, digest: bytes, signature: Signature) -> None:
        """Keep the signature of content of this xxh3-128."""
        assert digest == signature.digest

        def write(cache: Any) -> None:
            cache.set(digest, signature.encode())
            cache.cull()

        if self._hints is not None:
            self._hints.use(write)
