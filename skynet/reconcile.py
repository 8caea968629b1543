"""One cycle: bring the remote to what the local directory is. The file to read first.

    synced   = the index, if the remote's manifest still stands where the index says
    findings = survey(local, synced, audit)        what differs
    plan     = make_plan(findings, policy)         what to do about it
    hazards  = guard(plan)                         whether a person must agree
    apply(plan), and for each acknowledged batch: manifest.append, index.record

Nothing is written before the guard has passed, and nothing at all when there is nothing to do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from skynet.apply import Applied, apply
from skynet.config import Mirror
from skynet.contents import decide_contents
from skynet.errors import OwnedError, Problem
from skynet.guard import Circumstances, Hazard, hazards
from skynet.index import Index
from skynet.lease import Lease
from skynet.manifest import Head, Header, Manifest, ManifestDamaged, wants_compaction
from skynet.monitor import Monitor, Notice, Stage
from skynet.ops import Plan, Record, effect
from skynet.plan import Policy, make_plan
from skynet.remote import Facts, Outcome, Remote, Trash
from skynet.rules import Rules
from skynet.scan import UNKNOWN, Root
from skynet.state import directory_for, locked, make_private
from skynet.survey import Scope, Survey, survey

INDEX_FILE = "index.sqlite"

Outcomes = Literal["in-sync", "changed", "planned", "problems", "held"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a cycle needs of the world, injected.

    clock: monotonic seconds. now_ns: wall clock, nanoseconds since 1970. token(n): n random
    bytes. host: this machine's name, for the manifest's origin.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    now_ns: Callable[[], int]
    token: Callable[[int], bytes]
    host: str
    monitor: Monitor


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller wants of this cycle. approve: a plan's fingerprint."""

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
    """Run one cycle. A dry run writes nothing, neither locally nor on the remote."""
    root = Root(mirror.source, around.now_ns)
    state = directory_for(mirror.state_dir, mirror.source, str(mirror.target))
    with ExitStack() as stack:
        if not request.dry_run:
            make_private(state)
            stack.enter_context(locked(state))
        index = stack.enter_context(_open_index(state / INDEX_FILE, read_only=request.dry_run))
        around.monitor(Stage("connecting"))
        remote = connect()
        stack.callback(remote.close)
        return _Cycle(mirror, root, index, remote, request, around).run()


