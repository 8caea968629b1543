"""What scripts/bench found, as values, as text for people and as one object for programs. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from _bench_work import SKYNET, Bar, Item

Outcome = Literal["ok", "timeout", "failed"]


@dataclass(frozen=True)
class Sample:
    """One turn of one tool. memory, wire_bytes and sent_bytes in bytes; None where unknown.

    seconds: for a "timeout", when it was stopped. memory_is_bound: the true peak may be lower.
    sent_bytes: content of files; it, renames, operations and requests are skynet's own figures.
    strayed: how far from its limit the rate was, at worst.
    Of a watcher, seconds are the median of many files, and late_seconds their 95th percentile;
    resident: bytes that it holds at the end. remark: what else is worth knowing.
    """

    tool: str
    round: int
    outcome: Outcome
    seconds: float
    cpu_seconds: float
    memory: int
    memory_is_bound: bool = False
    wire_bytes: int | None = None
    requests: int | None = None
    sent_bytes: int | None = None
    renames: int | None = None
    operations: int | None = None
    late_seconds: float | None = None
    resident: int | None = None
    strayed: float | None = None
    message: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Result:
    """All turns at one item."""

    item: Item
    samples: tuple[Sample, ...]

    @property
    def tools(self) -> list[str]:
        """Who had a turn: skynet, then its peers in the order of the item."""
        ran = {sample.tool for sample in self.samples}
        return [tool for tool in (SKYNET, *self.item.peers) if tool in ran]

    def turns(self, tool: str) -> list[Sample]:
        """All turns of the tool."""
        return [each for each in self.samples if each.tool == tool]

    def of(self, tool: str, outcome: Outcome = "ok") -> list[Sample]:
        """The turns of the tool that came out so."""
        return [each for each in self.turns(tool) if each.outcome == outcome]


class Spread(NamedTuple):
    """The middle and the ends of some figures."""

    median: float
    low: float
    high: float


class Ratio(NamedTuple):
    """Skynet's seconds by a peer's. is_bound: the peer was stopped, and the truth is lower."""

    spread: Spread
    is_bound: bool


def spread(figures: Sequence[float]) -> Spread | None:
    """None when there are none."""
    if not figures:
        return None
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratio(result: Result, peers: Sequence[str]) -> Ratio | None:
    """Skynet against the best of the peers in each round; None when they never met.

    Peers that were stopped count only where none came through: by the time they had, at least.
    """
    ours = {each.round: each.seconds for each in result.of(SKYNET)}
    theirs: dict[int, float] = {}
    for each in (sample for peer in peers for sample in result.of(peer)):
        theirs[each.round] = min(each.seconds, theirs.get(each.round, each.seconds))
    met = spread([ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())])
    if met is not None:
        return Ratio(met, is_bound=False)
    stopped = [sample.seconds for peer in peers for sample in result.of(peer, "timeout")]
    bound = spread([seconds / min(stopped) for seconds in ours.values()]) if stopped else None
    return None if bound is None else Ratio(bound, is_bound=True)


# --- text


HEADINGS = (
    "",
    "seconds",
    "skynet/peer",
    "memory",
    "on the wire",
    "content",
    "operations",
    "requests",
)


def progress(sample: Sample, rounds: int) -> str:
    """The line that says of a turn that it has ended."""
    seconds = {"ok": "", "timeout": "  stopped", "failed": f"  failed: {sample.message}"}
    took = f"{sample.seconds:8.2f} s{seconds[sample.outcome]}"
    return f"  round {sample.round} of {rounds}  {sample.tool:8}{took}"


def item_text(result: Result, is_full_size: bool) -> str:
    """Heading, table, what went wrong, and how the bars were met if the item had its full size."""
    lines = [f"{result.item.name}: {result.item.title}", ""]
    lines += table([HEADINGS, *(_row(result, tool) for tool in result.tools)])
    for sample in result.samples:
        if sample.outcome == "failed":
            lines.append(f"  {sample.tool} failed: {sample.message}")
        elif sample.remark:
            lines.append(f"  {sample.tool}, round {sample.round}: {sample.remark}")
    if is_full_size:
        lines += [f"  bar: {bar_text(result, bar)}" for bar in result.item.bars]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the columns of the rows below each other: the first to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(["", first.ljust(widths[0]), *cells]).rstrip())
    return lines


def _row(result: Result, tool: str) -> list[str]:
    samples = result.of(tool)
    return [
        tool,
        seconds_text(result, tool),
        ratio_text(ratio(result, [tool])) if tool != SKYNET else "",
        _memory_text(samples),
        _median_text([each.wire_bytes for each in samples], bytes_text),
        _median_text([each.sent_bytes for each in samples], bytes_text),
        _median_text([each.operations for each in samples], "{:,.0f}".format),
        _median_text([each.requests for each in samples], "{:,.0f}".format),
    ]


def seconds_text(result: Result, tool: str) -> str:
    """What the tool took; processor seconds where starting up is measured."""
    is_startup = result.item.kind == "startup"
    samples = result.of(tool)
    found = spread([each.cpu_seconds if is_startup else each.seconds for each in samples])
    if found is not None:
        return f"{found.median:.2f} ({found.low:.2f} - {found.high:.2f})"
    stopped = result.of(tool, "timeout")
    return f"> {stopped[0].seconds:.0f}" if stopped else "failed"


def ratio_text(found: Ratio | None) -> str:
    """Such as "0.71 (0.70 - 0.75)", or "< 0.02" beside a peer that was stopped."""
    if found is None:
        return "-"
    if found.is_bound:
        return f"< {found.spread.median:.3f}"
    return "{:.2f} ({:.2f} - {:.2f})".format(*found.spread)


def bytes_text(count: float) -> str:
    """Bytes as people read them, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _memory_text(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    peak = max(samples, key=lambda each: each.memory)
    return ("< " if peak.memory_is_bound else "") + bytes_text(peak.memory)


def _median_text(figures: Sequence[int | None], show: Any) -> str:
    found = spread([figure for figure in figures if figure is not None])
    return "" if found is None else str(show(found.median))


def bar_text(result: Result, bar: Bar) -> str:
    """The bar, what was reached, and whether that is enough."""
    figure = bar_figure(result, bar)
    asked = f"at most {_asked(bar)}"
    if figure is None:
        return f"{asked}: not measured"
    match bar.measure:
        case "memory" | "resident" | "content" | "wire":
            shown = bytes_text(figure)
        case "renames" | "operations" | "requests":
            shown = f"{figure:,.0f}"
        case "load":
            shown = f"{figure:.5f}"
        case "strayed":
            shown = f"{figure:.1%}"
        case _:
            shown = f"{figure:.3f}"
    return f"{asked}: {'met' if figure <= bar.limit else 'MISSED'}, {shown}"


def _asked(bar: Bar) -> str:
    match bar.measure:
        case "ratio":
            best = "" if len(bar.peers) == 1 else "the best of "
            return f"{bar.limit:g} of {best}{', '.join(bar.peers)}"
        case "seconds":
            return f"{bar.limit:g} s"
        case "cpu":
            return f"{bar.limit:g} s of processor time"
        case "sent":
            return f"{bar.limit:g} of the data on the wire"
        case "late":
            return f"{bar.limit:g} s for 19 files of 20"
        case "load":
            return f"{bar.limit:g} of a processor"
        case "wire":
            return f"{bytes_text(bar.limit)} on the wire"
        case "strayed":
            return f"{bar.limit:.0%} from the limit over any minute"
        case "resident":
            return f"{bytes_text(bar.limit)} of memory in the end"
        case "memory" | "content":
            return f"{bytes_text(bar.limit)} of {bar.measure}"
        case "renames" | "operations" | "requests":
            return f"{bar.limit:,.0f} {bar.measure}"


def bar_figure(result: Result, bar: Bar) -> float | None:
    """What the bar limits, as measured; None when it was not.

    The ratio to a peer that was stopped is a bound, which can meet a bar but not miss it.
    """
    samples = result.of(SKYNET)
    match bar.measure:
        case "ratio":
            found = ratio(result, bar.peers)
            if found is None or (found.is_bound and found.spread.median > bar.limit):
                return None
            return found.spread.median
        case "seconds":
            return _middle([each.seconds for each in samples])
        case "cpu":
            return _middle([each.cpu_seconds for each in samples])
        case "sent":
            moved = _most([each.wire_bytes for each in samples])
            return None if moved is None else moved / result.item.size
        case "memory":
            return _most([each.memory for each in samples])
        case "content":
            return _most([each.sent_bytes for each in samples])
        case "renames":
            return _most([each.renames for each in samples])
        case "operations":
            return _most([each.operations for each in samples])
        case "requests":
            return _most([each.requests for each in samples])
        case "late":
            return _most([each.late_seconds for each in samples])
        case "load":
            return max((each.cpu_seconds / each.seconds for each in samples), default=None)
        case "resident":
            return _most([each.resident for each in samples])
        case "wire":
            return _most([each.wire_bytes for each in samples])
        case "strayed":
            return _most([each.strayed for each in samples])


def _middle(figures: Sequence[float]) -> float | None:
    found = spread(figures)
    return None if found is None else found.median


def _most(figures: Sequence[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)


# --- JSON


def result_json(result: Result, is_full_size: bool) -> dict[str, Any]:
    """Everything about an item: each turn, and what the tables show of them."""
    ratios = {peer: ratio(result, [peer]) for peer in result.tools if peer != SKYNET}
    bars = [
        {**bar._asdict(), "measured": bar_figure(result, bar)}
        for bar in (result.item.bars if is_full_size else ())
    ]
    return {
        "item": result.item.name,
        "title": result.item.title,
        "rtt_ms": result.item.rtt_ms,
        "data": [dataclasses.asdict(batch) for batch in result.item.batches],
        "samples": [dataclasses.asdict(sample) for sample in result.samples],
        "seconds": {tool: _spread_json(result, tool) for tool in result.tools},
        "ratios": {
            peer: found and {**found.spread._asdict(), "is_bound": found.is_bound}
            for peer, found in ratios.items()
        },
        "bars": bars,
    }


def _spread_json(result: Result, tool: str) -> dict[str, float] | None:
    found = spread([each.seconds for each in result.of(tool)])
    return None if found is None else found._asdict()
