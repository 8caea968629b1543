"""Where things are on the server: full paths, temporary names, the trash, what is set on a file."""

from __future__ import annotations

import itertools
import stat
from dataclasses import dataclass, field

from skynet.errors import NotPublished
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Trash
from skynet.rules import STRAY_TEMP
from skynet.sftp import wire
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import Reply
from skynet.sftp.upload import RENAME_REFUSED, Breadth, Placement
from skynet.sftp.wire import Attrs
from skynet.tree import FILE, Entry, ancestors, join, parent, wire_time

TEMP_DIRECTORIES = 8
ASIDE = b"~"  # behind a temporary name: what its file is about to replace

UNSTAMPED = Trash(b"unstamped")  # until the cycle names its own


@dataclass(slots=True)
class Places:
    """The target at `root` (full path). nonce: makes temporary names unique among all runs."""

    root: bytes
    nonce: str
    facts: Facts = field(default_factory=Facts)
    trash: Trash = UNSTAMPED
    mounted: set[bytes] = field(default_factory=set)  # parents where tmp/ cannot be renamed to
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _trash_directories: set[bytes] = field(default_factory=set)
    _is_spread: bool = False  # temporary files go into several directories

    def full(self, path: bytes) -> bytes:
        """The full path of a path of the mirror."""
        return join(self.root, path) if self.root != b"/" else b"/" + path

    def temp_name(self) -> bytes:
        """A full path in `tmp/` that nobody has used."""
        number = next(self._numbers)
        directory = join(OWN, TEMPS)
        if self._is_spread:
            directory = join(directory, b"%x" % (number % TEMP_DIRECTORIES))
        return self.full(join(directory, self._unique(number)))

    def temp_name_beside(self, path: bytes) -> bytes:
        """A full path that nobody has used, in the directory of `path`."""
        return self.full(join(parent(path), STRAY_TEMP + self._unique(next(self._numbers))))

    def spread_temps(self) -> Conversation[None]:
        """Let temporary files go into several directories: channels wait for each other in one."""
        directories = [
            self.full(join(join(OWN, TEMPS), b"%x" % number)) for number in range(TEMP_DIRECTORIES)
        ]
        makes = [wire.mkdir(directory, Attrs(mode=0o700)) for directory in directories]
        replies = yield [*makes, *map(wire.lstat, directories)]
        self._is_spread = all(map(is_directory, replies[len(makes) :]))

    def may_be_mounted(self, path: bytes, refusal: NotPublished) -> Conversation[bool]:
        """Whether that may be why no rename leads from `tmp/` to a path.

        Then it is to be tried with the temporary file beside the path.
        """
        if refusal.code != RENAME_REFUSED:
            return False
        (found,) = yield [wire.lstat(self.full(path))]
        return not is_directory(found)

    def attrs(self, entry: Entry) -> Attrs:
        """What is to be set on the remote: only what its file system keeps."""
        mode = entry.mode if self.facts.keeps_modes else None
        return Attrs(mode=mode, mtime=self.mtime(entry))

    def mtime(self, entry: Entry) -> int | None:
        """Seconds since 1970 that the remote keeps of an entry; None if it keeps none."""
        if entry.kind != FILE or not self.facts.keeps_times:
            return None
        return wire_time(entry.mtime_ns)

    def use_trash(self, trash: Trash) -> None:
        """From now on, put things there; what is under way stays with the stamp that it began with.

        What was made under another stamp is of no use any more, but `trash/` itself is.
        """
        self.trash = trash
        self._trash_directories = self._trash_directories & {join(OWN, TRASH)}

    def placement(
        self, path: bytes, entry: Entry, breadth: Breadth, *, stamp: bytes, beside: bool
    ) -> Conversation[Placement]:
        """Where what becomes `entry` at `path` goes.

        stamp: as from `stamp_for`. beside: the temporary file goes beside the path.
        """
        temp = self.temp_name_beside(path) if beside else self.temp_name()
        place = Placement(temp, self.full(path), temp + ASIDE, self.attrs(entry), breadth=breadth)
        if not stamp:
            return place
        yield from self.make_trash_parents(path, stamp)
        aside = self.trash_path(path, stamp)
        inside = tuple(map(self.full, _trash_parents(path, stamp)))
        return place._replace(aside=aside, aside_in=inside, keep_old=True)

    def stamp_for(self, replaced: Entry | None, *, foreign: bool = False) -> bytes:
        """The stamp under which what is replaced goes to the trash now; b"" if it does not."""
        keeps = foreign or (self.trash.keep_replaced and replaced is not None)
        return self.trash.stamp if keeps else b""

    def trash_path(self, path: bytes, stamp: bytes) -> bytes:
        """The full path in the trash of what was at `path`."""
        return self.full(join(_trash_root(stamp), path))

    def has_trash_for(self, path: bytes, stamp: bytes) -> bool:
        """Whether this run has made the directories that `trash_path` needs."""
        return parent(join(_trash_root(stamp), path)) in self._trash_directories

    def make_trash_parents(self, path: bytes, stamp: bytes) -> Conversation[None]:
        """Make the directories that `trash_path` needs, as far as this run has not."""
        wanted = _trash_parents(path, stamp)
        missing = [directory for directory in wanted if directory not in self._trash_directories]
        if missing:
            makes = [wire.mkdir(self.full(each), Attrs(mode=0o700)) for each in missing]
            *_, last = yield [*makes, wire.lstat(self.full(missing[-1]))]
            if not is_directory(last):  # perhaps the server did not make them in order
                for make in makes:
                    yield [make]
            self._trash_directories.update(missing)

    def make_trash_parents_again(self, path: bytes, stamp: bytes) -> Conversation[None]:
        """Make them all: they turned out to be gone, and so may others be."""
        self._trash_directories.clear()
        yield from self.make_trash_parents(path, stamp)

    def _unique(self, number: int) -> bytes:
        return f"{self.nonce}-{number:x}".encode()


def _trash_parents(path: bytes, stamp: bytes) -> list[bytes]:
    root = _trash_root(stamp)
    inside = (join(root, directory) for directory in reversed(list(ancestors(path))))
    return [join(OWN, TRASH), root, *inside]


def _trash_root(stamp: bytes) -> bytes:
    return join(join(OWN, TRASH), stamp)


def is_directory(reply: Reply) -> bool:
    """Whether the reply describes a directory."""
    return isinstance(reply, Attrs) and stat.S_ISDIR(reply.mode or 0)
