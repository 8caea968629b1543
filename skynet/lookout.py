"""The lookout: watchdog's threads over one tree, and a word about everything they lose.

watchdog gives hints. On Linux it is silent where the kernel dropped events, where a directory could
not be watched, and where one of its threads has ended; so its reader and its emitter are used with
these few places opened up, by nothing but their public methods. The kernel is not even asked for
files that are opened and read: our own hashing does that all the time.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from skynet.watchable import is_limit

# What watchdog logs is told as values, and must not reach the terminal by logging's last resort.
logging.getLogger("watchdog").addHandler(logging.NullHandler())

WANTED: list[type[FileSystemEvent]] = [
    *(FileCreatedEvent, FileModifiedEvent, FileAttribEvent, FileClosedEvent),
    *(FileDeletedEvent, FileMovedEvent),
    *(DirCreatedEvent, DirAttribEvent, DirDeletedEvent, DirMovedEvent),
]
if sys.platform != "linux":  # there it is only made up, beside every change of what is in it
    WANTED.append(DirModifiedEvent)
MOST_KEPT = 10_000  # paths in memory, of each kind that is to be looked at again


class Loss(NamedTuple):
    """Something was, or may have been, missed. `error` is why, where there is an error.

    overflow: the kernel dropped events. refused: `path` is not watched. readable: it is not, since
    it could not be read, but it can be now. unmounted: a file system is gone. astray: a directory
    was watched already, by another path, so watchdog may take one for another. died: a thread is.
    """

    kind: Literal["overflow", "refused", "readable", "unmounted", "astray", "died"]
    path: bytes = b""
    error: Exception | None = None


Lost = Callable[[Loss], None]
Hear = Callable[[FileSystemEvent], None]


class Eyes(NamedTuple):
    """watches: whether a directory is watched, or cannot be. watch: have it watched after all."""

    observer: BaseObserver
    watches: Callable[[bytes], bool]
    watch: Callable[[bytes], None]


class _Handler(FileSystemEventHandler):
    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def dispatch(self, event: FileSystemEvent) -> None:
        self._hear(event)


if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

    class _Nobody(WatchCallback):
        """Takes events, for as long as it takes to ask whether a directory is watched."""

        def on_event(self, event: InotifyEvent) -> None: ...

        def on_watch_deleted(self, wd: WatchDescriptor) -> None: ...

        def on_queue_overflow(self) -> None: ...

    class _Reader(InotifyFD):
        """The thread that reads the kernel's events and adds watches for new directories."""

        def __init__(self, lost: Lost) -> None:
            super().__init__()
            self.lost = lost
            self._newest = 0  # descriptors are given out in ascending order
            self._mask = Mask(0)
            self._places: dict[int, int] = {}  # descriptor -> hash of the path it was added with

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:  # noqa: BLE001 - told
                self.lost(Loss("died", error=error))

        def handle_event(self, event: InotifyEvent) -> None:
            super().handle_event(event)  # on an overflow it watches all directories anew, then:
            if event.is_queue_overflow:
                self.lost(Loss("overflow"))
            elif event.is_ignored:
                self._places.pop(event.wd, None)
            elif event.mask & InotifyConstants.IN_UNMOUNT:
                self.lost(Loss("unmounted"))

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            try:
                descriptor = super().add_callback(path, mask, callback, id_)
            except (FileNotFoundError, NotADirectoryError):
                raise  # gone again
            except OSError as error:
                self.lost(Loss("refused", path, error))
                raise
            if descriptor == -1:  # watchdog takes what it may not read for watched
                denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                self.lost(Loss("refused", path, denied))
                raise denied
            self._newest, self._mask = max(self._newest, descriptor), mask
            place = hash(path)
            if self._places.setdefault(descriptor, place) != place:
                self._places[descriptor] = place
                self.lost(Loss("astray", path))
            return descriptor

        def watches(self, path: bytes) -> bool:
            """Whether the directory is watched, or cannot be."""
            nobody = _Nobody()
            name = CallbackId(id(nobody))
            try:
                descriptor = super().add_callback(path, self._mask, nobody, name)
            except OSError:
                return True  # gone, and that is an event of its own; or refused, which was told
            self.remove_callbacks([(descriptor, name)])
            return descriptor <= self._newest

        def watch(self, path: bytes) -> None:
            """Let the directory be watched and told of with all in it, as one just made is."""
            above, name = os.path.split(path)
            nobody = _Nobody()
            caller = CallbackId(id(nobody))
            try:
                descriptor = super().add_callback(above, self._mask, nobody, caller)
            except OSError:
                return  # as above
            made = Mask(InotifyConstants.IN_CREATE | InotifyConstants.IN_ISDIR)
            self.handle_event(InotifyEvent(descriptor, made, 0, name))
            self.remove_callbacks([(descriptor, caller)])

    class _Emitter(InotifyEmitter):
        """The thread that makes watchdog's events of the kernel's."""

        def __init__(self, *args: Any, inotify_fd: _Reader, **options: Any) -> None:
            super().__init__(*args, inotify_fd=inotify_fd, **options)
            self._lost = inotify_fd.lost

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:  # noqa: BLE001 - told
                self._lost(Loss("died", error=error))

        def queue_event(self, event: FileSystemEvent) -> None:
            if not event.is_synthetic:  # made up for all that is in a moved directory
                super().queue_event(event)

    class _LinuxObserver(BaseObserver):
        """The thread that calls the handlers. As watchdog's own, with the reader of this room."""

        def __init__(self, lost: Lost) -> None:
            self._reader = _Reader(lost)
            super().__init__(_Emitter, inotify_fd=self._reader)
            self._reader.start()

        def is_alive(self) -> bool:
            return super().is_alive() and self._reader.is_alive()

        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            self._reader.stop()
            self._reader.join()

        def eyes(self) -> Eyes:
            return Eyes(self, self._reader.watches, self._reader.watch)

    def _open_eyes(lost: Lost) -> Eyes:
        return _LinuxObserver(lost).eyes()

