"""Plans as people read them: every text here is whole, the long ones are in data/."""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from skynet.cycle import Report
from skynet.needs import needs_of
from skynet.ops import (
    Copy,
    Delete,
    Mkdir,
    Op,
    Patch,
    Plan,
    Record,
    Rename,
    Rmdir,
    SetMeta,
    Upload,
)
from skynet.outline import FEW, SHOWN_AT_MOST, counts_text, plan_lines, size
from skynet.preview import Weight, preview, round_trips, weigh_moved
from skynet.rules import PARKED
from skynet.tree import DIR, FILE, LINK, Entry

DATA = Path(__file__).parent / "data" / "plans"
COLUMNS = 80
DIRECTORY = Entry(DIR, mode=0o755)


def file(count: int) -> Entry:
    return Entry(FILE, size=count)


def report(ops: Sequence[Op], **moved: Weight) -> Report:
    weights = {path.encode(): weight for path, weight in moved.items()}
    return Report("planned", Plan(ops, needs_of(ops)), Counter(), [], [], Counter(), moved=weights)


def printed(value: Report, *, everything: bool = False, colour: bool = False) -> str:
    """What a terminal, or a pipe, gets."""
    out = io.StringIO()
    console = Console(
        file=out, width=COLUMNS, soft_wrap=True, highlight=False, emoji=False,
        force_terminal=colour, color_system="standard" if colour else None,
    )  # fmt: skip
    for line in plan_lines(value, everything=everything):
        console.print(line)
    return out.getvalue()


def representative() -> Report:
    """A day's work: a year archived, clips cut, an inbox filled, drafts thrown away."""
    ops: list[Op] = [
        Mkdir(b"archive", DIRECTORY),
        Rename(b"archive/2023", b"2023", DIRECTORY),
        Rename(b"cover.jpg", b"cover (1).jpg", file(1_200_000)),
        *(Rename(b"done/%d.raw" % n, b"todo/%d.raw" % n, file(25_000_000)) for n in range(12)),
        Patch(b"video/clip.mov", file(1_000_000_000), file(998_000_000), sends=1_100_000),
        Patch(b"video/notes.db", file(40_000_000), file(40_000_000), sends=65_536),
        Copy(b"poster.png", b"video/poster.png", file(3_000_000), file(3_000_000)),
        Mkdir(b"inbox/new", DIRECTORY),
        Mkdir(b"inbox/new/day 1", DIRECTORY),
        Mkdir(b"inbox/new/day 2", DIRECTORY),
        *(Upload(b"inbox/new/day 1/%04d.jpg" % n, file(2_800_000)) for n in range(1200)),
        *(Upload(b"inbox/new/day 2/%04d.jpg" % n, file(2_800_000)) for n in range(3)),
        *(Upload(b"texts/%d.md" % n, file(900), file(800)) for n in range(7)),
        Upload("texts/\u65e5\u672c\u8a9e.md".encode(), file(12)),
        Upload(b"latest", Entry(LINK, link=b"inbox/new")),
        Upload(b"readme.txt", file(4_000), file(3_000)),
        Record(b"seen", file(1)),
        *(Delete(b"drafts/%d.psd" % n, file(70_000_000)) for n in range(9)),
        Delete(b"odd\xff\n[name]", file(1)),
        Rmdir(b"drafts"),
        SetMeta(b"script.sh", file(1)),
    ]
    ops.sort(key=lambda op: isinstance(op, Record))
    return report(ops, **{"archive/2023": Weight(10_000, 41_000_000_000)})


@pytest.mark.parametrize("everything", [False, True])
def test_a_representative_plan_reads_as_ever(*, everything: bool) -> None:
    golden = DATA / ("every-operation.txt" if everything else "summary.txt")
    assert printed(representative(), everything=everything) == golden.read_text("utf-8")


def test_a_summary_is_for_terminals_of_80_columns() -> None:
    text = printed(representative())
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_colours_add_nothing_that_has_to_be_read() -> None:
    coloured = printed(representative(), colour=True)
    assert "\x1b[" in coloured
    stripped = "".join(part.partition("m")[2] for part in ("m" + coloured).split("\x1b["))
    assert stripped == printed(representative())


def test_the_order_of_the_plan_changes_nothing_but_how_long_it_waits() -> None:
    def without_trips(text: str) -> str:
        return re.sub(r"about \d+", "", text)

    plan = representative().plan
    ops = list(plan.ops)
    random.Random(4).shuffle(ops)
    other = replace(representative(), plan=Plan(ops, [()] * len(ops)))
    assert without_trips(printed(other)) == without_trips(printed(representative()))


def test_an_empty_plan_says_so() -> None:
    assert printed(report([])) == "Plan: nothing to do.\n"


def section(text: str) -> list[str]:
    """The lines of the only section."""
    return [line for line in text.splitlines() if line.startswith("  ")]


def uploads(paths: Iterable[str]) -> Report:
    return report([Upload(path.encode(), file(10)) for path in paths])


