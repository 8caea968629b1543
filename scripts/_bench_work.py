"""What a work item of scripts/bench is made of: data, a link, what is done, and bars.

Everything here is a value; nothing is measured or written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CUT_AT = 0.6
SYNCERS = ("rsync", "rclone", "sftp", "lftp")
PEERS = (*SYNCERS, "lsyncd")
SKYNET = "skynet"
ONCE = "once"  # skynet's own `sync --once`, beside its daemon

Kind = Literal["first", "limited", "unchanged", "changed", "plan", "resume", "startup", "watch"]
Watch = Literal["one", "burst", "idle", "overflow", "video"]
Change = Literal[
    "move-dir",
    "move-edit",
    "swap",
    "cycle",
    "copy",
    "front",
    "edits",
    "inserts",
    "append",
    "scatter",
]

Timed = Literal["ratio", "seconds", "cpu", "late", "load", "strayed"]
Sized = Literal["memory", "resident", "content", "sent", "wire"]
Counted = Literal["renames", "operations", "requests"]
Measure = Timed | Sized | Counted


class BenchError(Exception):
    """The bench cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Batch:
    """`count` files of `smallest` to `largest` bytes, `per_directory` to a directory."""

    name: str
    count: int
    smallest: int
    largest: int
    per_directory: int = 100
    scales_in: Literal["count", "size"] = "count"

    def scaled(self, scale: float) -> Batch:
        """Fewer files, or smaller ones: never none, never empty."""
        if self.scales_in == "count":
            return replace(self, count=max(1, round(self.count * scale)))
        smallest, largest = (max(1, round(size * scale)) for size in (self.smallest, self.largest))
        return replace(self, smallest=smallest, largest=largest)


class Bar(NamedTuple):
    """What a full-sized item must not exceed.

    measure "ratio": skynet's seconds by those of the best of `peers`, in the same round;
    "seconds": skynet's own; "memory": its peak in bytes; "cpu": its processor seconds; "sent": what
    it moved on the wire, by the size of the data; "content": bytes of files that it sent;
    "renames", "operations" and "requests": how many of them it made; "late": seconds that 19 of 20
    files are no later than; "load": processor seconds a second; "strayed": the farthest that the
    rate of any minute was from the limit it was told, as a part of that; "resident": the memory it
    holds at the end; "wire": what it moved on the wire, in bytes.
    """

    measure: Measure
    limit: float
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One piece of work that skynet and its peers are timed at.

    kind: "first" syncs to an empty target, "limited" does so at `rate` bytes a second,
    "unchanged" syncs when nothing is to be done, "changed" syncs after a change of what was in
    sync, "plan" plans that without a sync, "resume" kills a first sync at CUT_AT of its data and
    counts what it and the next one move, "startup" asks for the version, "watch" has a daemon watch
    the files.

    change: see _bench_changes; None where nothing changes. watch: what is done to the files
    meanwhile, see _bench_daemon: `made` are the files that come, span the seconds it lasts where
    that is given. rtt_ms: the round trip of the link. patience: how many times the time-out of
    peers they get here. quick_scale: the size under --quick; None leaves it out.
    """

    name: str
    title: str
    kind: Kind
    batches: tuple[Batch, ...] = ()
    rtt_ms: int = 0
    peers: tuple[str, ...] = SYNCERS
    bars: tuple[Bar, ...] = ()
    audit: bool = True
    change: Change | None = None
    watch: Watch | None = None
    made: tuple[Batch, ...] = ()
    span: float = 0.0
    rate: int = 0
    patience: int = 1
    quick_scale: float | None = None

    def scaled(self, scale: float) -> Item:
        """The same work on less data; the title says so."""
        if scale == 1:
            return self
        title = f"{self.title} ({scale:.3g} of the data)"
        return replace(
            self,
            title=title,
            batches=tuple(each.scaled(scale) for each in self.batches),
            made=tuple(each.scaled(scale) for each in self.made),
            span=self.span * scale,
        )

    @property
    def size(self) -> int:
        """Bytes of the data to be sent, where all files of a batch have one size."""
        return sum(batch.count * batch.largest for batch in self.made or self.batches)

    @property
    def is_single_file(self) -> bool:
        """Whether rsync is told to send whole files (-W), there being but one."""
        return sum(batch.count for batch in self.batches) == 1
