"""One cycle: bring the remote to what the local directory is. The file to read first.

    synced   = ledger: the index, if the remote's manifest still says the same
    findings = survey(local, synced, audit)        what differs
    plan     = make_plan(findings, policy)         what to do about it
    hazards  = guard(plan)                         whether a person must agree
    apply(plan), and for each acknowledged batch: manifest.append, index.record

Nothing is written before the guard has passed, and nothing at all when there is nothing to do.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from skynet.apply import Applied, apply
from skynet.config import Mirror
from skynet.contents import decide_contents
from skynet.errors import Problem
from skynet.guard import Circumstances, Hazard, hazards
from skynet.index import STAT_UNKNOWN, Index, IndexDamaged
from skynet.lease import Lease
from skynet.ledger import Ledger
from skynet.manifest import MAX_ORIGIN
from skynet.monitor import Monitor, Notice, Stage
from skynet.ops import Delete, Plan, Record, Rename, Rmdir, SetMeta, effect
from skynet.plan import Policy, make_plan
from skynet.remote import Outcome, Remote, Site, Trash
from skynet.rules import Rules
from skynet.scan import Root
from skynet.state import directory_for, locked, make_private
from skynet.survey import Scope, Survey, survey
from skynet.tree import DIR, Kind, ancestors

INDEX_FILE = "index.sqlite"

Outcomes = Literal["in-sync", "changed", "planned", "problems", "held"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a cycle needs of the world, injected.

    clock: monotonic seconds. now_ns: wall clock, nanoseconds since 1970. token(n): n random
    bytes. host: this machine's name, for the manifest's origin. pid_space: see `lease.pid_space`.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    now_ns: Callable[[], int]
    token: Callable[[int], bytes]
    host: str
    pid_space: str
    monitor: Monitor


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller wants of this cycle. approve: the hazards' approval."""

    audit: bool = True
    dry_run: bool = False
    adopt: Literal["stat", "content"] = "stat"
    approve: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a cycle came to. counts: requests, mutations, and acknowledged content bytes."""

    outcome: Outcomes
    plan: Plan
    done: Counter[str]
    problems: list[Problem]
    hazards: list[Hazard]
    counts: Counter[str]
    skipped: Counter[str] = field(default_factory=Counter)


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
        try:
            return _run_with(file, mirror, root, connect, request, around)
        except IndexDamaged as damage:
            around.monitor(Notice(damage.code, str(damage)))
        anew = None if request.dry_run else file
        return _run_with(anew, mirror, root, connect, request, around)


def _run_with(
    index_file: Path | None,
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
        return _Cycle(mirror, root, index, remote, request, around).run()


class _Cycle:
    def __init__(
        self,
        mirror: Mirror,
        root: Root,
        index: Index,
        remote: Remote,
        request: Request,
        around: Surroundings,
    ) -> None:
        self.mirror = mirror
        self.root = root
        self.remote = remote
        self.request = request
        self.around = around
        self.site = Site(exists=True, is_prepared=True)  # what a current manifest stands for
        self.audit = request.audit
        origin = _origin(around.host, mirror.source)
        self.ledger = Ledger(remote, index, origin, around.token, around.monitor)

    def run(self) -> Report:
        self._know_the_synced_tree()
        found = self._survey()
        self.around.monitor(Stage("reading what may have moved or changed"))
        read_back = self.remote if self.request.adopt == "content" else None
        findings = decide_contents(found, self.root, read_back)
        plan = make_plan(findings, self._policy())
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
        rules = Rules([*mirror.ignore, *self.root.patterns()], "ignore, or .skynetignore,")
        scope = Scope(rules, self.remote.facts, mirror.symlinks, mirror.complete_sync)
        listings = None
        if self.audit:
            listings = (
                self.remote.walk(lambda path: rules.hides(path, is_dir=True))
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
        return Report(
            outcome, plan, Counter(), problems, dangers, self.remote.counts, found.skipped
        )

    # Doing it.

    def _apply(self, plan: Plan, found: Survey) -> Applied | None:
        """Carry out the plan; None if it must be made again, with an audit."""
        self.around.monitor(Stage("transferring"))
        if not (self.audit or self._leads_where_recorded(plan)):
            self.audit = True
            return None
        if not self.site.is_prepared:
            self.remote.prepare()
        lease = self._lease()
        with lease.held() as was_left_behind:
            if was_left_behind or found.strays:
                self.remote.clear_temps(found.strays)
                lease.beat()
                if not self.audit:
                    self.audit = True
                    return None
            self.ledger.expect_unmoved()
            lease.beat()
            lease.has_begun = True
            self.ledger.begin(lease.beat)
            self._remember(found)
            self.remote.trash = self._trash()
            applied = apply(
                plan,
                self.remote,
                self.root,
                commit=lambda batch: self._commit(batch, found, lease),
                beat=lease.beat,
                clock=self.around.clock,
                monitor=self.around.monitor,
            )
            self._own_up(applied, found, lease)
            self._tidy(lease)
        return applied

    def _leads_where_recorded(self, plan: Plan) -> bool:
        """Whether what the plan goes through is still there, and no link out of the target.

        An audit has seen that; without one the directories on the way are looked at.
        """
        wanted: dict[bytes, Kind] = {}
        for op in plan.ops:
            for path in (op.path, op.source) if isinstance(op, Rename) else (op.path,):
                wanted.update((directory, DIR) for directory in ancestors(path))
            if isinstance(op, SetMeta):
                wanted[op.path] = op.entry.kind
        made = {op.path for op in plan.ops if not isinstance(op, SetMeta | Delete | Rmdir)}
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

    def _own_up(self, applied: Applied, found: Survey, lease: Lease) -> None:
        """Where a repair has failed, let the manifest say what is really there."""
        failed = {problem.path for problem in applied.problems}
        stale = [f for f in found.findings if f.stale and f.path in failed]
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
        if self.audit and self.mirror.trash_days:
            lease.beat()
            self.remote.expire_trash(self._stamp(days_ago=self.mirror.trash_days))

    def _stamp(self, days_ago: int = 0) -> bytes:
        """A moment as the trash names it: stamps sort as their moments do."""
        moment = datetime.fromtimestamp(self.around.now_ns() / 1e9, UTC)
        return (moment - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H%M%SZ").encode()

    def _remember(self, found: Survey) -> None:
        """Keep the stat identities of files found to be unchanged, so they need no second look."""
        self.ledger.index.remember({path: found.identities[path] for path in found.settled})

    def _pin_root(self) -> None:
        if self.ledger.index.root != self.root.identity:
            self.ledger.index.root = self.root.identity


def _origin(host: str, source: bytes) -> str:
    """Who mirrors what, for people; cut to what a manifest holds, and still one's own."""
    text = f"{host}:{source.decode('utf-8', 'backslashreplace')}"
    if len(text) <= MAX_ORIGIN:
        return text
    mark = hashlib.blake2b(source, digest_size=10).hexdigest()
    return f"{text[: MAX_ORIGIN - len(mark) - 3]}...{mark}"


def _identity(outcome: Outcome, found: Survey) -> bytes:
    """The stat identity to record: of the bytes sent, else of what the survey compared."""
    if outcome.identity:
        return outcome.identity
    if isinstance(outcome.op, Record) and (outcome.op.entry is None or outcome.op.entry.retained):
        return STAT_UNKNOWN
    return found.identities.get(outcome.op.path, STAT_UNKNOWN)
