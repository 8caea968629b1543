"""The terms of a cycle, as values: what it needs of the world, what is wanted, what it came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

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
    """What the caller wants of this cycle.

    approve: the hazards' approval. bind: a dry run's report has the plan with what it was made
    from. saved: carry out this plan, or raise StalePlan; nothing is compared, audit and adopt say
    nothing then.
    """

    audit: bool = True
    dry_run: bool = False
    adopt: Literal["stat", "content"] = "stat"
    approve: str = ""
    bind: bool = False
    saved: SavedPlan | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a cycle came to. counts: requests, mutations, and acknowledged content bytes.

    moved: of a plan that was not carried out, what each renamed directory holds.
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
