"""A connection to a mirror's remote, with what is known through it: for one cycle or many.

Between cycles the lease is kept, so that the next one need not take it again; an idle holder only
looks whether it still has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from skynet.config import Mirror
from skynet.cycle import Surroundings
from skynet.errors import SkynetError
from skynet.lease import LEASE, Lease
from skynet.ledger import Ledger, origin_of
from skynet.memory import Memory
from skynet.monitor import Stage
from skynet.remote import Listed, Remote, Site
from skynet.scan import Root

SEEN_SECONDS = 600.0
MAX_SEEN = 100_000


class Session:
    """See the module's text. Made by `opened`.

    site: what is at the target, as far as a current manifest stands for it. is_known: the ledger
    says what the manifest does, if nobody else had the lease since.
    """

    def __init__(
        self,
        mirror: Mirror,
        root: Root,
        memory: Memory,
        remote: Remote,
        around: Surroundings,
        tokens: dict[str, bool],
    ) -> None:
        self.mirror = mirror
        self.root = root
        self.memory = memory
        self.remote = remote
        self.around = around
        self.site = Site(exists=True, is_prepared=True)
        origin = origin_of(around.host, mirror.source)
        self.ledger = Ledger(remote, memory.index, origin, around.token, around.monitor)
        token = around.token(6).hex()
        self.lease = Lease(
            remote,
            token,
            pid_space=around.pid_space,
            clock=around.clock,
            sleep=self._sleep,
            monitor=around.monitor,
            mine=dict(tokens),
        )
        self._token, self._tokens = token, tokens
        tokens[token] = True
        self.is_known = False
        self._seen: dict[bytes, float] = {}  # remote directories, and when

    def _sleep(self, seconds: float) -> None:
        """Who watches another's lease goes on with what is due every moment, and can be ended."""
        self.around.sleep(seconds)
        self.around.check()

    def know_the_synced_tree(self, *, in_memory: bool) -> bool:
        """Make the ledger say what the manifest does; whether it did so before, here.

        in_memory: the index on disk stays as it is.
        """
        if self.is_known and self.lease.is_held:
            return True
        self.around.monitor(Stage("reading the manifest"))
        was_known = self.ledger.is_current()
        if not was_known:
            self.site = self.remote.examine()
            self.ledger.load(target_exists=self.site.exists, in_memory=in_memory)
        self.is_known = True
        return was_known

    def not_seen_lately(self, directories: Iterable[bytes]) -> list[bytes]:
        """Those of the remote directories that nobody has looked at for some time."""
        since = self.around.clock() - SEEN_SECONDS
        return [path for path in directories if self._seen.get(path, since) <= since]

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        """Audit the remote (verbs.Remote.walk), and note the directories that are there."""
        return map(self._noted, self.remote.walk(hides))

    def _noted(self, listed: Listed) -> Listed:
        if listed.error is None:
            self.note_seen([listed.directory])
        return listed

    def note_seen(self, directories: Iterable[bytes]) -> None:
        """These were seen to be directories just now."""
        if len(self._seen) > MAX_SEEN:
            self.forget_seen()
        self._seen.update(dict.fromkeys(directories, self.around.clock()))

    def forget_seen(self) -> None:
        """Each is to be looked at again."""
        self._seen.clear()

    def keep_alive(self) -> None:
        """Ask the server for a sign of life, and whether the lease is still ours."""
        if self.lease.is_held:
            self.lease.ping()
        else:
            self.remote.stamp(LEASE)

    def end_doubts(self) -> None:
        """A cycle has ended well, and saw what earlier ones may have left half done."""
        self.lease.has_begun = False
        self._tokens.update(dict.fromkeys(self._tokens, False))

    def leave(self) -> None:
        """Give back the lease, after all went well."""
        self._tokens[self._token] = False
        if self.lease.is_held:
            self.lease.release()

    def give_up(self) -> None:
        """Give back the lease after an error, but not if something may be half done.

        Then it tells the next session to look at what the remote really holds.
        """
        self._tokens[self._token] = self.lease.has_begun
        self.memory.claims.break_off()
        if self.lease.is_held and not self.lease.has_begun:
            # The error that ends the session is what matters; a lease that stays is taken over.
            with contextlib.suppress(SkynetError):
                self.lease.release()


@contextlib.contextmanager
def opened(
    mirror: Mirror,
    root: Root,
    memory: Memory,
    connect: Callable[[], Remote],
    around: Surroundings,
    tokens: dict[str, bool] | None = None,
) -> Iterator[Session]:
    """A session over a connection of its own, so that nothing of a broken one is under way.

    tokens: of the leases that earlier sessions of this process had there, as Lease wants them; it
    gets that of this one.
    """
    remote = connect()
    try:
        session = Session(mirror, root, memory, remote, around, {} if tokens is None else tokens)
        try:
            yield session
        except BaseException:
            session.give_up()
            raise
        session.leave()
    finally:
        remote.close()
