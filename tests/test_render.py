"""Plans and reports as people and programs see them: values in, text out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import pytest
from rich.text import Text

from skynet.errors import ConnectError, Problem
from skynet.guard import Hazard
from skynet.ops import Delete, Mkdir, Op, Plan, Record, Rename, Rmdir, SetMeta, Upload, tally
from skynet.reconcile import Outcomes, Report
from skynet.render import (
    SHOWN_AT_MOST,
    failure_json,
    plan_lines,
    report_json,
    report_lines,
    size,
)
from skynet.tree import DIR, FILE, LINK, Entry

SMALL = Entry(FILE, size=1234)
OLD = Entry(FILE, size=1)
EVERY_KIND: list[Op] = [
    Mkdir(b"new", Entry(DIR)),
    Upload(b"new/file", SMALL, None),
    Upload(b"changed", SMALL, OLD),
    Upload(b"link", Entry(LINK, link=b"else\xff"), None),
    Rename(b"to", b"from", SMALL),
    SetMeta(b"touched", SMALL),
    Record(b"known", SMALL),
    Delete(b"gone", OLD),
    Rmdir(b"old"),
]


def report(
    outcome: Outcomes,
    ops: Iterable[Op] = (),
    *,
    problems: Iterable[Problem] = (),
    hazards: Iterable[Hazard] = (),
    **skipped: int,
) -> Report:
    ops = list(ops)
    done = tally(ops) if outcome in ("changed", "problems") else Counter()
    counts = Counter(requests=7, mutations=3, bytes=10)
    plan = Plan(ops, [()] * len(ops))
    return Report(outcome, plan, done, list(problems), list(hazards), counts, Counter(skipped))


def plain(lines: Iterable[str]) -> list[str]:
    """The lines as a terminal shows them; markup that does not parse is an error."""
    return [Text.from_markup(line, emoji=False).plain for line in lines]


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


def test_every_kind_of_operation_is_shown() -> None:
    assert plain(plan_lines(report("planned", EVERY_KIND), everything=True)) == [
        "> from -> to  (no content sent)",
        "+ new/",
        "+ new/file  1.2 kB",
        "+ changed  1.2 kB, replaces the old version",
        r"+ link  -> else\xff",
        "~ touched  times or mode",
        "= known  only noted",
        "- gone",
        "- old/",
        "Plan: 3 to upload (2.5 kB), 1 to rename, 1 to get other times or modes, 1 to delete, "
        "1 directory to make, 1 directory to remove, 1 right already.",
    ]


def test_an_empty_plan_says_so() -> None:
    assert plain(plan_lines(report("in-sync"), everything=False)) == ["Plan: nothing to do."]


def test_long_plans_are_cut_short_unless_all_is_asked_for() -> None:
    many = report("planned", [Delete(b"%03d" % number, OLD) for number in range(SHOWN_AT_MOST + 2)])
    short = plain(plan_lines(many, everything=False))
    assert len(short) == SHOWN_AT_MOST + 2
    assert short[-2] == "  ... and 2 more like these (-v shows all)"
    assert len(plain(plan_lines(many, everything=True))) == SHOWN_AT_MOST + 3


@pytest.mark.parametrize("name", [b"[red]", b"[/]", b"[bold", b"a\\", b"a\\[b]", b"[link=x]y"])
def test_names_that_look_like_markup_are_shown_as_they_are(name: bytes) -> None:
    first, _ = plain(plan_lines(report("planned", [Delete(name, OLD)]), everything=False))
    assert first == f"- {name.decode()}"
    problem = report("problems", problems=[Problem(name, "x", "[/bold] no")])
    assert (
        plain(report_lines(problem, 1, everything=False, call=""))[0]
        == f"! {name.decode()}  [/bold] no"
    )


@pytest.mark.parametrize(
    ("value", "last"),
    [
        (report("in-sync"), "In sync: nothing had to be done (7 requests, 1.5 s)."),
        (report("changed", [Delete(b"x", OLD)]), "In sync: 1 deleted (7 requests, 1.5 s)."),
        (report("held", [Delete(b"x", OLD)]), "Held: nothing was done."),
        (
            report("problems", problems=[Problem(b"x", "unreadable", "No.")]),
            "1 path is not in sync; nothing was done (7 requests, 1.5 s).",
        ),
        (
            report(
                "problems", [Delete(b"z", OLD)], problems=[Problem(b, "", "") for b in (b"x", b"y")]
            ),
            "2 paths are not in sync; 1 deleted (7 requests, 1.5 s).",
        ),
    ],
)
def test_the_last_line_tells_the_outcome(value: Report, last: str) -> None:
    assert plain(report_lines(value, 1.49999, everything=False, call=""))[-1] == last


def test_what_was_left_out_is_counted() -> None:
    lines = plain(report_lines(report("in-sync", special=2, links=3), 0, everything=False, call=""))
    assert lines[:2] == [
        "2 special files (pipes, sockets) were left out.",
        "3 symbolic links were left out.",
    ]


def test_hazards_are_told_with_the_way_to_approve() -> None:
    hazards = [Hazard("mass-delete", "Too many.", "abc"), Hazard("foreign-files", "Others.", "abc")]
    lines = plain(
        report_lines(report("held", hazards=hazards), 0, everything=False, call="[a] -c x")
    )
    assert lines[:2] == ["Held: Too many.", "Held: Others."]
    assert lines[2] == "Look at the plan:    skynet plan --dry-run [a] -c x"
    assert lines[3] == "If it is right, run: skynet sync --once [a] -c x --approve abc"


def test_a_report_as_json_can_be_written_whatever_the_names_are() -> None:
    problems = [Problem(b"\xff\n", "unreadable", "No.")]
    value = report_json("m", report("problems", EVERY_KIND, problems=problems), 1.23456, ops=True)
    read = json.loads(json.dumps(value))
    assert read["seconds"] == 1.235
    assert (read["sent_bytes"], read["requests"], read["mutations"]) == (10, 7, 3)
    assert read["problems"] == [{"path": "\udcff\n", "code": "unreadable", "message": "No."}]
    assert [op["op"] for op in read["ops"]].count("upload") == read["plan"]["upload"] == 3
    assert {"op": "rename", "path": "to", "from": "from", "bytes": 0} in read["ops"]
    assert {"op": "upload", "path": "changed", "from": None, "bytes": 1234} in read["ops"]
    assert "ops" not in report_json("m", report("changed"), 0, ops=False)


def test_failures_as_json() -> None:
    failed = failure_json("m", ConnectError("No way.", "refused"), 0.5)
    assert (failed["outcome"], failed["requests"]) == ("failed", 0)
    assert failed["error"] == {"code": "refused", "message": "No way."}
