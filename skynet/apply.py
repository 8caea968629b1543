"""Carrying out a plan: many operations under way, each begun when what it needs is done.

What has ended is handed to `commit` in batches, which records it in the manifest and the index:
the manifest never claims more than the remote holds. An operation that fails becomes a problem,
and so does whatever needed it; the others go on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from skynet.errors import Problem, RequestError, SkynetError, TornRead
from skynet.monitor import Monitor, Progress
from skynet.ops import Delete, Op, Plan, Rmdir, Upload, step, tally
from skynet.remote import Outcome, Remote
from skynet.scan import Root, unreadable
from skynet.tree import FILE

UNDER_WAY = 2048  # operations handed to the remote and not ended
COMMIT_OPS = 8192
COMMIT_SECONDS = 3.0
WAIT_SECONDS = 0.25

Commit = Callable[[list[Outcome]], None]


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
    commit: Commit,
    beat: Callable[[], None],
    clock: Callable[[], float],
    monitor: Monitor,
) -> Applied:
    """Carry out `plan`. Errors of the link or of the whole remote end it and are raised.

    `beat` is called every moment, to keep the lease. What was acknowledged before an error is
    committed where the remote still allows it.
    """
    run = _Run(plan, remote, root, commit, clock, monitor)
    try:
        while run.is_unfinished():
            run.begin_ready()
            run.settle(remote.wait(WAIT_SECONDS))
            beat()
            run.commit_if_due()
    except (KeyboardInterrupt, SkynetError):
        run.salvage()
        raise
    run.commit_now()
    return run.applied


class _Run:
    def __init__(
        self,
        plan: Plan,
        remote: Remote,
        root: Root,
        commit: Commit,
        clock: Callable[[], float],
        monitor: Monitor,
    ) -> None:
        self._plan = plan
        self._remote = remote
        self._root = root
        self._commit = commit
        self._clock = clock
        self._monitor = monitor
        self._indexes = {step(op): i for i, op in enumerate(plan.ops)}
        self._missing = [len(needs) for needs in plan.needs]
        self._dependents = _dependents(plan)
        self._ready = deque(i for i, missing in enumerate(self._missing) if not missing)
        self._under_way = 0
        self._ended = 0
        self._uncommitted: list[Outcome] = []
        self._committed_at = clock()
        self._can_commit = True
        self._total_bytes = plan.counts()["bytes"]
        self._sent_before = remote.counts["bytes"]
        self.applied = Applied(problems=list(plan.problems))

    def is_unfinished(self) -> bool:
        return self._ended < len(self._plan.ops)

    def begin_ready(self) -> None:
        root_verified = False
        while self._ready and self._under_way < UNDER_WAY:
            index = self._ready.popleft()
            op = self._plan.ops[index]
            if isinstance(op, Delete | Rmdir):
                if not root_verified:
                    self._root.verify()
                    root_verified = True
                doubt = self._doubt(op)
                if doubt is not None:
                    self._fail(index, doubt)
                    continue
            self._under_way += 1
            self._begin(op)

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
        if isinstance(op, Upload) and op.entry.kind == FILE:
            path, entry = op.path, op.entry
            self._remote.submit(op, lambda: self._root.open(path, entry))
        else:
            self._remote.submit(op)

    def settle(self, outcomes: list[Outcome]) -> None:
        self._under_way -= len(outcomes)
        fatal: Exception | None = None
        for outcome in outcomes:
            index = self._indexes[step(outcome.op)]
            problem = None if outcome.error is None else problem_of(outcome)
            if outcome.error is None:
                self._succeed(index, outcome)
            elif problem is not None:
                self._fail(index, problem)
            else:
                fatal = fatal or outcome.error
        self._report()
        if fatal is not None:
            raise fatal

    def _succeed(self, index: int, outcome: Outcome) -> None:
        self._ended += 1
        self._uncommitted.append(outcome)
        self.applied.done += tally([outcome.op])
        for dependent in self._dependents.get(index, ()):
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._ready.append(dependent)

    def _fail(self, index: int, problem: Problem) -> None:
        """Note the problem, and one for everything that needed this operation."""
        reason = f"It needs something else that failed: {problem.message}"
        failed = [(index, problem)]
        while failed:
            index, problem = failed.pop()
            self._ended += 1
            self.applied.problems.append(problem)
            for dependent in self._dependents.pop(index, ()):
                if self._missing[dependent] >= 0:
                    self._missing[dependent] = -1
                    path = self._plan.ops[dependent].path
                    failed.append((dependent, Problem(path, problem.code, reason)))

    def _report(self) -> None:
        sent = self._remote.counts["bytes"] - self._sent_before
        self._monitor(Progress(self._ended, len(self._plan.ops), sent, self._total_bytes))

    def commit_if_due(self) -> None:
        old = self._clock() - self._committed_at >= COMMIT_SECONDS
        if len(self._uncommitted) >= COMMIT_OPS or (old and self._uncommitted):
            self.commit_now()

    def commit_now(self) -> None:
        if self._uncommitted:
            # Where the manifest ends is not known while this fails or is interrupted.
            self._can_commit = False
            self._commit(self._uncommitted)
            self._can_commit = True
            self._uncommitted = []
        self._committed_at = self._clock()

    def salvage(self) -> None:
        """Record what is already done, after an error that may not have broken the link.

        Not after one of recording itself: the manifest has to be read again first.
        """
        if not self._can_commit:
            return
        for outcome in self._remote.wait(0):
            if outcome.error is None:
                self._uncommitted.append(outcome)
        try:
            self.commit_now()
        except SkynetError:
            # The link is gone as well. The first error is what is told; the next cycle's audit
            # finds what was done.
            return


def _dependents(plan: Plan) -> dict[int, list[int]]:
    dependents: dict[int, list[int]] = {}
    for index, needs in enumerate(plan.needs):
        for needed in needs:
            dependents.setdefault(needed, []).append(index)
    return dependents


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
