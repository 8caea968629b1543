"""Which content is on the remote already, under another name. Pure.

A rename takes the content away from where it was: from a path where nothing is to be, or where
other content arrives by a rename as well. Everywhere else the old name keeps its content until a
new version replaces it, so there the content is copied.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from skynet.findings import (
    Finding,
    content_of,
    has_other_content,
    holds_ours,
    holds_wanted,
    is_same_file,
    moved_key,
)
from skynet.tree import DIR, FILE, Entry, name

_LOOK = 16  # bytes of a moved_key: time and size; the others are the inode
Content = tuple[int, bytes]  # size and xxh3-128
Held = tuple[bytes, Entry]  # where the remote holds some content, and what is there
Holder = Callable[[int, bytes], Held | None]


class Matches(NamedTuple):
    """New path -> finding of where its content is to be renamed from, or where to copy it from.

    The copies come in an order in which each is made before its source is overwritten. twins: new
    path -> where the same content is once that was sent.
    """

    renames: dict[bytes, Finding]
    copies: dict[bytes, Held]
    twins: dict[bytes, Held]

    def without(self, paths: Collection[bytes]) -> Matches:
        """The same but for what is to be at `paths`, and the copies of that."""
        renames = {path: source for path, source in self.renames.items() if path not in paths}
        copies = {
            path: source
            for path, source in self.copies.items()
            if path not in paths and source[0] not in paths
        }
        twins = {p: held for p, held in self.twins.items() if held[0] not in paths}
        return Matches(renames, copies, twins)


def match(
    findings: Sequence[Finding], *, staying: Collection[bytes], can_copy: bool, holder: Holder
) -> Matches:
    """Find all content that need not be sent.

    staying: what stays on the remote, although it should not be there. can_copy: whether the server
    copies.
    """
    sources = [f for f in findings if has_other_content(f) and f.path not in staying]
    wanting = [f for f in findings if _wants_content(f)]
    if not wanting:
        return Matches({}, {}, {})
    renames = _assigned(wanting, sources)
    if not can_copy:
        return Matches(renames, {}, {})
    _drop_overwritten(renames)
    kept = _kept(
        (f for f in findings if holds_wanted(f) or f.path in staying),
        {_content(f) for f in wanting},
    )

    def held(size: int, digest: bytes) -> Held | None:
        return kept.get((size, digest)) or holder(size, digest)

    copies = _copies(wanting, sources, renames, held)
    return Matches(renames, copies, _twins(wanting, renames, copies))


def _wants_content(finding: Finding) -> bool:
    """Whether a file of known content is to be at a path that does not have it."""
    local = finding.local
    is_known = local is not None and local.kind == FILE and bool(local.digest)
    return is_known and not holds_wanted(finding)


def _content(finding: Finding) -> Content:
    assert finding.local is not None
    return content_of(finding.local)


class _Pool:
    """Sources to choose from, each given once."""

    def __init__(self, sources: Iterable[Finding]) -> None:
        self._shelves: dict[Hashable, deque[Finding]] = defaultdict(deque)
        self._taken: set[bytes] = set()
        for source in sources:
            assert source.remote is not None
            for label in _labels(content_of(source.remote), source.known, source.path):
                self._shelves[label].append(source)

    def take(self, label: Hashable) -> Finding | None:
        shelf = self._shelves.get(label)
        while shelf:
            source = shelf.popleft()
            if source.path not in self._taken:
                self._taken.add(source.path)
                return source
        return None


def _labels(content: Content, identity: bytes, path: bytes) -> tuple[Hashable, ...]:
    """What a source is looked for by, the best first: the same file, the same name, the content.

    () is nothing to look for by: all empty files are alike, so only the same file tells.
    """
    same_file = (content, moved_key(identity)) if moved_key(identity) else ()
    if not content[0]:
        return same_file, (), ()
    return same_file, (content, "named", name(path)), content


def _assigned(wanting: Sequence[Finding], sources: Sequence[Finding]) -> dict[bytes, Finding]:
    """As many renames as there are sources for, the best of them first."""
    # What is gone may be taken away without further ado.
    pool = _Pool(sorted(sources, key=lambda f: f.local is not None))
    # Names that are exchanged among each other come first: nothing else makes those sources free.
    losing = {source.path for source in sources}
    wanting = sorted(wanting, key=lambda f: f.path not in losing)
    renames: dict[bytes, Finding] = {}
    for rank in range(3):
        for f in wanting:
            if f.path in renames:
                continue
            label = _labels(_content(f), f.here, f.path)[rank]
            source = pool.take(label) if label else None
            if source is not None:
                renames[f.path] = source
    return renames


def _drop_overwritten(renames: dict[bytes, Finding]) -> None:
    """Leave out what would take a file away from where it is about to be overwritten."""
    taker = {source.path: path for path, source in renames.items()}
    waiting = [path for path, source in renames.items() if _gets_version(source)]
    while waiting:
        path = waiting.pop()
        source = renames.get(path)
        if source is not None and _gets_version(source) and source.path not in renames:
            del renames[path]
            if path in taker:
                waiting.append(taker[path])


def _gets_version(source: Finding) -> bool:
    return source.local is not None and source.local.kind != DIR


def _kept(findings: Iterable[Finding], wanted: Collection[Content]) -> dict[Content, Held]:
    """Wanted content of findings that stays at its path, whatever happens to its mode and time."""
    kept: dict[Content, Held] = {}
    for f in findings:
        if f.remote is not None and holds_ours(f):
            content = content_of(f.remote)
            if content in wanted:
                kept.setdefault(content, (f.path, f.remote))
    return kept


def _copies(
    wanting: Sequence[Finding],
    sources: Sequence[Finding],
    renames: dict[bytes, Finding],
    holder: Holder,
) -> dict[bytes, Held]:
    """Where else the content is when all renames are done and nothing is overwritten yet."""
    moved: dict[Content, Held] = {}
    for path, source in renames.items():
        assert source.remote is not None
        moved.setdefault(content_of(source.remote), (path, source.remote))
    overwritten: dict[Content, Held] = {}
    taken = {source.path for source in renames.values()}
    for source in sources:
        assert source.remote is not None
        if _gets_version(source) and source.path not in taken and source.path not in renames:
            overwritten.setdefault(content_of(source.remote), (source.path, source.remote))
    copies: dict[bytes, Held] = {}
    for f in wanting:
        content = _content(f)
        if f.path not in renames and content[0]:
            held = moved.get(content) or holder(*content) or overwritten.get(content)
            if held is not None:
                copies[f.path] = held
    return _untangled(copies, renames, sources)


def _twins(
    wanting: Sequence[Finding], renames: dict[bytes, Finding], copies: dict[bytes, Held]
) -> dict[bytes, Held]:
    """Of several files whose content must be sent, all but the first."""
    first: dict[Content, Held] = {}
    twins: dict[bytes, Held] = {}
    for f in wanting:
        content = _content(f)
        if f.path in renames or f.path in copies or not content[0]:
            continue
        assert f.local is not None
        held = first.setdefault(content, (f.path, f.local))
        if held[0] != f.path:
            twins[f.path] = held
    return twins


def _untangled(
    copies: dict[bytes, Held], renames: dict[bytes, Finding], sources: Sequence[Finding]
) -> dict[bytes, Held]:
    """The copies in an order that overwrites nothing that is still to be read.

    Those that go round in a circle become renames; who else reads there reads the new names.
    """
    found = {source.path: source for source in sources}
    readers = Counter(source for source, _ in copies.values())
    ready = deque(path for path in copies if not readers[path])
    waiting = dict(copies)
    result: dict[bytes, Held] = {}
    while waiting:
        if not ready:
            circle = _circle(waiting)
            renames |= {path: found[waiting.pop(path)[0]] for path in circle}
            now = {renames[path].path: path for path in circle}
            result, waiting = _redirected(result, now), _redirected(waiting, now)
            readers = Counter(source for source, _ in waiting.values())
            ready = deque(path for path in waiting if not readers[path])
            continue
        path = ready.popleft()
        source = result[path] = waiting.pop(path)
        readers[source[0]] -= 1
        if not readers[source[0]] and source[0] in waiting:
            ready.append(source[0])
    return result


def _redirected(copies: dict[bytes, Held], now: dict[bytes, bytes]) -> dict[bytes, Held]:
    return {path: (now.get(source, source), entry) for path, (source, entry) in copies.items()}


def _circle(copies: dict[bytes, Held]) -> list[bytes]:
    """Paths each of which is to be a copy of the next one, and the last of the first."""
    path, seen = next(iter(copies)), list[bytes]()
    while path not in seen:
        seen.append(path)
        path = copies[path][0]
    return seen[seen.index(path) :]


def known_by_identity(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, with the digests of files that are as they were, or only have another name."""
    findings = list(findings)
    originals = _originals(findings)
    for f in findings:
        key = moved_key(f.here)
        original = originals.get(key)
        if key and f.here == f.known and holds_ours(f):
            original = f  # its directory has moved
        elif original is not None and not is_same_file(f.here, original.known):
            original = None
        if original is not None:
            assert original.remote is not None
            f = f.with_digest(original.remote)
        yield f


def _originals(findings: Sequence[Finding]) -> dict[bytes, Finding]:
    """By `moved_key`, what files that have another name now may be.

    Not what is still in its place, since both names may lead to a file that has changed; nor one
    of several that look alike, since each may have got the inode of another.
    """
    gone = {
        moved_key(f.known): f
        for f in findings
        if holds_ours(f) and moved_key(f.known)[_LOOK:] != moved_key(f.here)[_LOOK:]
    }
    sought = {key for f in findings if (key := moved_key(f.here)) in gone} - {b""}
    wanted = {key[:_LOOK] for key in sought}
    looks = Counter(look for f in findings if (look := moved_key(f.known)[:_LOOK]) in wanted)
    return {key: gone[key] for key in sought if looks[key[:_LOOK]] == 1}