def _open_index(path: Path, *, read_only: bool) -> Index:
    return Index.open(path, read_only=read_only)


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
        self.index = index
        self.remote = remote
        self.request = request
        self.around = around
        self.manifest = Manifest(remote, around.token)
        self.head: Head | None = None
        self.audit = request.audit
        self.may_delete = True
        self.is_damaged = False  # the manifest
        self.target_exists = True
        self.is_prepared = True
        self.owner = ""  # another mirror's origin, if the manifest is not ours

    def run(self) -> Report:
        self._know_the_synced_tree()
        found = self._survey()
        self.around.monitor(Stage("reading what may have moved or changed"))
        read_back = self.remote if self.request.adopt == "content" else None
        findings = decide_contents(found, self.root, read_back)
        plan = make_plan(findings, self._policy())
        problems = [*found.problems, *plan.problems]
        dangers = hazards(plan, self._circumstances(found, plan))
        held = bool(dangers) and self.request.approve != plan.fingerprint
        if self.request.dry_run or held or not plan.ops:
            return self._report_unapplied(found, plan, problems, dangers, held=held)
        applied = self._apply(plan, found)
        if applied is None:
            return self.run()
        problems = [*found.problems, *applied.problems]
        outcome: Outcomes = "problems" if problems else "changed"
        self._pin_root()
        return Report(outcome, plan, applied.done, problems, [], self.remote.counts, found.skipped)

    # What the remote holds, as far as is known.

    def _know_the_synced_tree(self) -> None:
        """Validate the index against the manifest, or load the manifest into it."""
        self.around.monitor(Stage("reading the manifest"))
        cached = self.index.head
        if cached is not None and self.manifest.is_current(cached):
            self.head = cached
        else:
            site = self.remote.examine()
            self.target_exists, self.is_prepared = site
            self.head = self._load(cached)
        if self.head is not None:
            self.remote.facts = self.head.header.facts
        elif self.target_exists:
            self.audit = True  # first contact, or a manifest that cannot be trusted

    def _load(self, cached: Head | None) -> Head | None:
        if self.request.dry_run:  # what is on disk stays as it is
            self.index = Index.open(None)
        try:
            loaded = self.manifest.load() if self.target_exists else None
            if loaded is None:
                self.index.rebuild((), ())
                return None
            self.index.rebuild(loaded.entries, loaded.edits)
        except ManifestDamaged as error:
            self._distrust(error)
            return None
        self._check_owner(loaded.head, cached)
        if not self.owner:  # else a held plan would make the next run take the mirror for ours
            self.index.record((), loaded.head, {})
        return loaded.head

    def _distrust(self, error: ManifestDamaged) -> None:
        self.index.rebuild((), ())
        self.is_damaged, self.may_delete = True, False
        self.around.monitor(
            Notice(
                "manifest-damaged",
                f"{error} It is made anew from what is on the remote; "
                "nothing is deleted in this run.",
            )
        )

    def _check_owner(self, head: Head, cached: Head | None) -> None:
        theirs = head.header
        ours = cached.header.mirror_id if cached is not None else None
        if theirs.mirror_id != ours and theirs.origin != self._origin():
            self.owner = theirs.origin
        if cached is not None and theirs.mirror_id == ours and head.generation < cached.generation:
            self.audit = True  # an older manifest came back, from a backup perhaps
            self.may_delete = False

    def _origin(self) -> str:
        return f"{self.around.host}:{self.mirror.source.decode('utf-8', 'backslashreplace')}"

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
                if self.target_exists
                else iter(())
            )
        return survey(self.root, self.index, listings, scope, self.around.now_ns())

    def _policy(self) -> Policy:
        facts = self.remote.facts
        return Policy(
            complete_sync=self.mirror.complete_sync,
            empty_dirs=self.mirror.empty_dirs,
            remove_foreign=self.mirror.foreign != "keep",
            may_delete=self.may_delete,
            keeps_times=facts.keeps_times,
            keeps_modes=facts.keeps_modes,
        )

    def _circumstances(self, found: Survey, plan: Plan) -> Circumstances:
        pinned = self.index.root
        limits = self.mirror.max_delete
        return Circumstances(
            entries=self.index.count() if plan.ops else 0,
            found=found.entries,
            root_changed=pinned is not None and pinned != self.root.identity,
            owner=self.owner,
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
        """Carry out the plan; None if it must be made again, since the last run broke off."""
        self.around.monitor(Stage("transferring"))
        if not self.is_prepared:
            self.remote.prepare()
        lease = self._lease()
        with lease.held() as was_left_behind:
            if was_left_behind:
                self.remote.clear_temps()
                if not self.audit:
                    self.audit = True
                    return None
            self._expect_unmoved()
            lease.has_begun = True
            self._begin_manifest()
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
            self._tidy()
        return applied

    def _lease(self) -> Lease:
        around = self.around
        return Lease(
            self.remote,
            around.token(6).hex(),
            clock=around.clock,
            sleep=around.sleep,
            monitor=around.monitor,
        )

    def _expect_unmoved(self) -> None:
        """With the lease held: see that the manifest is still the one that was read."""
        if not self._is_unmoved():
            raise OwnedError(
                "Another skynet has changed the remote since this run looked at it. "
                "Nothing was done; run skynet again.",
                "manifest-moved",
            )

    def _is_unmoved(self) -> bool:
        """Whether the manifest is what we read; if it was no whole one, only reading it tells."""
        if self.head is not None and not self.head.torn:
            return self.manifest.is_current(self.head)
        try:
            return self._read_head() == self.head
        except ManifestDamaged:
            return self.is_damaged

    def _read_head(self) -> Head | None:
        loaded = self.manifest.load()
        if loaded is None:
            return None
        for part in (loaded.entries, loaded.edits):
            deque(part, maxlen=0)
        return loaded.head

    def _begin_manifest(self) -> None:
        """Make the manifest ours, if there is none or it is another mirror's."""
        if self.head is None or self.owner:
            facts = self.remote.facts = self.remote.probe()
            header = self._new_header(facts)
            self.head = self.manifest.create(header, self.index.entries())
            self.index.record((), self.head, {})

    def _new_header(self, facts: Facts) -> Header:
        generation = self.head.generation if self.head is not None else 0
        return Header(self.around.token(16), generation, self._origin(), facts)

    def _commit(self, batch: list[Outcome], found: Survey, lease: Lease) -> None:
        """Record what the remote has acknowledged: on the remote first, then here."""
        assert self.head is not None
        lease.check()
        edits = [effect(outcome.op) for outcome in batch]
        self.head = self.manifest.append(self.head, edits)
        self.index.record(edits, self.head, {o.op.path: _identity(o, found) for o in batch})

    def _trash(self) -> Trash:
        moment = self._now().strftime("%Y-%m-%dT%H%M%SZ")
        stamp = f"{moment}-{self.around.token(2).hex()}".encode()
        return Trash(
            stamp,
            keep_deleted=self.mirror.trash_days > 0,
            keep_replaced=self.mirror.trash == "all",
        )

    def _tidy(self) -> None:
        """Compact the manifest if it is time, and empty old trash, in runs that audit."""
        assert self.head is not None
        if wants_compaction(self.head):
            header = msgspec.structs.replace(self.head.header, generation=self.head.generation)
            self.head = self.manifest.create(header, self.index.entries())
            self.index.record((), self.head, {})
        if self.audit and self.mirror.trash_days:
            oldest = self._now() - timedelta(days=self.mirror.trash_days)
            self.remote.expire_trash(oldest.strftime("%Y-%m-%dT%H%M%SZ").encode())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.around.now_ns() / 1e9, UTC)

    def _remember(self, found: Survey) -> None:
        """Keep the stat identities of files found to be unchanged, so they need no second look."""
        self.index.remember({path: found.identities[path] for path in found.settled})

    def _pin_root(self) -> None:
        if self.index.root != self.root.identity:
            self.index.root = self.root.identity


def _identity(outcome: Outcome, found: Survey) -> bytes:
    """The stat identity to record: of the bytes sent, else of what the survey compared."""
    if outcome.identity:
        return outcome.identity
    if isinstance(outcome.op, Record) and (outcome.op.entry is None or outcome.op.entry.retained):
        return UNKNOWN
    return found.identities.get(outcome.op.path, UNKNOWN)
