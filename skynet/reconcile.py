"""One cycle: bring the remote to what the local directory is. The file to read first.

    synced   = ledger: the index, if the remote's manifest still says the same
    findings = survey(local, synced, audit)        what differs, everywhere or where it was marked
    plan     = plan_for(findings, policy)          what to do about it
    hazards  = guard(plan)                         whether a person must agree
    execute(plan), and for each acknowledged batch: manifest.append, index.record

Nothing is written before the guard has passed, and nothing at all when there is nothing to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from skynet import stale
from skynet.agenda import is_covered
from skynet.apply import Addition, Applied, IsBusy
from skynet.claims import NOTHING_CLAIMED
from skynet.config import Mirror
from skynet.cycle import Outcomes, Report, Request, Surroundings
from skynet.errors import Problem
from skynet.execute import Execution
from skynet.guard import Circumstances, Hazard, hazards, unquestioned
from skynet.index_file import IndexDamaged
from skynet.memory import Memory, claimed, remembered, state_of
from skynet.monitor import BrokenOff, Notice, Stage
from skynet.ops import Op, Plan, paths_of, tally
from skynet.plan import Policy
from skynet.planning import Tools, plan_for
from skynet.preview import weigh_moved
from skynet.remote import Listed, Remote
from skynet.rules import Rules, is_parked
from skynet.saved import Basis, SavedPlan
from skynet.scan import Root
from skynet.scope import EVERYTHING, Branch, Scope, Survey, branch_of
from skynet.session import Session, opened
from skynet.survey import survey
from skynet.tree import Entry, join

NANOSECONDS_A_MINUTE = 60 * 10**9
MINUTES_COUNTED = 60  # deletes of so long ago still count


def run_cycle(
    mirror: Mirror, connect: Callable[[], Remote], request: Request, around: Surroundings
) -> Report:
    """Run one cycle. A dry run writes nothing, neither locally nor on the remote.

    If the index proves to be damaged, the cycle starts again without it.
    """
    root = Root(mirror.source, around.now_ns)
    with ExitStack() as stack:
        state = state_of(mirror)
        if not request.dry_run:
            stack.enter_context(claimed(mirror))
        memory = stack.enter_context(remembered(state, around.monitor, read_only=request.dry_run))
        try:
            return _run_with(mirror, root, memory, connect, request, around)
        except IndexDamaged as damage:
            around.monitor(Notice(damage.code, str(damage)))
        memory.begin_index_anew(state, read_only=request.dry_run)
        return _run_with(mirror, root, memory, connect, request, around)


def _run_with(
    mirror: Mirror,
    root: Root,
    memory: Memory,
    connect: Callable[[], Remote],
    request: Request,
    around: Surroundings,
) -> Report:
    with opened(mirror, root, memory, connect, around) as session:
        report = run_in(session, request)
    return replace(report, counts=session.remote.counts)


def run_in(session: Session, request: Request) -> Report:
    """One cycle of a session. It ends the session where it raises."""
    cycle = _Cycle(session, request)
    try:
        report = cycle.run()
    except BaseException:
        planned, done = tally(cycle.planned), cycle.applied.done
        session.around.monitor(BrokenOff(planned, done, session.remote.counts))
        raise
    if not request.dry_run:
        if report.outcome != "held" or request.goes_on:  # else nothing was put right
            session.ledger.end_doubts()
        is_complete = report.outcome in ("in-sync", "changed") and not report.unsettled
        session.memory.claims.end(left_too=cycle.saw_all and is_complete)
    return report


class _Cycle:
    def __init__(self, session: Session, request: Request) -> None:
        self.session = session
        self.mirror = session.mirror
        self.root = session.root
        self.remote = session.remote
        self.ledger = session.ledger
        self.around = session.around
        self.request = request
        self.audit = request.audit  # or another look at the remote, for a saved plan
        self.branch = EVERYTHING if request.marks is None else branch_of(request.marks)
        self.listings: Iterator[Listed] | None = None  # of an audit that has begun
        self.began_ns = session.around.now_ns()
        self.deletes = self.approved_deletes = 0  # those that nobody approved, and those others
        self.broke_off = False  # an earlier cycle, and this is the first to see what it left
        self.planned: list[Op] = []
        self.joined: list[Op] = []  # what came to the plan while it was carried out
        self.applied = Applied()

    def run(self) -> Report:
        if self.saw_all and self.ledger.index.head is not None:
            self.listings = self._begin_audit()  # it travels with the look at the manifest
        self._know_the_synced_tree()
        if self.session.memory.claims.are_unseen:
            self._audit_all()
        if self.request.saved is not None:
            return self._carry_out(self._recall(self.request.saved), self.request.saved.plan)
        found = self._survey(self.branch, audit=self.audit)
        return self._carry_out(found, self._plan(found))

    @property
    def saw_all(self) -> bool:
        """Whether all of the remote was looked at."""
        return self.audit and self.request.saved is None

    def _plan(self, found: Survey) -> Plan:
        self.around.monitor(Stage("reading what may have moved or changed"))
        read_back = self.remote if self.request.adopt == "content" else None
        memory = self.session.memory
        tools = Tools(
            self.root,
            self.ledger.index,
            memory.signatures,
            memory.trashed,
            self.rules,
            self.request.is_unsettled,
            self.around.check,
        )
        plan = plan_for(found, tools, self._policy(), read_back)
        found.findings = [finding for finding in found.findings if finding.stale]  # for _own_up
        return plan

    def _carry_out(self, found: Survey, plan: Plan) -> Report:
        """Do it, unless that is not wanted or a hazard holds it."""
        dangers = hazards(plan, self._circumstances(found, plan))
        held = any(hazard.approve != self.request.approve for hazard in dangers)
        wanted = plan
        if held:
            wanted = unquestioned(plan, dangers) if self.request.goes_on else Plan([], [])
        if self.request.dry_run or not wanted.ops:
            report = self._report_unapplied(found, plan, dangers, held=held)
            is_done = report.outcome == "in-sync" and not found.unsettled
            if self.broke_off and is_done and not self.request.dry_run:
                self._execution(found).clear_up()
            return report
        removals = _removals(plan.counts())
        self.approved_deletes = removals if dangers and not held else 0
        self.deletes = removals - self.approved_deletes
        execution = self._execution(found)
        self.planned, self.applied = [*plan.ops], execution.applied
        try:
            applied = execution.run(wanted, self._joins(execution, found))
        finally:  # a link that breaks each time must not let more and more be deleted
            self._count_deletes(execution.applied)
        if applied is None:
            self._audit_all()
            return self.run()
        return self._report_applied(found, plan, applied, dangers if held else [])

    def _execution(self, found: Survey) -> Execution:
        return Execution(self.session, found, audited=self.audit, expires_trash=self.saw_all)

    def _audit_all(self) -> None:
        self.audit = True
        self.branch = EVERYTHING

    def _know_the_synced_tree(self) -> None:
        was_known = self.session.know_the_synced_tree(in_memory=self.request.dry_run)
        if not was_known:
            self.listings = None  # the manifest that was read is younger than they are
            self.branch = EVERYTHING  # what was marked led from another tree
        if self.ledger.wants_audit:
            self._audit_all()

    # What differs, and what to do about it.

    def _survey(self, branch: Branch, *, audit: bool) -> Survey:
        self.around.monitor(Stage("comparing"))
        mirror = self.mirror
        rules = self.rules = Rules(
            [*mirror.ignore, *self.root.patterns()], "ignore, or .skynetignore,"
        )
        scope = Scope(
            rules,
            self.remote.facts,
            mirror.symlinks,
            mirror.complete_sync,
            branch,
            self.around.check,
        )
        listings = None
        if audit:
            exists = self.session.site.exists
            listings = (self.listings or self._begin_audit()) if exists else iter(())
            self.listings = None
        claimed = self.session.memory.claims.left() if audit else NOTHING_CLAIMED
        self.broke_off = bool(claimed)
        now_ns = self.around.now_ns()
        return survey(self.root, self.ledger.index, listings, scope, now_ns, claimed)

    def _begin_audit(self) -> Iterator[Listed]:
        def hides(path: bytes) -> bool:
            return self.rules.hides(path, is_dir=True) and not is_parked(path)

        return self.session.walk(hides)

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
            folds_case=facts.folds_case,
            moves_directories=facts.moves_directories,
        )

    def _circumstances(self, found: Survey, plan: Plan, deletes: int = 0) -> Circumstances:
        """deletes: how many more there are in this cycle."""
        index = self.ledger.index
        limits = self.mirror.max_delete
        since = self._minute() - MINUTES_COUNTED
        return Circumstances(
            # Counting reads the whole index, and only deletes are compared with it.
            entries=index.count() + len(found.reclaimed) if _removals(plan.counts()) else 0,
            found=0 if self.root.is_empty() else max(1, found.entries),
            root_changed=index.root is not None and index.root != self.root.identity,
            owner=self.ledger.owner,
            ask_foreign=self.mirror.foreign == "ask",
            max_fraction=limits.fraction,
            max_entries=limits.entries,
            deleted_lately=(0 if self.branch.deep else self.request.held_deletes)
            + deletes
            + sum(count for minute, count in index.deletes if since < minute <= self._minute()),
        )

    def _minute(self) -> int:
        return self.around.now_ns() // NANOSECONDS_A_MINUTE

    # What joins a plan that is being carried out.

    def _joins(
        self, execution: Execution, found: Survey
    ) -> Callable[[IsBusy], Addition | None] | None:
        """Looks at what has changed meanwhile; what would need a person's word has to wait."""
        arrivals = self.request.arrivals
        if arrivals is None:
            return None

        def join_in(is_busy: IsBusy) -> Addition | None:
            marks = arrivals.take(is_busy)
            if not marks:
                return None
            late = self._survey(branch_of(marks), audit=False)
            plan = self._plan(late)
            is_apart = not any(is_busy(path) for op in plan.ops for path in paths_of(op))
            is_safe = not hazards(plan, self._circumstances(late, plan, self.deletes))
            tried_again = {op.path for op in plan.ops}

            def is_anew(path: bytes) -> bool:
                return path in tried_again or is_covered(path, marks)

            addition = execution.join(plan, late, is_anew) if is_apart and is_safe else None
            if addition is None:
                arrivals.put_back()
                return None
            self.deletes += _removals(plan.counts())
            self.joined += plan.ops
            self.planned += plan.ops
            before = (problem for problem in found.problems if not is_anew(problem.path))
            found.problems = [*before, *late.problems]
            found.unsettled += late.unsettled
            return addition

        return join_in

    # What came of it.

    def _report_unapplied(
        self, found: Survey, plan: Plan, dangers: list[Hazard], *, held: bool
    ) -> Report:
        problems = [*found.problems, *plan.problems]
        outcome: Outcomes = "in-sync"
        if held:
            outcome = "held"
        elif problems:
            outcome = "problems"
        elif plan.ops:
            outcome = "planned"
        if not self.request.dry_run and not held:
            self.ledger.index.remember(found.settled)
            self._pin_root()
        shape = outcome, plan, Counter[str](), problems, dangers, self.remote.counts, found.skipped
        moved = weigh_moved(plan.ops, self._children)
        saved = self._bind(plan, problems) if self.request.bind else None
        return Report(*shape, moved, saved, found.unsettled, self.branch.deep)

    def _report_applied(
        self, found: Survey, plan: Plan, applied: Applied, questions: list[Hazard]
    ) -> Report:
        problems = [*found.problems, *applied.problems]
        outcome: Outcomes = "problems" if problems else "changed"
        if questions:
            outcome = "held"
        else:
            self._pin_root()
        whole = Plan([*plan.ops, *self.joined], [*plan.needs, *([()] * len(self.joined))])
        return Report(
            outcome,
            whole if self.joined else plan,
            applied.done,
            problems,
            questions,
            self.remote.counts,
            found.skipped,
            unsettled=found.unsettled,
            was_whole=self.branch.deep,
        )

    def _count_deletes(self, applied: Applied) -> None:
        """Many small deletes are held as one large one is; what was approved does not count."""
        deleted = _removals(applied.done) - self.approved_deletes
        if deleted <= 0:
            return
        minute, index = self._minute(), self.ledger.index
        counts = Counter({at: n for at, n in index.deletes if 0 <= minute - at < MINUTES_COUNTED})
        counts[minute] += deleted
        index.deletes = sorted(counts.items())

    def _children(self, directory: bytes) -> list[tuple[bytes, Entry]]:
        index = self.ledger.index
        rows = index.children(directory).items()
        return [(join(directory, name), index.unpack(row[1])) for name, row in rows]

    def _pin_root(self) -> None:
        """Take the source for the right one, after all of it was looked at and nothing is held."""
        if self.branch.deep and self.ledger.index.root != self.root.identity:
            self.ledger.index.root = self.root.identity

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


def _removals(counts: Counter[str]) -> int:
    """Of the operations that `ops.tally` has counted."""
    return counts["delete"] + counts["rmdir"]
