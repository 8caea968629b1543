"""One cycle: bring the remote to what the local directory is. The file to read first.

    synced   = ledger: the index, if the remote's manifest still says the same
    findings = survey(local, synced, audit)        what differs
    plan     = make_plan(findings, policy)         what to do about it
    hazards  = guard(plan)                         whether a person must agree
    apply(plan), and for each acknowledged batch: manifest.append, index.record

Nothing is written before the guard has passed, and nothing at all when there is nothing to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from skynet import stale
from skynet.apply import Applied, apply
from skynet.config import Mirror
from skynet.contents import deltas_of
from skynet.cycle import Outcomes, Report, Request, Surroundings
from skynet.errors import Problem
from skynet.guard import Circumstances, Hazard, hazards
from skynet.index import STAT_UNKNOWN, Index, IndexDamaged
from skynet.intents import Intents
from skynet.lease import Lease
from skynet.ledger import Ledger, origin_of
from skynet.monitor import Notice, Stage
from skynet.ops import Copy, Delete, Plan, Record, Rename, Rmdir, SetMeta, Upload, effect
from skynet.plan import Policy
from skynet.planning import Tools, plan_for
from skynet.preview import weigh_moved
from skynet.remote import Outcome, Remote, Site, Trash
from skynet.rules import Rules, is_parked
from skynet.saved import Basis, SavedPlan
from skynet.scan import Root
from skynet.signatures import Signatures
from skynet.state import directory_for, locked, make_private
from skynet.survey import Scope, Survey, survey
from skynet.tree import DIR, Entry, Kind, ancestors, join

INDEX_FILE = "index.sqlite"
INTENTS = "intents"
SIGNATURES = "signatures"


class _Hints(NamedTuple):
    """What is kept here from one cycle to the next, beside the index; it may be lost."""

    intents: Intents
    signatures: Signatures


def run_cycle(
    mirror: Mirror, connect: Callable[[], Remote], request: Request, around: Surroundings
) -> Report:
    """Run one cycle. A dry run writes nothing, neither locally nor on the remote.

    If the index proves to be damaged, the cycle starts again without it.
    """
    root = Root(mirror.source, around.now_ns)
    state = directory_for(mirror.state_dir, mirror.source, str(mirror.target))
    with ExitStack() as stack:
        if not request.dry_run:
            make_private(state)
            stack.enter_context(locked(state))
        file = state / INDEX_FILE
        intents = Intents(state / INTENTS, around.monitor)
        stack.callback(intents.close)
        signatures = Signatures.open(state / SIGNATURES, around.monitor)
        hints = _Hints(intents, stack.enter_context(signatures))
        try:
            return _run_with(file, hints, mirror, root, connect, request, around)
        except IndexDamaged as damage:
            around.monitor(Notice(damage.code, str(damage)))
        anew = None if request.dry_run else file
        return _run_with(anew, hints, mirror, root, connect, request, around)


def _run_with(
    index_file: Path | None,
    hints: _Hints,
    mirror: Mirror,
    root: Root,
    connect: Callable[[], Remote],
    request: Request,
    around: Surroundings,
) -> Report:
    """One cycle over a connection of its own, so that nothing of a broken one is under way."""
    with ExitStack() as stack:
        index = stack.enter_context(Index.open(index_file, read_only=request.dry_run))
        around.monitor(Stage("connecting"))
        remote = connect()
        stack.callback(remote.close)
        return _Cycle(mirror, root, index, hints, remote, request, around).run()


class _Cycle:
    def __init__(
        self,
        mirror: Mirror,
        root: Root,
        index: Index,
        hints: _Hints,
        remote: Remote,
        request: Request,
        around: Surroundings,
    ) -> None:
        self.mirror = mirror
        self.root = root
        self.intents, self.signatures = hints
        self.remote = remote
        self.request = request
        self.around = around
        self.site = Site(exists=True, is_prepared=True)  # what a current manifest stands for
        self.audit = request.audit  # or another look at the remote, for a saved plan
        self.began_ns = around.now_ns()
        origin = origin_of(around.host, mirror.source)
        self.ledger = Ledger(remote, index, origin, around.token, around.monitor)

    def run(self) -> Report:
        self._know_the_synced_tree()
        if self.request.saved is not None:
            return self._carry_out(self._recall(self.request.saved), self.request.saved.plan)
        found = self._survey()
        self.around.monitor(Stage("reading what may have moved or changed"))
        read_back = self.remote if self.request.adopt == "content" else None
        tools = Tools(self.root, self.ledger.index, self.signatures, self.rules)
        plan = plan_for(found, tools, self._policy(), read_back)
        found.findings = [finding for finding in found.findings if finding.stale]  # for _own_up
        return self._carry_out(found, plan)

    def _carry_out(self, found: Survey, plan: Plan) -> Report:
        """Do it, unless that is not wanted or a hazard holds it."""
        problems = [*found.problems, *plan.problems]
        dangers = hazards(plan, self._circumstances(found, plan))
        held = any(hazard.approve != self.request.approve for hazard in dangers)
        if self.request.dry_run or held or not plan.ops:
            return self._report_unapplied(found, plan, problems, dangers, held=held)
        applied = self._apply(plan, found)
        if applied is None:
            return self.run()
        problems = [*found.problems, *applied.problems]
        outcome: Outcomes = "problems" if problems else "changed"
        self._pin_root()
        return Report(outcome, plan, applied.done, problems, [], self.remote.counts, found.skipped)

    def _know_the_synced_tree(self) -> None:
        self.around.monitor(Stage("reading the manifest"))
        if not self.ledger.is_current():
            self.site = self.remote.examine()
            self.ledger.load(target_exists=self.site.exists, in_memory=self.request.dry_run)
            self.audit = self.audit or self.ledger.wants_audit

    # What differs, and what to do about it.

    def _survey(self) -> Survey:
        self.around.monitor(Stage("comparing"))
        mirror = self.mirror
        rules = self.rules = Rules(
            [*mirror.ignore, *self.root.patterns()], "ignore, or .skynetignore,"
        )
        scope = Scope(rules, self.remote.facts, mirror.symlinks, mirror.complete_sync)
        listings = None
        if self.audit:
            listings = (
                self.remote.walk(lambda p: rules.hides(p, is_dir=True) and not is_parked(p))
                if self.site.exists
                else iter(())
            )
        return survey(self.root, self.ledger.index, listings, scope, self.around.now_ns())

    def _policy(self) -> Policy:
        facts = self.remote.facts
        return Policy(
            complete_sync=self.mirror.complete_sync,
            empty_dirs=self.mirror.empty_dirs,
            remove_foreign=self.mirror.foreign != "keep",
            may_delete=self.ledger.may_delete,
            can_copy=self.remote.can_copy,
            keeps_times=facts.keeps_times,
            keeps_modes=facts.keeps_modes,
        )

    def _circumstances(self, found: Survey, plan: Plan) -> Circumstances:
        pinned = self.ledger.index.root
        limits = self.mirror.max_delete
        return Circumstances(
            entries=self.ledger.index.count() if plan.ops else 0,
            found=found.entries,
            root_changed=pinned is not None and pinned != self.root.identity,
            owner=self.ledger.owner,
            ask_foreign=self.mirror.foreign == "ask",
            max_fraction=limits.fraction,
            max_entries=limits.entries,
        )

    def _report_unapplied(
        self,
        found: Survey,
        plan: Plan,
        problems: list[Problem],
        dangers: list[Hazard],
        *,
        held: bool,
    ) -> Report:
        outcome: Outcomes = "in-sync"
        if held:
            outcome = "held"
        elif problems:
            outcome = "problems"
        elif plan.ops:
            outcome = "planned"
        if not self.request.dry_run and not held:
            self._remember(found)
            self._pin_root()
        shape = outcome, plan, Counter[str](), problems, dangers, self.remote.counts, found.skipped
        moved = weigh_moved(plan.ops, self._children)
        return Report(*shape, moved, self._bind(plan, problems) if self.request.bind else None)

    def _children(self, directory: bytes) -> list[tuple[bytes, Entry]]:
        index = self.ledger.index
        rows = index.children(directory).items()
        return [(join(directory, name), index.unpack(row[1])) for name, row in rows]

    # Saved plans.

    def _basis(self) -> Basis:
        ledger = self.ledger
        return stale.basis_of(self.mirror, self.root, ledger.head, trusted=ledger.may_delete)

    def _bind(self, plan: Plan, problems: list[Problem]) -> SavedPlan:
        """The plan with what it was made from."""
        sight = stale.look(self.root, plan.ops)
        stale.expect_bound(self.root, plan.ops, sight)
        whole = replace(plan, problems=problems)
        return SavedPlan(self._basis(), self.began_ns, whole, sight.here)

    def _recall(self, saved: SavedPlan) -> Survey:
        """What a survey would have found for a saved plan. StalePlan if anything has changed."""
        self.around.monitor(Stage("looking whether the plan still holds"))
        sight = stale.look(self.root, saved.plan.ops)
        stale.expect_fresh(saved, self._basis(), self.root, sight)
        is_synced = self.ledger.index.entry
        stale.expect_remote(saved.plan.ops, self.remote.kinds, lambda path: bool(is_synced(path)))
        self.audit = True
        return Survey(identities=stale.recorded(saved, sight), entries=sight.entries)

    # Doing it.

    def _apply(self, plan: Plan, found: Survey) -> Applied | None:
        """Carry out the plan; None if it must be made again, with an audit."""
        self.around.monitor(Stage("transferring"))
        if not (self.audit or self._leads_where_recorded(plan)):
            self.audit = True
            return None
        # Without a manifest nothing tells of a first run that broke off before it had the lease.
        may_hold_temps = self.ledger.is_new and self.site.is_prepared
        if self.ledger.is_new:
            self.remote.facts = self.remote.prepare()
        elif not self.site.is_prepared:
            self.remote.prepare()
        lease = self._lease()
        with lease.held() as was_left_behind:
            going_on = self._uploads_to_go_on_with(plan)
            if was_left_behind or may_hold_temps or found.strays:
                self.remote.clear_temps(found.strays, going_on)
                lease.beat()
                if not self.audit:
                    self.audit = True
                    return None
            self.ledger.expect_unmoved()
            lease.beat()
            lease.has_begun = True
            self._remember(found)
            self.remote.trash = self._trash()
            applied = apply(
                plan,
                self.remote,
                self.root,
                intents=self.intents,
                deltas=deltas_of(plan, self.root, self.signatures, found.deltas),
                get_ready=lambda: self.ledger.begin(lease.beat),
                commit=lambda batch: self._commit(batch, found, lease),
                beat=lease.beat,
                clock=self.around.clock,
                monitor=self.around.monitor,
            )
            self._own_up(applied, found, lease)
            self._tidy(lease)
        return applied

    def _uploads_to_go_on_with(self, plan: Plan) -> list[bytes]:
        """The temporary files of broken uploads that the plan wants; those of others are removed.

        Whether they still hold is seen when the upload begins.
        """
        intents = dict(self.intents.noted())
        going_on = []
        for op in plan.ops if intents else ():
            intent = intents.get(op.path)
            if isinstance(op, Upload) and intent is not None and intent.size == op.entry.size:
                going_on.append(intents.pop(op.path).temp)
        for intent in intents.values():
            self.remote.remove(intent.temp)
        self.intents.forget(intents)
        return going_on

    def _leads_where_recorded(self, plan: Plan) -> bool:
        """Whether what the plan goes through is still there, and no link out of the target.

        An audit has seen that; without one the directories on the way are looked at.
        """
        wanted: dict[bytes, Kind] = {}
        for op in plan.ops:
            for path in (op.path, op.source) if isinstance(op, Rename | Copy) else (op.path,):
                for directory in ancestors(path):
                    if directory in wanted:
                        break  # and so are those above it
                    wanted[directory] = DIR
            if isinstance(op, SetMeta):
                wanted[op.path] = op.entry.kind
        kept = [op for op in plan.ops if op.path in wanted]
        made = {op.path for op in kept if not isinstance(op, SetMeta | Delete | Rmdir)}
        known = [path for path in wanted if path not in made and self.ledger.index.entry(path)]
        return self.remote.kinds(known) == [wanted[path] for path in known]

    def _lease(self) -> Lease:
        around = self.around
        return Lease(
            self.remote,
            around.token(6).hex(),
            pid_space=around.pid_space,
            clock=around.clock,
            sleep=around.sleep,
            monitor=around.monitor,
        )

    def _commit(self, batch: list[Outcome], found: Survey, lease: Lease) -> None:
        """Record what the remote has acknowledged."""
        lease.check()
        identities = {outcome.op.path: _identity(outcome, found) for outcome in batch}
        self.ledger.record([effect(outcome.op) for outcome in batch], identities)
        for outcome in batch:
            if outcome.signature is not None:
                self.signatures.put(outcome.signature.digest, outcome.signature)

    def _own_up(self, applied: Applied, found: Survey, lease: Lease) -> None:
        """Where a repair has failed, let the manifest say what is really there."""
        failed = {problem.path for problem in applied.problems}
        stale = [f for f in found.findings if f.path in failed]
        if stale:
            lease.check()
            self.ledger.record([effect(Record(f.path, f.remote)) for f in stale], {})

    def _trash(self) -> Trash:
        return Trash(
            self._stamp() + b"-" + self.around.token(2).hex().encode(),
            keep_deleted=self.mirror.trash_days > 0,
            keep_replaced=self.mirror.trash == "all",
        )

    def _tidy(self, lease: Lease) -> None:
        """Compact the manifest if it is time; in runs that audit, empty old trash."""
        self.ledger.compact(lease.beat)
        if self.audit and self.mirror.trash_days and self.request.saved is None:
            lease.beat()
            self.remote.expire_trash(self._stamp(days_ago=self.mirror.trash_days))

    def _stamp(self, days_ago: int = 0) -> bytes:
        """A moment as the trash names it: stamps sort as their moments do."""
        moment = datetime.fromtimestamp(self.around.now_ns() / 1e9, UTC)
        return (moment - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H%M%SZ").encode()

    def _remember(self, found: Survey) -> None:
        """Keep the stat identities of files found to be unchanged, so they need no second look."""
        self.ledger.index.remember(found.settled)

    def _pin_root(self) -> None:
        if self.ledger.index.root != self.root.identity:
            self.ledger.index.root = self.root.identity


def _identity(outcome: Outcome, found: Survey) -> bytes:
    """The stat identity to record: of the bytes sent, else of what the survey compared."""
    if outcome.identity:
        return outcome.identity
    entry = outcome.op.entry if isinstance(outcome.op, Record) else None
    if isinstance(outcome.op, Record) and (entry is None or entry.retained or entry.kind == DIR):
        return STAT_UNKNOWN
    return found.identities.get(outcome.op.path, STAT_UNKNOWN)
