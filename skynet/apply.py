"""Carrying out a plan: many operations under way, each begun when what it needs is done.

What has ended is handed to `commit` in batches, which records it in the manifest and the index:
the manifest never claims more than the remote holds. An operation that fails becomes a problem,
and so does whatever needed it; the others go on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from skynet.claims import Claims
from skynet.delta import Delta
from skynet.errors import Problem, RequestError, SkynetError, TornRead
from skynet.intents import Intents
from skynet.monitor import Monitor, Progress
from skynet.needs import dependents_of
from skynet.ops import (
    REMOVALS,
    Copy,
    Delete,
    Op,
    Patch,
    Plan,
    Rename,
    Rmdir,
    Upload,
    as_upload,
    paths_of,
    step,
    tally,
    was_sent_otherwise,
)
from skynet.remote import Outcome, Remote
from skynet.scan import Root, unreadable
from skynet.tree import DIR, FILE, ancestors

UNDER_WAY = 4096  # operations handed to the remote and not ended: enough also for a long commit
COMMIT_OPS = 8192
COMMIT_SECONDS = 3.0
WAIT_SECONDS = 0.1
NOTE_SECONDS = 0.1  # so much of a large upload may be sent again after a crash

Commit = Callable[[list[Outcome]], None]
IsBusy = Callable[[bytes], bool]


class Addition(NamedTuple):
    """A plan that joins one that is being carried out. deltas: of what is patched, by path.

    is_anew: whether a path is looked at or tried again, so that no earlier problem of it counts.
    """

    plan: Plan
    deltas: Mapping[bytes, Delta]
    is_anew: Callable[[bytes], bool]


# Asked now and then for more to do, that touches no path that is_busy(path) names.
More = Callable[[IsBusy], Addition | None]


@dataclass(slots=True)
class Applied:
    """What came of a plan: counts as in `ops.tally` of what is done, and what was not."""

    done: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def apply(
    plan: Plan,
    remote: Remote,
    root: Root,
    *,
    get_ready: Callable[[], None],
    claims: Claims,
    intents: Intents,
    commit: Commit,
    beat: Callable[[], None],
    clock: Callable[[], float],
    monitor: Monitor,
    deltas: Mapping[bytes, Delta] | None = None,
    more: More | None = None,
    applied: Applied | None = None,
) -> Applied:
    """Carry out `plan`. Errors of the link or of the whole remote end it and are raised.

    `get_ready` is called once, when all that can be under way is: what `commit` needs is made ready
    meanwhile. `beat` is called every moment, to keep the lease. What was acknowledged before
    an error is committed where the remote still allows it. `claims` gets what is about to be made.
    Large uploads go on from what `intents` has of them. deltas: of what is patched, by path. more:
    see there. applied: is filled and returned; it holds what was done also if an error is raised.
    """
    run = _Run(plan, remote, root, claims, intents, get_ready, commit, clock, monitor, deltas or {})
    if applied is not None:
        run.applied = applied
    run.applied.problems += plan.problems
    try:
        while run.is_unfinished():
            run.begin_ready()
            if run.has_time_to_get_ready():
                first = remote.wait(0)
                run.get_ready_to_commit()
                run.settle(first)
            else:
                run.settle(remote.wait(WAIT_SECONDS))
            beat()
            run.commit_if_due()
            run.note_if_due()
            if more is not None:
                run.take_up(more)
    except (KeyboardInterrupt, SkynetError):
        run.salvage()
        raise
    run.get_ready_to_commit()
    run.commit_now()
    return run.applied


class _Run:
    def __init__(
        self,
        plan: Plan,
        remote: Remote,
        root: Root,
        claims: Claims,
        intents: Intents,
        get_ready: Callable[[], None],
        commit: Commit,
        clock: Callable[[], float],
        monitor: Monitor,
        deltas: Mapping[bytes, Delta],
    ) -> None:
        self._ops = list(plan.ops)
        self._is_open = bytearray(b"\1") * len(plan.ops)  # not ended
        self._ask_after = clock()
        self._remote = remote
        self._root = root
        self._claims = claims
        self._intents = intents
        self._get_ready = get_ready
        self._commit = commit
        self._clock = clock
        self._monitor = monitor
        self._deltas = dict(deltas)
        self._begun: dict[tuple[type[Op], bytes, bool], int] = {}  # the index of each under way
        self._missing = [len(needs) for needs in plan.needs]
        self._dependents = dependents_of(plan)
        self._ready = deque(i for i, missing in enumerate(self._missing) if not missing)
        self._under_way = 0
        self._ended = 0
        self._uncommitted: list[Outcome] = []
        self._committed_at = self._noted_at = clock()
        self._can_commit = True
        self._is_ready_to_commit = False
        self._is_urgent = False  # a directory has moved: until that is recorded, much is unknown
        self._total_bytes = plan.counts()["bytes"]
        self._bytes_before = _bytes_there(remote)
        self.applied = Applied()

    def is_unfinished(self) -> bool:
        return self._ended < len(self._ops)

    def begin_ready(self) -> None:
        batch = self._next_ready()
        self._claims.add(self._ops[index] for index in batch)
        for index in batch:
            self._begun[step(self._ops[index])] = index
            self._begin(self._ops[index])
        self._under_way += len(batch)

    def _next_ready(self) -> list[int]:
        """What can be begun now."""
        batch: list[int] = []
        root_verified = False
        while self._ready and self._under_way + len(batch) < UNDER_WAY:
            index = self._ready.popleft()
            op = self._ops[index]
            if isinstance(op, REMOVALS):
                if not root_verified:
                    self._root.verify()
                    root_verified = True
                doubt = self._doubt(op)
                if doubt is not None:
                    self._fail(index, doubt)
                    continue
            batch.append(index)
        return batch

    def _doubt(self, op: Delete | Rmdir) -> Problem | None:
        """Why it must not be deleted: what was gone locally is there again, or may be.

        Something of the other kind may be there: what is deleted then makes room for it.
        """
        if op.foreign:
            return None
        try:
            if not self._root.exists(op.path, directory=isinstance(op, Rmdir)):
                return None
        except OSError as error:
            return unreadable(op.path, error)
        return Problem(
            op.path, "came-back", "It was gone when skynet looked, and is there again; it is kept."
        )

    def _begin(self, op: Op) -> None:
        if not isinstance(op, Upload | Patch | Copy) or op.entry.kind != FILE:
            self._remote.submit(op)
            return
        path, entry = op.path, op.entry
        intent = self._intents.noted().get(path) if isinstance(op, Upload) else None
        delta = self._deltas.get(path) if isinstance(op, Patch) else None
        self._remote.submit(op, lambda: self._root.open(path, entry), intent, delta)

    def settle(self, outcomes: list[Outcome]) -> None:
        self._under_way -= len(outcomes)
        fatal: Exception | None = None
        for outcome in outcomes:
            index = self._begun.pop(step(outcome.op))
            problem = None if outcome.error is None else problem_of(outcome)
            if outcome.error is None:
                self._succeed(index, outcome)
            elif problem is not None:
                self._intents.forget([outcome.op.path])  # its temporary file is gone as well
                self._fail(index, problem)
            else:
                fatal = fatal or outcome.error
        self.applied.done.update(tally(o.op for o in outcomes if o.error is None))
        self._report()
        if fatal is not None:
            raise fatal

    def _succeed(self, index: int, outcome: Outcome) -> None:
        self._end(index)
        self._uncommitted.append(outcome)
        self._is_urgent |= isinstance(outcome.op, Rename) and outcome.op.entry.kind == DIR
        planned = self._ops[index]
        if type(outcome.op) is not type(planned):  # it has become an upload, which sends more
            self._total_bytes += tally([outcome.op])["bytes"] - tally([planned])["bytes"]
        if was_sent_otherwise(planned, outcome.op):
            self._send_copies_of(index)
        for dependent in self._dependents.pop(index, ()):
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._ready.append(dependent)

    def _send_copies_of(self, sent: int) -> None:
        """Send what was to be copied from there: other content is there than was planned."""
        for index in self._dependents.get(sent, ()):
            op = self._ops[index]
            if isinstance(op, Copy) and op.source == self._ops[sent].path:
                self._ops[index] = as_upload(op)
                self._total_bytes += op.entry.size

    def _fail(self, index: int, problem: Problem) -> None:
        """Note the problem, and one for everything that needed this operation."""
        reason = f"It needs something else that failed: {problem.message}"
        failed = [(index, problem)]
        while failed:
            index, problem = failed.pop()
            self._end(index)
            self.applied.problems.append(problem)
            for dependent in self._dependents.pop(index, ()):
                if self._missing[dependent] >= 0:
                    self._missing[dependent] = -1
                    path = self._ops[dependent].path
                    failed.append((dependent, Problem(path, problem.code, reason)))

    def _end(self, index: int) -> None:
        self._ended += 1
        self._is_open[index] = False

    def take_up(self, more: More) -> None:
        """Ask for more to do, but spend a tenth of the time at it at most."""
        began = self._clock()
        if began < self._ask_after:
            return
        addition = more(self._busy())
        if addition is not None:
            self._add(addition)
        ended = self._clock()
        self._ask_after = ended + max(WAIT_SECONDS, 10 * (ended - began))

    def _busy(self) -> IsBusy:
        """Tells the paths that what has not ended, or is not recorded, is about."""
        paths: set[bytes] = set()
        above: set[bytes] = set()

        def fill() -> None:
            unfinished = (
                op for op, is_open in zip(self._ops, self._is_open, strict=True) if is_open
            )
            for op in chain(unfinished, (outcome.op for outcome in self._uncommitted)):
                for path in paths_of(op):
                    paths.add(path)
                    above.update((b"", *ancestors(path)))

        def is_busy(path: bytes) -> bool:
            if not paths:
                fill()
            return path in paths or path in above or not paths.isdisjoint(ancestors(path))

        return is_busy

    def _add(self, addition: Addition) -> None:
        plan, deltas, is_anew = addition
        first = len(self._ops)
        self._ops += plan.ops
        self._is_open += bytearray(b"\1") * len(plan.ops)
        self._missing += [len(needs) for needs in plan.needs]
        self._dependents |= dependents_of(plan, first)
        # What has come to it meanwhile is small beside what takes so long.
        self._ready.extendleft(first + i for i, needs in enumerate(plan.needs) if not needs)
        self._deltas |= deltas
        self._total_bytes += plan.counts()["bytes"]
        before = (p for p in self.applied.problems if not is_anew(p.path))
        self.applied.problems = [*before, *plan.problems]

    def _report(self) -> None:
        there = _bytes_there(self._remote) - self._bytes_before
        self._monitor(Progress(self._ended, len(self._ops), there, self._total_bytes))

    def has_time_to_get_ready(self) -> bool:
        """Whether that is to be done, and nothing could be begun meanwhile that is not."""
        is_all_begun = self._ended + self._under_way == len(self._ops)
        is_full = self._under_way >= UNDER_WAY
        return not self._is_ready_to_commit and (is_all_begun or is_full)

    def get_ready_to_commit(self) -> None:
        if not self._is_ready_to_commit:
            self._can_commit = False
            self._get_ready()
            self._can_commit = self._is_ready_to_commit = True

    def commit_if_due(self) -> None:
        old = self._clock() - self._committed_at >= COMMIT_SECONDS
        if len(self._uncommitted) >= COMMIT_OPS or (old and self._uncommitted) or self._is_urgent:
            self.commit_now()

    def commit_now(self) -> None:
        if self._uncommitted:
            self.get_ready_to_commit()
            # Where the manifest ends is not known while this fails or is interrupted.
            self._can_commit = False
            self._commit(self._uncommitted)
            self._can_commit = True
            self._intents.forget(outcome.op.path for outcome in self._uncommitted)
            self._uncommitted = []
            self._is_urgent = False
            self._claims.renew(lambda: [self._ops[index] for index in self._begun.values()])
        self._committed_at = self._clock()

    def note_if_due(self) -> None:
        """Note how far large uploads are."""
        if self._clock() - self._noted_at >= NOTE_SECONDS:
            self._intents.note(self._remote.unfinished())
            self._noted_at = self._clock()

    def salvage(self) -> None:
        """Record what is already done, after an error that may not have broken the link.

        Not after one of recording itself: the manifest has to be read again first.
        """
        self._intents.note(self._remote.unfinished())
        if not self._can_commit:
            return
        acknowledged = [outcome for outcome in self._remote.wait(0) if outcome.error is None]
        self.applied.done.update(tally(outcome.op for outcome in acknowledged))
        self._uncommitted += acknowledged
        try:
            self.commit_now()
        except SkynetError:
            # The link is gone as well. The first error is what is told; the next cycle's audit
            # finds what was done.
            return


def _bytes_there(remote: Remote) -> int:
    """Content that was sent and that the server has acknowledged, in this run or before."""
    counts = remote.counts
    return counts["bytes"] + counts["resumed"]


def problem_of(outcome: Outcome) -> Problem | None:
    """The problem an outcome's error is; None if the error concerns more than its path."""
    path, error = outcome.op.path, outcome.error
    if isinstance(error, RequestError):
        return Problem(path, error.code, f"The server refused: {error}")
    if isinstance(error, TornRead):
        return Problem(path, error.code, str(error))
    if isinstance(error, FileNotFoundError):
        return Problem(path, "vanished", "It was there when skynet looked, and is gone now.")
    if isinstance(error, OSError):
        return unreadable(path, error)
    return None
