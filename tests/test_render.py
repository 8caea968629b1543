"""Plans and reports as people and programs see them: values in, text out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from rich.text import Text

from skynet.cycle import Outcomes, Report
from skynet.errors import ConnectError, LinkLost, Problem
from skynet.guard import Hazard
from skynet.monitor import BrokenOff
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
    tally,
)
from skynet.outline import plan_lines
from skynet.preview import Weight
from skynet.render import Calls, failure_json, report_json, report_lines, saved_lines
from skynet.tree import DIR, FILE, LINK, Entry

SMALL = Entry(FILE, size=1234)
OLD = Entry(FILE, size=1)
CALLS = Calls("[a] -c x", "[a] -c x --bwlimit 2M")
EVERY_KIND: list[Op] = [
    Mkdir(b"new", Entry(DIR)),
    Upload(b"new/file", SMALL, None),
    Upload(b"changed", SMALL, OLD),
    Upload(b"link", Entry(LINK, link=b"else\xff"), None),
    Patch(b"patched", SMALL, OLD, sends=34),
    Copy(b"twin", b"one", SMALL, SMALL),
    Rename(b"to", b"from", SMALL),
    Rename(b"dir", b"old dir", Entry(DIR)),
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


@pytest.mark.parametrize("name", [b"[red]", b"[/]", b"[bold", b"a\\", b"a\\[b]", b"[link=x]y"])
def test_names_that_look_like_markup_are_shown_as_they_are(name: bytes) -> None:
    told = plain(plan_lines(report("planned", [Delete(name, OLD)]), everything=False))
    assert told[1] == f"  - {name.decode()}  1 B"
    problem = report("problems", problems=[Problem(name, "x", "[/bold] no")])
    assert (
        plain(report_lines(problem, 1, everything=False, calls=CALLS))[0]
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
    assert plain(report_lines(value, 1.49999, everything=False, calls=CALLS))[-1] == last


def test_what_was_left_out_is_counted() -> None:
    lines = plain(
        report_lines(report("in-sync", special=2, links=3), 0, everything=False, calls=CALLS)
    )
    assert lines[:2] == [
        "2 special files (pipes, sockets) were left out.",
        "3 symbolic links were left out.",
    ]


def test_hazards_are_told_with_the_way_to_approve() -> None:
    hazards = [Hazard("mass-delete", "Too many.", "abc"), Hazard("foreign-files", "Others.", "abc")]
    lines = plain(report_lines(report("held", hazards=hazards), 0, everything=False, calls=CALLS))
    assert lines[:2] == ["Held: Too many.", "Held: Others."]
    assert lines[2] == "Look at the plan:    skynet plan --dry-run [a] -c x"
    assert lines[3] == "If it is right, run: skynet sync --once [a] -c x --bwlimit 2M --approve abc"


def test_a_hash_of_something_else_is_told() -> None:
    held = report("held", hazards=[Hazard("mass-delete", "Too many.", "abc")])
    lines = plain(report_lines(held, 0, everything=False, calls=CALLS, approve="[former]"))
    assert lines[-2:] == [
        "The hash that was given, [former], is of something else.",
        "Held: nothing was done.",
    ]


def test_a_plan_that_was_saved_is_approved_by_its_file() -> None:
    calls = Calls("", "m --plan [x].plan")
    hazards = [Hazard("mass-delete", "Too many.", "abc")]
    held = report("held", hazards=hazards)
    assert plain(report_lines(held, 0, everything=False, calls=calls))[1:] == [
        "If it is right, run: skynet sync --once m --plan [x].plan --approve abc",
        "Held: nothing was done.",
    ]
    assert plain(saved_lines(held, "[x].plan", calls)) == ["Saved in [x].plan."]
    assert plain(saved_lines(report("planned"), "[x].plan", calls)) == [
        "Saved in [x].plan.",
        "To carry it out, run: skynet sync --once m --plan [x].plan",
    ]


def test_a_saved_plan_that_was_carried_out_claims_no_more() -> None:
    lines = report_lines(
        report("changed", [Delete(b"x", OLD)]), 0, everything=False, calls=CALLS, of_saved=True
    )
    assert plain(lines) == ["As planned: 1 deleted (7 requests, 0.0 s)."]


def test_a_report_as_json_can_be_written_whatever_the_names_are() -> None:
    problems = [Problem(b"\xff\n", "unreadable", "No.")]
    moved = {b"dir": Weight(3, 500)}
    told = replace(report("problems", EVERY_KIND, problems=problems), moved=moved)
    read = json.loads(json.dumps(report_json("m", told, 1.23456, ops=True)))
    assert read["seconds"] == 1.235
    assert (read["sent_bytes"], read["requests"], read["mutations"]) == (10, 7, 3)
    assert read["problems"] == [{"path": "\udcff\n", "code": "unreadable", "message": "No."}]
    assert [op["op"] for op in read["ops"]].count("upload") == read["plan"]["upload"] == 3
    assert read["saved"] == {"rename": 1734, "copy": 1234, "patch": 1200}
    assert read["round_trips"] > 0
    for op in (
        {"op": "rename", "path": "to", "from": "from", "bytes": 0, "saved": 1234},
        {"op": "rename", "path": "dir", "from": "old dir", "bytes": 0, "saved": 500},
        {"op": "copy", "path": "twin", "from": "one", "bytes": 0, "saved": 1234},
        {"op": "patch", "path": "patched", "from": None, "bytes": 34, "saved": 1200},
        {"op": "upload", "path": "changed", "from": None, "bytes": 1234, "saved": 0},
    ):
        assert op in read["ops"]
    assert "ops" not in report_json("m", report("changed"), 0, ops=False)


def test_failures_as_json() -> None:
    failed = failure_json("m", ConnectError("No way.", "refused"), 0.5)
    assert (failed["outcome"], failed["requests"]) == ("failed", 0)
    assert failed["error"] == {"code": "refused", "message": "No way."}


def test_a_failure_as_json_tells_what_was_done_until_then() -> None:
    planned, done = Counter(upload=5, bytes=50), Counter(upload=2, bytes=20)
    counts = Counter(requests=9, mutations=4, bytes=31)
    failed = failure_json("m", LinkLost("Gone."), 0.5, BrokenOff(planned, done, counts))
    assert failed["outcome"] == "failed"
    assert (failed["plan"]["upload"], failed["plan"]["bytes"]) == (5, 50)
    assert (failed["done"]["upload"], failed["done"]["bytes"]) == (2, 20)
    assert (failed["requests"], failed["mutations"], failed["sent_bytes"]) == (9, 4, 31)
