"""The remote directory of a manifest in memory, which counts calls and can break at one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from skynet.errors import LinkLost


class MemoryFiles:
    """Files held in `content`; `calls` lists the verbs used, each with the name it concerned.

    With `break_at` k the k-th call from then on (from 0), and every later one, raises LinkLost
    before anything is done.
    """

    def __init__(self, content: dict[bytes, bytes] | None = None, chunk: int = 1000) -> None:
        self.content = dict(content or {})
        self.calls: list[tuple[str, bytes]] = []
        self.break_at: int | None = None
        self._chunk = chunk

    def peek(self, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
        self._called("peek", b" ".join(name for name, _, _ in wanted))
        return [
            self.content[name][offset : offset + length] if name in self.content else None
            for name, offset, length in wanted
        ]

    def read(self, name: bytes) -> Iterator[bytes] | None:
        self._called("read", name)
        data = self.content.get(name)
        if data is None:
            return None
        return (data[at : at + self._chunk] for at in range(0, len(data), self._chunk))

    def replace(self, name: bytes, chunks: Iterable[bytes]) -> None:
        self._called("replace", name)
        self.content[name] = b"".join(chunks)

    def expect_append(self, name: bytes) -> None:
        """Nothing can be done beforehand."""

    def append(self, name: bytes, offset: int, data: bytes) -> None:
        self._called("append", name)
        old = self.content.get(name, b"").ljust(offset, b"\0")
        self.content[name] = old[:offset] + data + old[offset + len(data) :]

    def remove(self, name: bytes) -> None:
        self._called("remove", name)
        self.content.pop(name, None)

    def _called(self, verb: str, name: bytes) -> None:
        if self.break_at is not None and len(self.calls) >= self.break_at:
            raise LinkLost("The link is cut by the test.")
        self.calls.append((verb, name))
