"""Ctrl-C, and what it may not come in the midst of.

An import that is interrupted can leave Python's own locks held, and then whoever imports next on
another thread waits for ever. So an interrupt is put off while the main thread imports, or does
something else that is to be whole.

This is loaded before all else, so it loads next to nothing itself.
"""

from __future__ import annotations

import _thread
import signal
import time

TYPE_CHECKING = False  # that of typing takes 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import ParamSpec

    Given = ParamSpec("Given")

AGAIN = 0.005  # seconds
_IMPORTLIB = "<frozen importlib._bootstrap>"  # as Python names it from its start on
_whole: set[CodeType] = set()


def whole(function: Callable[Given, None]) -> Callable[Given, None]:
    """Decorates a function that must not be interrupted; it has to end by itself, and soon."""
    _whole.add(function.__code__)
    return function


def put_off() -> None:
    """Let a SIGINT raise KeyboardInterrupt as before, but only when what is to be whole is done."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, _interrupt)


def as_usual() -> None:
    """Put off no more: asyncio has a way of its own to end, and takes it only if no other has."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if _is_amid(frame):
        # No threading.Timer: its locks may be held by what was interrupted.
        _thread.start_new_thread(_once_more, (_thread.get_ident(),))
        return
    raise KeyboardInterrupt


def _is_amid(frame: FrameType | None) -> bool:
    """Whether what is to be whole is under way in this frame, or in one that has called it."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTLIB or frame.f_code in _whole:
            return True
        frame = frame.f_back
    return False


def _once_more(thread: int) -> None:
    time.sleep(AGAIN)
    if hasattr(signal, "pthread_kill"):
        # To that thread, or what it waits in would go on waiting.
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
