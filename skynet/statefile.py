"""Small files of the state directory: for this user only, whole or not there, and bounded.

They are JSON, so that a person can read them. Text that is no Unicode is written with "?".
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from skynet.errors import UsageError

MAX_TEXT = 500  # characters of one path, message or line, where there are many

_BINARY = getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY


def encode(value: msgspec.Struct) -> bytes:
    """The value as one line of JSON, without its end; no text makes it fail."""
    text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """The text, or as much of its beginning as `limit` characters hold, with three dots."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def replace(path: Path, data: bytes) -> None:
    """Write the file anew. OSError; what was there before stays then."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the error that is on its way says more
            os.unlink(temporary)
        raise


def read(path: Path, limit: int) -> bytes | None:
    """What the file holds; None if it is not there, is no regular file, or is longer than `limit`.

    UsageError if it cannot be read.
    """
    try:
        with open(os.open(path, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}. Ask as the user that skynet runs as.",
            "state-directory",
        ) from None
    return data if len(data) <= limit else None
