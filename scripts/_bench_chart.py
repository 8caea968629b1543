"""The results of scripts/bench as a bar chart: a small SVG, readable on light and dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from _bench_report import Result, seconds_text, spread
from _bench_work import SKYNET

WIDTH = 720  # all lengths in pixels
BARS_LEFT = 80
BARS_WIDTH = 460
BAR_HEIGHT = 16
BAR_STEP = 22
TITLE_STEP = 26
GROUP_GAP = 18
MARGIN = 14
NARROWEST = 2
CUT_AT = 5  # a bar longer than so many times the shortest is cut, or it would hide all others

# Middle tones that stand out on white and on black; the text follows the reader's scheme.
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.skynet { fill: #1a7f5a }
.peer { fill: #8b949e }
.cut { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .skynet { fill: #3fb68b }
  .cut { stroke: #0d1117 }
}"""


class ChartBar(NamedTuple):
    """One bar of a group: length in seconds, and what is written at its end."""

    tool: str
    seconds: float
    label: str


def chart(results: Sequence[Result]) -> str:
    """An SVG document: for each item a group of bars, shorter being better.

    Each group has a scale of its own, so only bars of one group compare. A long bar is cut.
    """
    y = MARGIN
    shapes: list[str] = []
    for result in results:
        bars = _bars(result)
        if bars:
            shapes += _group(y, result.item.title, bars)
            y += TITLE_STEP + len(bars) * BAR_STEP + GROUP_GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        f'viewBox="0 0 {WIDTH} {y}" role="img" aria-label="seconds of each tool, by work">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *shapes, "</svg>", ""])


def _bars(result: Result) -> list[ChartBar]:
    """The tools that have a figure: those that came through, and those that were stopped."""
    bars = []
    for tool in result.tools:
        samples = result.of(tool) or result.of(tool, "timeout")
        is_startup = result.item.kind == "startup"
        found = spread([each.cpu_seconds if is_startup else each.seconds for each in samples])
        if found is not None:
            label = seconds_text(result, tool).partition(" (")[0]
            bars.append(ChartBar(tool, found.median, f"{label} s"))
    return bars


def _group(y: int, title: str, bars: Sequence[ChartBar]) -> list[str]:
    longest = max(bar.seconds for bar in bars)
    full = min(longest, CUT_AT * min(bar.seconds for bar in bars))
    shapes = [f'<text class="title" x="{MARGIN}" y="{y + BAR_HEIGHT}">{escape(title)}</text>']
    for number, bar in enumerate(bars):
        shapes += _bar(y + TITLE_STEP + number * BAR_STEP, bar, full)
    return shapes


def _bar(y: int, bar: ChartBar, full: float) -> list[str]:
    """The shapes of one bar, of which `full` seconds take all the width."""
    share = min(1.0, bar.seconds / full) if full else 0.0
    width = max(NARROWEST, round(BARS_WIDTH * share))
    kind = "skynet" if bar.tool == SKYNET else "peer"
    base = y + BAR_HEIGHT - 3  # of the text
    end = BARS_LEFT + width
    shapes = [
        f'<text x="{BARS_LEFT - 8}" y="{base}" text-anchor="end">{escape(bar.tool)}</text>',
        f'<rect class="{kind}" x="{BARS_LEFT}" y="{y}" width="{width}" height="{BAR_HEIGHT}"/>',
        f'<text x="{end + 8}" y="{base}">{escape(bar.label)}</text>',
    ]
    if bar.seconds > full:
        line = f'x1="{end - 24}" y1="{y + BAR_HEIGHT}" x2="{end - 18}" y2="{y}"'
        shapes.append(f'<line class="cut" {line}/>')
    return shapes