else:
    from watchdog.observers import Observer

    def _open_eyes(lost: Lost) -> Eyes:  # noqa: ARG001 - these report no loss
        # They watch trees, not directories.
        return Eyes(Observer(), lambda _: True, lambda _: None)


def _as_given(path: bytes) -> Any:
    """The path as watchdog wants it: bytes keep every name on Linux; elsewhere names are text."""
    return path if sys.platform == "linux" else os.fsdecode(path)


class Lookout:
    """Watches `root` with all below it, and the directory `canary`, until it is stopped.

    hear: gets each event of the tree. sing: is called for each event of the canary. Both are
    called from a thread of watchdog and must not raise. lost: gets each Loss, from any thread.
    """

    def __init__(
        self, root: bytes, canary: bytes, hear: Hear, sing: Callable[[], None], lost: Lost
    ) -> None:
        self._root, self._canary = root, canary
        self._hear, self._sing, self._lost = hear, sing, lost
        self._unreadable: set[bytes] = set()
        self.refusals = 0  # how many readable directories are not watched
        self.refused: OSError | None = None  # why one of them is not; a limit if there is one
        self._observer: BaseObserver | None = None
        self._watches: Callable[[bytes], bool] = lambda _: True
        self._watch: Callable[[bytes], None] = lambda _: None
        self._moved: set[bytes] = set()  # where directories were moved to since the last patrol
        self._doubtful: set[bytes] = set()  # directories that the last patrol found unwatched
        self._mended: set[bytes] = set()  # those of them that it had watched

    def start(self) -> None:
        """Return when all of the tree is watched. Raises OSError; `stop` is to be called then."""
        # Of a directory that was moved out, and in again elsewhere; watchdog does as it should.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer, self._watches, self._watch = _open_eyes(self._sort)
        self._observer = observer
        handler = _Handler(lambda _: self._sing())
        observer.schedule(handler, _as_given(self._canary), event_filter=WANTED)
        handler = _Handler(self._listen)
        observer.schedule(handler, _as_given(self._root), recursive=True, event_filter=WANTED)
        observer.start()

    def dead(self) -> bool:
        """Whether one of the threads has ended."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return True
        emitters = list(observer.emitters)
        return len(emitters) < 2 or not all(emitter.is_alive() for emitter in emitters)

    def patrol(self) -> bool:
        """Have watched what ought to be; whether there are directories where that is of no use.

        watchdog loses those that are moved, or are in what is moved, before it has come to watch
        them: of a directory that is made, filled and renamed at once, some of what is in it. So
        what was moved is looked at twice, as the first time it may be about to; and once more,
        when it was told of what it has lost.
        """
        doubtful, self._doubtful = self._doubtful, set()
        mended, self._mended = self._mended, set()
        if self._moved:
            moved, self._moved = self._moved, set()
            self._doubtful = {path for each in moved for path in self._unwatched_in(each)}
        for path in sorted(doubtful):  # with what is above others, these are watched as well
            if self._is_missed(path):
                self._watch(path)
                self._mended.add(path)
        return any(map(self._is_missed, mended))

    def _is_missed(self, path: bytes) -> bool:
        return _is_directory(path) and not self._watches(path)

    def _unwatched_in(self, top: bytes) -> Iterator[bytes]:
        for path, _, _ in os.walk(top):
            if not self._watches(path):
                yield path

    def stop(self, seconds: float) -> bool:
        """Whether all threads ended in time. Those that hang are left: they hold up no exit."""
        if self._observer is None:
            return True
        # Apart, for watchdog waits for its threads without a deadline.
        stopping = threading.Thread(target=self._end, args=[self._observer], daemon=True)
        stopping.start()
        stopping.join(seconds)
        return not stopping.is_alive()

    def _end(self, observer: BaseObserver) -> None:
        try:
            observer.stop()
            if observer.ident is not None:
                observer.join()
        except Exception as error:  # noqa: BLE001 - told
            self._lost(Loss("died", error=error))

    def _listen(self, event: FileSystemEvent) -> None:
        if self._unreadable and isinstance(event, DirAttribEvent):
            path = os.fsencode(event.src_path)
            if path in self._unreadable and os.access(path, os.R_OK):
                self._unreadable.discard(path)
                self._lost(Loss("readable", path))
        if isinstance(event, DirMovedEvent):
            self._moved.add(
                os.fsencode(event.dest_path) if len(self._moved) < MOST_KEPT else self._root
            )
        self._hear(event)

    def _sort(self, loss: Loss) -> None:
        error = loss.error
        if loss.kind != "refused" or not isinstance(error, OSError):
            self._lost(loss)
        elif isinstance(error, PermissionError):
            if len(self._unreadable) < MOST_KEPT:
                self._unreadable.add(loss.path)
        else:
            self.refusals += 1
            if self.refused is None or is_limit(error):
                error.filename = loss.path
                self.refused = error


def _is_directory(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
