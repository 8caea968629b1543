"""Paths as the index keeps them, and the SQL for whole subtrees."""

from __future__ import annotations

# The directories below D are those from D + "/" up to D + "0", the byte that follows "/".
DROPS = (
    "DELETE FROM entries WHERE dir = :dir AND name = :name",
    "DELETE FROM entries WHERE dir = :path",
    "DELETE FROM entries WHERE dir >= :path_slash AND dir < :path_zero",
)
MOVES = (
    """UPDATE OR REPLACE entries SET dir = :to_dir, name = :to_name
    WHERE dir = :dir AND name = :name""",
    "UPDATE OR REPLACE entries SET dir = :to WHERE dir = :path",
    """UPDATE OR REPLACE entries SET dir = CAST(:to || substr(dir, length(:path) + 1) AS BLOB)
    WHERE dir >= :path_slash AND dir < :path_zero""",
)
LARGE_MOVES = tuple(statement.replace("entries", "large") for statement in MOVES)


def split(path: bytes) -> tuple[bytes, bytes]:
    """(directory, name)."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def below(path: bytes) -> dict[str, bytes]:
    """What the SQL above wants of a subtree: the path, and the bounds of what is below it."""
    directory, name = split(path)
    bounds = {"path": path, "path_slash": path + b"/", "path_zero": path + b"0"}
    return {"dir": directory, "name": name} | bounds
