"""What is done to a database of hints behind our back: anything that SQL can say, and malice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path


def execute(directory: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


class Marker:
    """Leaves a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)
