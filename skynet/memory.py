"""What this machine keeps of a mirror, in its state directory. All of it may be lost.

index: the synced tree. claims: what is being made and not recorded yet. intents: large uploads in
progress. signatures: block digests of what the remote holds. trashed: what is in its trash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from skynet.claims import Claims
from skynet.config import Mirror
from skynet.index import Index
from skynet.intents import Intents
from skynet.monitor import Monitor
from skynet.signatures import Signatures
from skynet.state import Lock, directory_for, locked, make_private
from skynet.trashed import Trashed

INDEX_FILE = "index.sqlite"
CLAIMS = "claims"
INTENTS = "intents"
SIGNATURES = "signatures"
TRASHED = "trashed"


class Memory:
    """Of one mirror, while it is open."""

    def __init__(
        self,
        index: Index,
        claims: Claims,
        intents: Intents,
        signatures: Signatures,
        trashed: Trashed,
    ) -> None:
        self.index = index
        self.claims = claims
        self.intents = intents
        self.signatures = signatures
        self.trashed = trashed

    def reopen_index(self, directory: Path) -> None:
        """Open the index again: its file may have been removed, or closed for damage.

        SkynetError if that cannot be; then it stays closed, and this may be called again.
        """
        make_private(directory)
        self.begin_index_anew(directory, read_only=False)

    def begin_index_anew(self, directory: Path, *, read_only: bool) -> None:
        """Open the index again, which was deleted for damage; in memory if none may be made."""
        self.index.close()
        self.index = Index.open(None if read_only else directory / INDEX_FILE)


def state_of(mirror: Mirror) -> Path:
    """The mirror's own state directory."""
    return directory_for(mirror.state_dir, mirror.source, str(mirror.target))


@contextmanager
def claimed(mirror: Mirror) -> Iterator[Lock]:
    """The lock of the mirror's state directory, which is made. OwnedError, UsageError."""
    state = state_of(mirror)
    make_private(state)
    with locked(state) as lock:
        yield lock


@contextmanager
def remembered(state: Path, monitor: Monitor, *, read_only: bool) -> Iterator[Memory]:
    """What is kept in a state directory. read_only: nothing is written, and it may be absent."""
    with ExitStack() as stack:
        claims = Claims(state / CLAIMS, monitor)
        stack.callback(claims.close)
        intents = Intents(state / INTENTS, monitor)
        stack.callback(intents.close)
        kept = Signatures.open(state / SIGNATURES, monitor, read_only=read_only)
        signatures = stack.enter_context(kept)
        trashed = stack.enter_context(Trashed.open(state / TRASHED, monitor, read_only=read_only))
        index = Index.open(state / INDEX_FILE, read_only=read_only)
        memory = Memory(index, claims, intents, signatures, trashed)
        stack.callback(lambda: memory.index.close())
        yield memory
