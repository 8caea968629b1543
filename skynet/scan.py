"""The local tree: listing directories, stat identities, reading and hashing files.

A file's *identity* is its stat as bytes: nanosecond times, size, inode and mode. Content that was
hashed under an identity still has that hash while the identity is the same, with one exception:
a write within the clock's resolution of the last one may leave no trace in the times. So an
identity is recorded only when the file had been still for RACY_NS; until then RACY stands for it,
and the next scan hashes the file again ("racily clean", as git has it). UNREAD stands for that of
what the remote has and nobody knows the content of: no local file is taken for it.

Nothing here follows a symbolic link or blocks on a special file.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import xxhash

from skynet.errors import Problem, SourceError, TornRead
from skynet.rules import IGNORE_FILE, parse_ignore_file, shown
from skynet.tree import DIR, FILE, LINK, SECOND, Entry, Kind, ancestors, join, name, parent

RACY_NS = 2 * SECOND
RACY = b"?"
UNREAD = b"!"

MAX_IGNORE_FILE = 1 << 20
_HASH_CHUNK = 1 << 20
_IDENTITY = struct.Struct("<qqqQI")
_FARTHEST = (1 << 63) - 1  # ns: times before 1677 and after 2262 count as these
_Fields = tuple[int, int, int, int, int]
_MODES = tuple(range(0o10000))  # one object for each, which a million entries share
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: LINK}
_MOUNT_POINT_TAG = 0xA0000003  # a Windows junction, which could lead anywhere
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

_SCANS_HANDLES = os.scandir in os.supports_fd
# Elsewhere names that are not listed so may be found nevertheless: another case, another accent.
_TELLS_NAMES = sys.platform == "linux"
_ROOT_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECTORY_FLAGS = _ROOT_FLAGS | getattr(os, "O_NOFOLLOW", 0)
_SEPARATOR = os.fsencode(os.sep)


class Listing(NamedTuple):
    """One directory: the identity of each child that can be mirrored, and what stood in the way.

    unknown: children that exist but could not be looked at; all of them if `failed`. special:
    those of them that are devices, pipes, sockets or junctions.
    """

    children: dict[bytes, bytes]
    problems: list[Problem]
    unknown: set[bytes]
    special: set[bytes]
    failed: bool


def digest_of(chunks: Iterable[bytes]) -> bytes:
    """xxh3-128 of all chunks together."""
    hasher = xxhash.xxh3_128()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.digest()


def identity(status: os.stat_result) -> bytes:
    """What tells one state of a file from another, see the module's text."""
    mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
    inode = status.st_ino & 0xFFFF_FFFF_FFFF_FFFF
    try:
        return _IDENTITY.pack(mtime_ns, ctime_ns, status.st_size, inode, status.st_mode)
    except struct.error:
        mtime_ns, ctime_ns = _bounded(mtime_ns), _bounded(ctime_ns)
        return _IDENTITY.pack(mtime_ns, ctime_ns, status.st_size, inode, status.st_mode)


def _bounded(time_ns: int) -> int:
    return min(max(time_ns, -_FARTHEST), _FARTHEST)


def fields(known: bytes) -> _Fields:
    """What an identity is made of: modification and change time in ns, size, inode, st_mode."""
    return _IDENTITY.unpack(known)


def all_fields(known: Iterable[bytes]) -> Iterator[_Fields]:
    """The fields of identities as they are in a Listing, one after the other."""
    return _IDENTITY.iter_unpack(b"".join(known))


def standing(known: bytes) -> bytes:
    """The identity of a directory, from that of its present state: the same whatever is in it."""
    return _IDENTITY.pack(0, 0, 0, fields(known)[3], stat.S_IFDIR)


def settled(known: bytes, now_ns: int) -> bytes:
    """The identity to record for content read just before `now_ns`: RACY if too young.

    The change time cannot be set by programs, so it also serves files dated into the future;
    Windows has none, there it is the modification time.
    """
    mtime_ns, ctime_ns, *_ = fields(known)
    touched = ctime_ns if os.name == "posix" else mtime_ns
    return known if touched < now_ns - RACY_NS else RACY


