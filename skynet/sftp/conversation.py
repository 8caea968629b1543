"""Conversations: what is asked of a server, written down as a generator.

A conversation yields a list of requests, which cost one round trip together, and is sent the list
of their replies; so the `yield`s of a function are its round trips:

    def size_of(path: bytes) -> Conversation[int]:
        (reply,) = yield [wire.lstat(path)]
        return replies.expect_attrs(reply).size or 0

It may also yield Lanes: conversations that run side by side on its channel and are waited for
together; Everywhere: one such conversation on every channel; a Ration, before it reads content; or
CROWDED, when the server refuses to open more files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from skynet.sftp.ration import Ration
from skynet.sftp.replies import Reply
from skynet.sftp.wire import Request

T = TypeVar("T")


class Lanes:
    """Conversations to run side by side; the one that yields them goes on when all have ended.

    The first error of a lane is raised in it then; it is sent [] otherwise.
    """

    __slots__ = ("conversations",)

    def __init__(self, conversations: Sequence[Conversation[None]]) -> None:
        self.conversations = conversations

    def __len__(self) -> int:
        return len(self.conversations)


class Everywhere:
    """One conversation on every channel of the client; whoever yields it waits as with Lanes.

    A channel that opens meanwhile joins in, until the last of these conversations has ended.
    """

    __slots__ = ("ended", "make")

    def __init__(self, make: Callable[[], Conversation[None]]) -> None:
        self.make = make
        self.ended = False

    def __bool__(self) -> bool:
        return True


class Crowded:
    """The server has refused to open one file more.

    The conversation goes on when another of its channel has ended, and is sent [] then; or at once
    if no file is open there, so that this cannot be the reason, and is sent [UNANSWERED].
    """


CROWDED = Crowded()

Step = Sequence[Request] | Lanes | Everywhere | Ration | Crowded
Conversation = Generator[Step, list[Reply], T]
Done = Callable[[Any, BaseException | None], None]


class Work(NamedTuple):
    """A conversation to be run. weight: how much of a channel's window it takes."""

    conversation: Conversation[Any]
    done: Done
    weight: int = 1


class Talk:
    """A conversation under way: its replies so far, and whom to tell of its end."""

    __slots__ = ("done", "error", "generator", "lanes", "missing", "parent", "replies", "weight")

    def __init__(
        self,
        generator: Conversation[Any],
        done: Done | None,
        parent: Talk | None = None,
        weight: int = 0,
    ) -> None:
        self.generator = generator
        self.done = done
        self.parent = parent
        self.weight = weight
        # A generator that has not begun must be sent None.
        self.replies = cast("list[Reply]", None)
        self.missing = 0
        self.lanes = 0
        self.error: BaseException | None = None
