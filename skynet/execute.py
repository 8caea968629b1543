"""Carrying a plan out with the lease held, and recording what the remote acknowledges.

Before the first change: what the plan goes through is looked at, what a broken run left behind is
cleared, and the manifest is still the one that the plan was made from. Afterwards the manifest is
compacted and old trash removed, where it is time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from skynet.apply import Addition, Applied, More, apply
from skynet.contents import deltas_of
from skynet.errors import OwnedError, Problem, TargetError
from skynet.findings import IDENTITY_SIZE, is_unread
from skynet.index import STAT_UNKNOWN
from skynet.lease import LEASE
from skynet.monitor import Notice, Stage
from skynet.ops import (
    REMOVALS,
    Mkdir,
    Op,
    Plan,
    Record,
    Rename,
    SetMeta,
    Upload,
    effect,
    paths_of,
)
from skynet.remote import Outcome, Site, Trash
from skynet.rules import is_parked
from skynet.scan import RACY, UNREAD, kind_in
from skynet.scope import Survey
from skynet.session import Session
from skynet.trashed import put_away
from skynet.tree import DIR, LATEST_TIME, Kind, ancestors, name

SECONDS_A_DAY = 86_400


class Execution:
    """Of one plan, and of what joins it meanwhile. audited: the plan was made with an audit.

    expires_trash: old trash goes in the end.
    """

    def __init__(
        self, session: Session, found: Survey, *, audited: bool, expires_trash: bool
    ) -> None:
        self._session = session
        self._mirror = session.mirror
        self._remote = session.remote
        self._ledger = session.ledger
        self._lease = session.lease
        self._found = found
        self._audited = audited
        self._expires_trash = expires_trash
        self._told_later: set[bytes] = set()  # paths of what sets attributes, or only records
        self.applied = Applied()  # so far, also if an error is raised

    def run(self, plan: Plan, more: More | None = None) -> Applied | None:
        """Carry it out; None if it must be made again, with an audit."""
        session, lease, ledger = self._session, self._lease, self._ledger
        session.around.monitor(Stage("transferring"))
        self._remote.expect(len(plan.ops))
        empty_old_trash = self._look_for_old_trash()
        leads_where_recorded = None if self._audited else self._look_at_the_way(plan.ops)
        # Without a manifest nothing tells of a first run that broke off before it had the lease.
        may_hold_temps = ledger.is_new and session.site.is_prepared
        self._prepare()
        deltas = deltas_of(plan, session.root, session.memory.signatures, self._found.deltas)
        was_held = lease.is_held
        was_left_behind = lease.ensure()
        going_on = [] if was_held else self._uploads_to_go_on_with(plan)
        if was_left_behind or may_hold_temps or self._found.strays:
            self._remote.clear_temps(self._found.strays, going_on)
            lease.beat()
            if not self._audited:
                session.is_known = False  # what was read before the lease was ours may have moved
                return None
        if not was_held:
            ledger.expect_unmoved()
            lease.beat()
        if leads_where_recorded is not None and not leads_where_recorded():
            return None
        lease.has_begun = True
        ledger.index.remember(self._found.settled)
        self._remote.trash = self._trash()
        self._told_later |= _told_later(plan)
        session.memory.claims.tell(plan.ops)
        ledger.expect_record()
        with session.around.on_one_processor():
            apply(
                plan,
                self._remote,
                session.root,
                claims=session.memory.claims,
                intents=session.memory.intents,
                deltas=deltas,
                get_ready=lambda: ledger.begin(lease.beat),
                commit=self._commit,
                beat=self._beat,
                clock=session.around.clock,
                monitor=session.around.monitor,
                more=more,
                applied=self.applied,
            )
        self._own_up(plan.ops, self.applied.problems)
        ledger.compact(lease.beat)
        empty_old_trash()
        session.end_doubts()
        return self.applied

    def clear_up(self) -> None:
        """Where there is nothing to do: remove what a cycle that broke off has left.

        Whoever had the remote since has done so, and has taken away the lease that was left, too.
        """
        if self._remote.stamp(LEASE) is None:
            return
        with suppress(OwnedError):  # it is up to who has it now
            if self._lease.ensure():
                going_on = self._uploads_to_go_on_with(Plan([], []))
                self._remote.clear_temps(self._found.strays, going_on)
            self._session.end_doubts()

    def _beat(self) -> None:
        self._session.around.check()
        self._lease.beat()

    def join(self, plan: Plan, found: Survey, is_anew: Callable[[bytes], bool]) -> Addition | None:
        """What a running plan is to go on with; None if an audit must come first.

        is_anew: see Addition.
        """
        if not self._look_at_the_way(plan.ops)():
            return None
        self._ledger.index.remember(found.settled)
        mine = self._found
        mine.identities |= found.identities
        mine.findings += [finding for finding in found.findings if finding.stale]
        self._told_later |= _told_later(plan)
        self._remote.trash = self._trash()  # which may have something of the same paths already
        deltas = deltas_of(plan, self._session.root, self._session.memory.signatures, found.deltas)
        return Addition(plan, deltas, is_anew)

    def _prepare(self) -> None:
        if self._ledger.is_new:
            self._remote.facts = self._remote.prepare()
        elif not self._session.site.is_prepared:
            self._remote.prepare()
        self._session.site = Site(exists=True, is_prepared=True)

    def _uploads_to_go_on_with(self, plan: Plan) -> list[bytes]:
        """The temporary files of broken uploads that the plan wants; those of others are removed.

        Whether they still hold is seen when the upload begins.
        """
        intents = dict(self._session.memory.intents.noted())
        going_on = []
        for op in plan.ops if intents else ():
            intent = intents.get(op.path)
            if isinstance(op, Upload) and intent is not None and intent.size == op.entry.size:
                going_on.append(intents.pop(op.path).temp)
        for intent in intents.values():
            self._remote.remove(intent.temp)
        self._session.memory.intents.forget(intents)
        return going_on

    def _look_at_the_way(self, ops: Sequence[Op]) -> Callable[[], bool]:
        """Ask whether what the plan goes through is still there, and no link out of the target.

        An audit has seen that; without one the directories on the way are looked at, if they were
        not lately. What is returned waits for the answer.
        """
        wanted = _gone_through(ops)
        is_synced = self._ledger.index.entry
        known = [path for path in wanted if is_synced(path)]
        unseen = self._session.not_seen_lately(known)
        kinds = self._remote.kinds(unseen)

        def leads_where_recorded() -> bool:
            if kinds() != [wanted[path] for path in unseen]:
                return False
            if any(isinstance(op, Rename) and op.entry.kind == DIR for op in ops):
                self._session.forget_seen()  # others will be at these paths
            else:
                self._session.note_seen(path for path in unseen if wanted[path] == DIR)
            return True

        return leads_where_recorded

    def _commit(self, batch: list[Outcome]) -> None:
        """Record what the remote has acknowledged."""
        self._lease.check()
        identities = {
            outcome.op.path: _identity(outcome, self._found)
            for outcome in batch
            if not self._is_under_way(outcome.op)
        }
        self._ledger.record([effect(outcome.op) for outcome in batch], identities)
        for outcome in batch:
            if outcome.signature is not None:
                self._session.memory.signatures.put(outcome.signature.digest, outcome.signature)
        self._session.memory.trashed.note(put_away(batch))

    def _is_under_way(self, op: Op) -> bool:
        """Whether it only brings something nearer to what is here.

        That keeps the identity that it had: what is parked is known again by it, and what still
        lacks its mode and times is not taken for what is here, should it never get them.
        """
        return is_parked(op.path) or (isinstance(op, Rename) and op.path in self._told_later)

    def _own_up(self, ops: Sequence[Op], problems: list[Problem]) -> None:
        """Where a repair has failed, let the manifest say what is really there.

        Of what was to move, alone or with a directory, it has been told before.
        """
        told = {op.source for op in ops if isinstance(op, Rename)}
        moved = {op.path for op in ops if isinstance(op, Rename) and op.entry.kind == DIR}
        failed = {problem.path for problem in problems} - told
        stale = [
            f
            for f in self._found.findings
            if f.path in failed and moved.isdisjoint((f.path, *ancestors(f.path)))
        ]
        if stale:
            self._lease.check()
            self._ledger.record([effect(Record(f.path, f.remote)) for f in stale], {})

    def _trash(self) -> Trash:
        return Trash(
            self._stamp() + b"-" + self._session.around.token(2).hex().encode(),
            keep_deleted=self._mirror.trash_days > 0,
            keep_replaced=self._mirror.trash == "all",
        )

    def _look_for_old_trash(self) -> Callable[[], None]:
        """Ask what of the trash is too old, in runs that audit. What is returned removes it.

        That has to wait for the end: until then files may be copied from there. It must be too old
        by our clock and by the server's, for one of them may be wrong, or have been.
        """
        days = self._mirror.trash_days
        if not (self._expires_trash and days):
            return lambda: None
        before = self._stamp(days_ago=days)
        remove = self._remote.expire_trash(before)

        def empty() -> None:
            self._lease.beat()
            now = self._lease.server_time
            try:
                remove(now - days * SECONDS_A_DAY if now else LATEST_TIME)
            except TargetError as error:  # all is done, and what is too old does no harm
                self._session.around.monitor(Notice("old-trash-stays", f"Old trash stays: {error}"))
            self._session.memory.trashed.expire(before)

        return empty

    def _stamp(self, days_ago: int = 0) -> bytes:
        """A moment as the trash names it: stamps sort as their moments do."""
        moment = datetime.fromtimestamp(self._session.around.now_ns() / 1e9, UTC)
        return (moment - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H%M%SZ").encode()


def _told_later(plan: Plan) -> set[bytes]:
    return {op.path for op in plan.ops if isinstance(op, SetMeta | Record)}


def _gone_through(ops: Sequence[Op]) -> dict[bytes, Kind]:
    """What the operations go through or set attributes of, by its path before the first of them."""
    wanted: dict[bytes, Kind] = {}
    seen: set[bytes] = set()
    attributed = {op.path for op in ops if isinstance(op, SetMeta)}
    before = _Before()
    for op in ops:
        for path in paths_of(op):
            for directory in ancestors(path):
                if directory in seen:
                    break  # and so are those above it
                seen.add(directory)
                wanted |= dict.fromkeys(before.at(directory), DIR)
        if isinstance(op, SetMeta):
            wanted |= dict.fromkeys(before.at(op.path), op.entry.kind)
        elif isinstance(op, Rename) and op.entry.kind == DIR:
            before.move(op.source, op.path)
            seen.clear()
        elif isinstance(op, Mkdir) or (op.path in attributed and not isinstance(op, REMOVALS)):
            before.make(op.path)
    return wanted


class _Place:
    """A name, and those below it.

    former: where what is there was before, nowhere if it is new; None if it has come here with
    what is above it, or was here before.
    """

    def __init__(self) -> None:
        self.former: list[bytes] | None = None
        self.below: dict[bytes, _Place] = {}


class _Before:
    """Where things were, while a plan makes and moves them."""

    def __init__(self) -> None:
        self._root = _Place()

    def at(self, path: bytes) -> list[bytes]:
        """The former path of what is at a path by now; none if it is new."""
        names = path.split(b"/")
        place, former = self._root, [path]
        for depth, each in enumerate(names, 1):
            below = place.below.get(each)
            if below is None:
                break
            place = below
            if place.former is not None:
                former = [b"/".join([above, *names[depth:]]) for above in place.former]
        return former

    def make(self, path: bytes) -> None:
        self._above(path).below.setdefault(name(path), _Place()).former = []

    def move(self, source: bytes, path: bytes) -> None:
        former = self.at(source)
        moved = self._above(source).below.pop(name(source), _Place())
        moved.former = former
        self._above(path).below[name(path)] = moved

    def _above(self, path: bytes) -> _Place:
        place = self._root
        for each in path.split(b"/")[:-1]:
            place = place.below.setdefault(each, _Place())
        return place


def _identity(outcome: Outcome, found: Survey) -> bytes:
    """The stat identity to record: of the bytes sent, else of what the survey compared."""
    if outcome.identity:
        return outcome.identity
    op = outcome.op
    if isinstance(op, Record):
        if op.entry is None or op.entry.retained or op.entry.kind == DIR:
            return STAT_UNKNOWN
        if op.first:  # so that it is not taken for what is here
            return op.known or (UNREAD if is_unread(op.entry) else RACY)
    known = found.identities.get(op.path, STAT_UNKNOWN)
    if isinstance(op, SetMeta) and len(known) == IDENTITY_SIZE and kind_in(known) != op.entry.kind:
        return STAT_UNKNOWN  # a directory that is opened or closed where a file is here
    return known
