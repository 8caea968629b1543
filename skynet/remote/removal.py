"""Removing what is our own on the server: files one by one, and whole directories."""

from __future__ import annotations

from collections.abc import Sequence

from skynet.errors import RequestError
from skynet.remote.places import is_directory
from skynet.sftp import wire
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import (
    NO_SUCH_FILE,
    Reply,
    expect_handle,
    expect_names,
    expect_ok,
    is_status,
)
from skynet.tree import is_below, join

REMOVALS_AT_ONCE = 1000


def names_in(directory: bytes) -> Conversation[list[tuple[bytes, bool]]]:
    """(name, whether it is a directory) of everything in a directory of our own, if it exists."""
    (reply,) = yield [wire.opendir(directory)]
    if is_status(reply, NO_SUCH_FILE):
        return []
    handle = expect_handle(reply)
    found: list[tuple[bytes, bool]] = []
    while True:
        (reply,) = yield [wire.readdir(handle)]
        names = expect_names(reply)
        if not names:
            break
        found += [(name, is_directory(attrs)) for name, attrs in names]
    yield [wire.close(handle)]
    return [each for each in found if b"/" not in each[0] and each[0] not in (b".", b"..")]


def empty(directory: bytes, keep: frozenset[bytes] = frozenset()) -> Conversation[int]:
    """Remove everything below a directory of our own but these; how many names that was."""
    found = yield from names_in(directory)
    files = [join(directory, name) for name, is_dir in found if not is_dir]
    removed = yield from _remove_all([path for path in files if path not in keep])
    for path in [join(directory, name) for name, is_dir in found if is_dir]:
        if any(is_below(kept, path) for kept in keep):
            removed += yield from empty(path, keep)
        else:
            removed += yield from _remove_tree(path)
    return removed


def _remove_tree(directory: bytes) -> Conversation[int]:
    """Remove a directory of our own with all that is in it; how many names that was."""
    removed = yield from empty(directory)
    (reply,) = yield [wire.rmdir(directory)]
    if not is_status(reply, NO_SUCH_FILE):
        expect_ok(reply)
    return removed + 1


def remove_trees(directories: Sequence[bytes]) -> Conversation[None]:
    """Remove these; what is refused in one of them is told when the others are gone."""
    refused = None
    for directory in directories:
        try:
            yield from _remove_tree(directory)
        except RequestError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _remove_all(paths: Sequence[bytes]) -> Conversation[int]:
    for reply in (yield from remove_each(paths)):
        if not is_status(reply, NO_SUCH_FILE):
            expect_ok(reply)
    return len(paths)


def remove_each(paths: Sequence[bytes]) -> Conversation[list[Reply]]:
    """What is answered to the removal of each."""
    answers: list[Reply] = []
    for start in range(0, len(paths), REMOVALS_AT_ONCE):
        answers += yield [wire.remove(path) for path in paths[start : start + REMOVALS_AT_ONCE]]
    return answers