def test_few_files_of_a_directory_have_a_line_each_and_many_share_one() -> None:
    few = uploads(f"d/{number}" for number in range(FEW))
    assert len(section(printed(few))) == FEW
    many = uploads(f"d/{number}" for number in range(FEW + 1))
    assert section(printed(many)) == ["  + d/  4 files, 40 B"]
    assert len(section(printed(many, everything=True))) == FEW + 1


def test_many_directories_are_told_together_where_they_meet() -> None:
    value = uploads(
        f"{top}/{number}/{name}" for top in "ab" for number in range(99) for name in "xy"
    )
    assert section(printed(value)) == [
        "  + a/  198 files in 99 directories, 2.0 kB",
        "  + b/  198 files in 99 directories, 2.0 kB",
    ]


def test_what_is_too_much_even_so_is_cut_short() -> None:
    value = uploads(f"{number:03}/{name}" for number in range(SHOWN_AT_MOST + 2) for name in "wxyz")
    lines = section(printed(value))
    assert len(lines) == SHOWN_AT_MOST + 1
    assert lines[-1] == "  ... and 2 lines more like these (-v shows all)"
    assert len(section(printed(value, everything=True))) == 4 * (SHOWN_AT_MOST + 2)


def test_every_operation_is_counted_in_words() -> None:
    counts = representative().plan.counts()
    assert counts_text(counts, planned=False) == (
        "1,213 uploaded, 2 patched (3.4 GB), 1 copied on the server, 14 renamed, "
        "1 got other times or modes, 10 deleted, 4 directories made, 1 directory removed, "
        "1 right already"
    )
    assert counts_text(Counter(upload=1, bytes=2500), planned=True) == "1 to upload (2.5 kB)"


def test_what_is_gone_here_is_not_told_to_be_right() -> None:
    kept = Record(b"gone", Entry(FILE, size=1, retained=True))
    directory = Record(b"dir", Entry(DIR, retained=True))
    value = report([Record(b"found", file(1)), kept, directory])
    assert printed(value).splitlines()[0] == "Plan: 2 gone here and kept there, 1 right already."
    assert section(printed(value, everything=True)) == [
        "  . dir/   gone here and kept there",
        "  . found",
        "  . gone   gone here and kept there",
    ]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (2_000_000_000, "2.0 GB"),
        (3_200_000_000_000, "3.2 TB"),
        (5_000_000_000_000_000, "5000.0 TB"),
    ],
)
def test_sizes_for_people(count: int, shown: str) -> None:
    assert size(count) == shown


# What it will cost.

TREE = {
    b"": [(b"d", DIRECTORY), (b"f", file(1))],
    b"d": [(b"d/x", file(10)), (b"d/s", DIRECTORY)],
    b"d/s": [(b"d/s/y", file(100)), (b"d/s/z", file(1000))],
}


def cost(*ops: Op) -> tuple[int, int, int, int]:
    moved = weigh_moved(ops, lambda directory: TREE.get(directory, []))
    return preview(Plan(ops, needs_of(ops)), moved)[:4]


def test_a_renamed_directory_spares_what_is_in_it() -> None:
    assert cost(Rename(b"e", b"d", DIRECTORY)) == (0, 1110, 0, 0)


def test_what_has_left_a_directory_before_is_not_counted_twice() -> None:
    inside_first = Rename(b"t", b"d/s", DIRECTORY), Rename(b"e", b"d", DIRECTORY)
    assert cost(*inside_first) == (0, 1110, 0, 0)
    inside_last = Rename(b"e", b"d", DIRECTORY), Rename(b"f2", b"e/x", file(10))
    assert cost(*inside_last) == (0, 1110, 0, 0)


def test_what_is_parked_is_counted_once() -> None:
    parked = PARKED + b"1"
    swap = (
        Rename(parked, b"d", DIRECTORY),
        Rename(b"d", b"f", file(1)),
        Rename(b"f", parked, DIRECTORY),
    )
    assert cost(*swap) == (0, 1111, 0, 0)


def test_what_is_replaced_in_a_renamed_directory_was_not_spared() -> None:
    ops = (
        Rename(b"e", b"d", DIRECTORY),
        Upload(b"e/x", file(20), file(10)),
        Patch(b"e/s/y", file(100), file(100), sends=30),
        Delete(b"e/s/z", file(1000)),
    )
    assert cost(*ops) == (50, 0, 0, 70)


def test_copies_spare_what_they_copy() -> None:
    assert cost(Copy(b"g", b"f", file(1), file(1))) == (0, 0, 1, 0)


def test_round_trips_follow_the_longest_chain_and_then_the_number() -> None:
    def trips(*ops: Op) -> int:
        return round_trips(Plan(ops, needs_of(ops)))

    assert trips() == 0
    one = trips(Upload(b"a", file(1)))
    assert trips(Upload(b"a", file(1)), Upload(b"b", file(1))) == one
    assert trips(Mkdir(b"d", DIRECTORY), Upload(b"d/a", file(1))) == one + 1
    nested = [Mkdir(b"/".join([b"d"] * depth), DIRECTORY) for depth in range(1, 6)]
    assert trips(*nested, Upload(b"a", file(1))) == one + 2
    many = [Upload(b"%d" % number, file(1)) for number in range(10_000)]
    assert trips(*many) == one + 3 * 10_000 // 1024
