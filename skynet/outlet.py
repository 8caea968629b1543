"""What standard output and standard error are here: where they lead may be gone, or a full disk.

That is no reason to leave work undone, so nothing that writes to them can fail.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TextIO

_LEFT = (errno.EPIPE, errno.EINVAL)  # the second on Windows


class Outlet(io.TextIOWrapper):
    """A stream that takes all that is written. fault: why some of it did not arrive, or None."""

    fault: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write it, if that can be."""
        try:
            return super().write(text)
        except OSError as error:
            self.fault = self.fault or error
            return len(text)

    def flush(self) -> None:
        """Hand on what was written, if that can be."""
        try:
            super().flush()
        except OSError as error:
            self.fault = self.fault or error


def outlet(stream: TextIO | None) -> TextIO:
    """The stream as an outlet; what its encoding does not have is escaped there.

    None, which was closed before we began, leads nowhere.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, lines, direct = stream.encoding, stream.line_buffering, stream.write_through
    return Outlet(
        stream.detach(), encoding, "backslashreplace", line_buffering=lines, write_through=direct
    )


def is_left(stream: TextIO) -> bool:
    """Whether nobody reads it any more, as with `| head`."""
    fault = stream.fault if isinstance(stream, Outlet) else None
    return fault is not None and fault.errno in _LEFT


def loss(stream: TextIO) -> str:
    """Why it does not have all that was written; "" if it has, or nobody reads it any more."""
    stream.flush()
    fault = stream.fault if isinstance(stream, Outlet) else None
    return "" if fault is None or is_left(stream) else fault.strerror or str(fault)
