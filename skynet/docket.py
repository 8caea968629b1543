"""The docket: what a mirror's next cycle is to be, and what the earlier ones have left open.

Problems are looked at again, ever less often. What is held is kept in view by whole scans, since
an approval is about all of it: a change that touches it, or more that is held, brings such a scan
on. Pure but for the clock that is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from skynet.agenda import is_covered
from skynet.config import Mirror
from skynet.cycle import Arrivals, Report, Request
from skynet.errors import Problem
from skynet.rules import is_parked

# In seconds.
FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN = 30.0, 3600.0  # at a path that could not be synced
COMBINE_SECONDS = 30.0  # between two scans for the sake of what is held


class Docket:
    """Of one mirror. clock: monotonic seconds.

    scan_at: when everything is to be looked at. problems: of all paths that are not in sync.
    is_holding: something waits for approval.
    """

    def __init__(self, mirror: Mirror, clock: Callable[[], float]) -> None:
        self._mirror = mirror
        self._clock = clock
        self.scan_at = self._audit_at = clock()
        self.problems: dict[bytes, Problem] = {}
        self.is_holding = False
        self._tries: dict[bytes, int] = {}  # path -> how often it could not be synced
        self._held: frozenset[bytes] = frozenset()
        self._approved = ""
        self._is_wanted = False  # a scan was asked for since the last whole cycle began
        self._combined_at = -math.inf

    def scan_now(self, *, approved: str = "", audited: bool = False) -> None:
        """Look at everything as soon as possible, the remote as well if it is to be `audited`.

        And carry out what has this approval.
        """
        self.scan_at = self._clock()
        if audited:
            self._audit_at = self.scan_at
        self._approved = approved or self._approved
        self._is_wanted = True

    def request(
        self,
        marks: Mapping[bytes, bool] | None,
        is_unsettled: Callable[[bytes, int], bool],
        arrivals: Arrivals,
    ) -> Request:
        """What to ask of the next cycle; marks: None for everything.

        Marks of everything, as polling makes them, are no less than a scan.
        """
        is_whole = marks is None or marks.get(b"", False)
        if is_whole:
            self._is_wanted = False
        return Request(
            audit=is_whole and self._clock() >= self._audit_at,
            approve=self._approved if is_whole else "",
            marks=None if is_whole else marks,
            is_unsettled=is_unsettled,
            goes_on=True,
            held_deletes=0 if is_whole else len(self._held),
            arrivals=arrivals,
        )

    def close(
        self, request: Request, report: Report, looked: Mapping[bytes, bool]
    ) -> dict[bytes, float]:
        """Take what a cycle came to. looked: its marks.

        Returns the paths with problems, and when to look at them again, by the clock.
        """
        now = self._clock()
        self._note_problems(report, looked)
        if report.was_whole and not self._is_wanted:
            self.scan_at = now + self._mirror.scan_interval
            self._approved = ""
            if request.audit:
                self._audit_at = now + self._mirror.audit_interval
        self._note_held(report, looked, now)
        if report.problems and any(is_parked(op.path) for op in report.plan.ops):
            self._scan_by(now + FIRST_LOOK_AGAIN)  # what may be parked still, nothing has marked
        paths = dict.fromkeys(problem.path for problem in report.problems)
        return {path: now + self._look_again_in(path) for path in paths}

    def _note_problems(self, report: Report, looked: Mapping[bytes, bool]) -> None:
        """Of what was not looked at, the problems of before go on."""
        old: dict[bytes, Problem] = {}
        if not report.was_whole:
            old = {
                path: problem
                for path, problem in self.problems.items()
                if not is_covered(path, looked)
            }
        self.problems = old | {problem.path: problem for problem in report.problems}
        self._tries = {path: self._tries.get(path, 0) for path in self.problems}

    def _look_again_in(self, path: bytes) -> float:
        tries = self._tries[path]
        self._tries[path] += 1
        return min(LAST_LOOK_AGAIN, FIRST_LOOK_AGAIN * 2.0 ** min(tries, 20))

    def _note_held(self, report: Report, looked: Mapping[bytes, bool], now: float) -> None:
        """After a cycle that saw only a part of what may be held, a scan is to see all of it."""
        is_held = report.outcome == "held"
        paths = frozenset(path for hazard in report.hazards for path in hazard.paths)
        if report.was_whole:
            self._held, self.is_holding = paths, is_held
            return
        covered = {path for path in self._held if is_covered(path, looked)}
        if paths - self._held or covered - paths:
            self._held |= paths
            self.is_holding = True
            combined_at = max(now, self._combined_at + COMBINE_SECONDS)
            if self._scan_by(combined_at):
                self._combined_at = combined_at

    def _scan_by(self, moment: float) -> bool:
        """Look at everything no later than then; whether that is sooner than before."""
        is_sooner = moment < self.scan_at
        self.scan_at = min(self.scan_at, moment)
        return is_sooner