def kind_of(status: os.stat_result) -> Kind | None:
    """The kind of entry, None for devices, pipes, sockets and junctions."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind == DIR and getattr(status, "st_reparse_tag", 0) == _MOUNT_POINT_TAG:
        return None
    return kind


def kind_in(known: bytes) -> Kind:
    """The kind of entry that an identity in a Listing is of."""
    return _KINDS[stat.S_IFMT(fields(known)[4])]


class Root:
    """The local directory of a mirror. `now_ns` is the wall clock, in nanoseconds since 1970."""

    def __init__(self, path: bytes, now_ns: Callable[[], int]) -> None:
        self.path = path
        self._now_ns = now_ns
        self.identity = self._identify()

    def verify(self) -> None:
        """SourceError if the directory is no longer the one it was: unmounted or replaced."""
        if self._identify() != self.identity:
            raise SourceError(
                f"The source {shown(self.path)} was replaced by another directory while skynet "
                "worked on it; nothing was deleted. Look at it, then run skynet again."
            )

    def patterns(self) -> list[str]:
        """The lines of the ignore file at the root, none if there is no such file."""
        full, content, fault = self._full(IGNORE_FILE), b"", "it is no file"
        try:
            if stat.S_ISREG(os.stat(full).st_mode):  # a pipe would be waited for
                with open(full, "rb") as file:
                    content, fault = file.read(MAX_IGNORE_FILE + 1), ""
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not os.path.islink(full):
                return []
            fault = error.strerror or str(error)
        if len(content) > MAX_IGNORE_FILE:
            fault = "it is larger than 1 MiB"
        if fault:
            raise SourceError(
                f"{shown(full)} cannot be read ({fault}); without it skynet does not know what to "
                "leave out. Make it readable or remove it."
            )
        return parse_ignore_file(content)

    def list(self, directory: bytes) -> Listing:
        """The children of a directory, unsorted. Errors become problems, never exceptions."""
        try:
            with self._scan(directory) as found:
                return _listing(directory, found)
        except OSError as error:
            return Listing({}, [unreadable(directory, error)], set(), set(), failed=True)

    def glance(self, directory: bytes, names: Collection[bytes]) -> Listing:
        """As `list`, but only these names, as far as they are there."""
        if not _TELLS_NAMES:
            listing = self.list(directory)
            children = {name: known for name, known in listing.children.items() if name in names}
            return listing._replace(children=children)
        try:
            handle = os.open(self._full(directory), _flags_of(directory))
        except OSError as error:
            return Listing({}, [unreadable(directory, error)], set(), set(), failed=True)
        try:
            return _listing(directory, _present(handle, names))
        finally:
            os.close(handle)

    def exists(self, path: bytes, *, directory: bool) -> bool:
        """Whether a directory, or else anything but one, is at the path now.

        OSError if that cannot be known. Nothing is looked at through a link, which may lead out of
        the root, in a circle, or to a server that does not answer: so the topmost comes first.
        """
        try:
            for above in reversed(list(ancestors(path))):
                if kind_of(os.lstat(self._full(above))) != DIR:
                    return False  # what is found through it is something else
            status = os.lstat(self._full(path))
            if (kind_of(status) == DIR) != directory:
                return False
            # A file system that ignores case finds names that it does not list.
            return name(path) in os.listdir(self._full(parent(path)))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def entry(self, path: bytes, known: bytes) -> Entry:
        """The entry of an identity, the content not looked at. OSError for a link's target."""
        mtime_ns, _, size, _, st_mode = fields(known)
        mode = _MODES[stat.S_IMODE(st_mode)] if os.name == "posix" else None
        if stat.S_ISREG(st_mode):
            return Entry(FILE, size, mtime_ns, mode)
        if stat.S_ISDIR(st_mode):
            return Entry(DIR, mode=mode)
        return Entry(LINK, link=os.readlink(self._full(path)).replace(_SEPARATOR, b"/"))

    def open(
        self, path: bytes, entry: Entry, check: Callable[[], None] = lambda: None
    ) -> LocalFile:
        """The file for reading, if it still is what `entry` says. TornRead, OSError.

        check: called at every read; what it raises ends the reading.
        """
        return LocalFile(self._full(path), entry, self._now_ns, check)

    def digest(
        self, path: bytes, entry: Entry, check: Callable[[], None] = lambda: None
    ) -> tuple[bytes, bytes]:
        """(xxh3-128 of the content, identity to record). As `open`."""
        file = self.open(path, entry, check)
        try:
            return digest_of(iter(lambda: file.read(_HASH_CHUNK), b"")), file.verify()
        finally:
            file.close()

    def _identify(self) -> tuple[int, int]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise SourceError(
                f"The source {shown(self.path)} cannot be read: {error.strerror}. "
                "Is the disk mounted, and the name right?"
            ) from None
        if not stat.S_ISDIR(status.st_mode):
            raise SourceError(
                f"The source {shown(self.path)} is not a directory. Name the directory to mirror."
            )
        return status.st_dev, status.st_ino

    @contextmanager
    def _scan(self, directory: bytes) -> Iterator[Iterator[os.DirEntry[Any]]]:
        """The children, of a directory and of nothing that it was swapped for; OSError.

        The root itself may be reached through a link.
        """
        full = self._full(directory)
        if not _SCANS_HANDLES:
            before = _real_directory(full, is_root=not directory)
            with os.scandir(full) as found:
                yield found
            if _real_directory(full, is_root=not directory) != before:
                raise NotADirectoryError(errno.ENOTDIR, "It was replaced while it was listed")
            return
        handle = os.open(full, _flags_of(directory))
        try:
            with os.scandir(handle) as found:
                yield found
        finally:
            os.close(handle)

    def _full(self, path: bytes) -> bytes:
        return os.path.join(self.path, path) if path else self.path

    def is_empty(self) -> bool:
        """Whether nothing is in the directory; True also when that cannot be known."""
        try:
            with os.scandir(self.path) as found:
                return next(found, None) is None
        except OSError:
            return True


