"""Removing what is our own on the server: files one by one, and whole directories."""

from __future__ import annotations

from collections.abc import Sequence

from skynet.errors import RequestError
from skynet.remote.places import is_directory
from skynet.remote.walk import expect_end_of_depth, expect_end_of_names
from skynet.sftp import wire
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import (
    NO_SUCH_FILE,
    Named,
    Reply,
    expect_handle,
    expect_names,
    expect_ok,
    is_status,
)
from skynet.tree import is_below, join

REMOVALS_AT_ONCE = 1000


def names_in(directory: bytes) -> Conversation[list[Named]]:
    """What the server lists of a directory of our own, if it exists."""
    (reply,) = yield [wire.opendir(directory)]
    if is_status(reply, NO_SUCH_FILE):
        return []
    handle = expect_handle(reply)
    found: list[Named] = []
    while True:
        (reply,) = yield [wire.readdir(handle)]
        names = expect_names(reply)
        if not names:
            break
        found += names
        expect_end_of_names(len(found))
    yield [wire.close(handle)]
    return [each for each in found if b"/" not in each[0] and each[0] not in (b".", b"..")]


def empty(directory: bytes, keep: frozenset[bytes] = frozenset()) -> Conversation[int]:
    """Remove everything below a directory of our own but these; how many names that was.

    However deep it is: so directories wait in a list, each for those in it to be gone.
    """
    removed = 0
    waiting = [(directory, False)]
    while waiting:
        path, is_empty = waiting.pop()
        if is_empty:
            removed += yield from _remove_directory(path)
            continue
        expect_end_of_depth(path)
        found = yield from names_in(path)
        files = [join(path, name) for name, attrs in found if not is_directory(attrs)]
        removed += yield from _remove_all([file for file in files if file not in keep])
        for inner in [join(path, name) for name, attrs in found if is_directory(attrs)]:
            if not any(is_below(kept, inner) for kept in keep):
                waiting.append((inner, True))
            waiting.append((inner, False))
    return removed


def _remove_directory(path: bytes) -> Conversation[int]:
    (reply,) = yield [wire.rmdir(path)]
    if not is_status(reply, NO_SUCH_FILE):
        expect_ok(reply)
    return 1


def remove_trees(directories: Sequence[bytes]) -> Conversation[None]:
    """Remove these; what is refused in one of them is told when the others are gone."""
    refused = None
    for directory in directories:
        try:
            yield from empty(directory)
            yield from _remove_directory(directory)
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
