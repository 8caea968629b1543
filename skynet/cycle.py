"""The terms of a cycle, as values: what it needs of the world, what is wanted, what it came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # a command makes a Request before it loads what a cycle needs
    from skynet.errors import Problem
    from skynet.guard import Hazard
    from skynet.monitor import Monitor
    from skynet.ops import Plan
    from skynet.preview import Weight
    from skynet.saved import SavedPlan

Outcomes = Literal["in-sync", "changed", "planned", "problems", "held"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a cycle needs of the world, injected.

    clock: monotonic seconds. now_ns: wall clock, nanoseconds since 1970. token(n): n random
    bytes. host: this machine's name, for the manifest's origin. pid_space: see `lease.pid_space`.
    check: raises Interrupted when the work is to end; it is called every moment.
    on_one_processor: around what many threads do together; see `processors`.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    now_ns: Callable[[], int]
    token: Callable[[int], bytes]
    host: str
    pid_space: str
    monitor: Monitor
    check: Callable[[], None] = lambda: None
    on_one_processor: Callable[[], AbstractContextManager[None]] = nullcontext


class Arrivals(Protocol):
    """What has changed locally while a plan is carried out."""

    def take(self, is_busy: Callable[[bytes], bool]) -> Mapping[bytes, bool]:
        """Marks to look at now, as in Request; none of which is_busy(path)."""

    def put_back(self) -> None:
        """What was taken last was not done: it needs a cycle of its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller wants of this cycle.

    approve: the hazards' approval. bind: a dry run's report has the plan with what it was made
    from. saved: carry out this plan, or raise StalePlan; nothing is compared, audit and adopt say
    nothing then.

    marks: look only at these paths (path -> whether at all below it, too), if the index is current;
    None: at everything. is_unsettled: see Tools. goes_on: what no hazard is about is carried out
    although the plan is held. held_deletes: deletes that are held already and count with this
    plan's. arrivals: what joins the plan while it is carried out.
    """

    audit: bool = True
    dry_run: bool = False
    adopt: Literal["stat", "content"] = "stat"
    approve: str = ""
    bind: bool = False
    saved: SavedPlan | None = None
    marks: Mapping[bytes, bool] | None = None
    is_unsettled: Callable[[bytes, int], bool] = lambda _path, _mtime_ns: False
    goes_on: bool = False
    held_deletes: int = 0
    arrivals: Arrivals | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a cycle came to. counts: requests, mutations, and acknowledged content bytes.

    moved: of a plan that was not carried out, what each renamed directory holds. unsettled: files
    that are still being written and were left for later. was_whole: everything was looked at.
    """

    outcome: Outcomes
    plan: Plan
    done: Counter[str]
    problems: list[Problem]
    hazards: list[Hazard]
    counts: Counter[str]
    skipped: Counter[str] = field(default_factory=Counter)
    moved: Mapping[bytes, Weight] = field(default_factory=dict)
    saved: SavedPlan | None = None
    unsettled: Sequence[bytes] = ()
    was_whole: bool = True