class _Glanced(NamedTuple):
    """One name that was looked at, to be asked as an os.DirEntry is."""

    name: bytes
    status: os.stat_result | OSError

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        """What was seen; the error of looking at it."""
        assert not follow_symlinks
        if isinstance(self.status, OSError):
            raise self.status
        return self.status


def _present(handle: int, names: Iterable[bytes]) -> Iterator[_Glanced]:
    """Those of the names that are in an open directory."""
    for child in names:
        try:
            yield _Glanced(child, os.stat(child, dir_fd=handle, follow_symlinks=False))
        except FileNotFoundError:
            continue
        except OSError as error:
            yield _Glanced(child, error)


def _listing(directory: bytes, found: Iterable[os.DirEntry[Any] | _Glanced]) -> Listing:
    children: dict[bytes, bytes] = {}
    problems: list[Problem] = []
    unknown: set[bytes] = set()
    special: set[bytes] = set()
    for child in found:
        child_name = os.fsencode(child.name)
        try:
            status = child.stat(follow_symlinks=False)
        except OSError as error:
            unknown.add(child_name)
            problems.append(unreadable(join(directory, child_name), error))
            continue
        if stat.S_ISREG(status.st_mode) or kind_of(status) is not None:  # most are files
            children[child_name] = identity(status)
        else:
            special.add(child_name)
    return Listing(children, problems, unknown | special, special, failed=False)


def _flags_of(directory: bytes) -> int:
    """How to open a directory to list it: the root alone may be reached through a link."""
    return _DIRECTORY_FLAGS if directory else _ROOT_FLAGS


def _real_directory(full: bytes, *, is_root: bool) -> tuple[int, int]:
    """Which directory this is, (device, inode). OSError if it is none, but a link to one."""
    status = os.stat(full) if is_root else os.lstat(full)
    if kind_of(status) != DIR:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return status.st_dev, status.st_ino


class LocalFile:
    """A file being read once, front to back; see sftp.pieces.Source."""

    def __init__(
        self,
        full_path: bytes,
        entry: Entry,
        now_ns: Callable[[], int],
        check: Callable[[], None],
    ) -> None:
        self._path = full_path
        self._now_ns = now_ns
        self._check = check
        self._handle = os.open(full_path, _OPEN_FLAGS)
        self._read = 0
        self.size = entry.size
        self.identity = identity(os.fstat(self._handle))
        mtime_ns, _, size, _, mode = fields(self.identity)
        if (size, mtime_ns) != (entry.size, entry.mtime_ns) or not stat.S_ISREG(mode):
            self.close()
            raise self._torn()

    def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; b"" at the end."""
        self._check()
        # A buffer of the whole limit costs more than reading a small file into it; one byte more
        # than there should be shows that the file has grown.
        limit = min(limit, self.size - self._read + 1)
        data = os.read(self._handle, limit)
        while data and len(data) < limit and self._read + len(data) < self.size:
            more = os.read(self._handle, limit - len(data))
            if not more:
                break
            data += more
        self._read += len(data)
        return data

    def verify(self) -> bytes:
        """The identity to record; TornRead if the file changed since it was opened."""
        now = self._now_ns()
        if self._read != self.size or identity(os.fstat(self._handle)) != self.identity:
            raise self._torn()
        return settled(self.identity, now)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _torn(self) -> TornRead:
        return TornRead("It changed while it was read; it is sent when it has come to rest.")


def unreadable(path: bytes, error: OSError) -> Problem:
    """The problem of a local path that cannot be looked at or read."""
    return Problem(path, "unreadable", f"It cannot be read: {error.strerror or error}.")
