"""Plans and reports as text for people and as JSON for programs. Pure: values in, text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from skynet.cycle import Report
from skynet.errors import Problem, SkynetError
from skynet.guard import Hazard
from skynet.markup import escape
from skynet.monitor import BrokenOff
from skynet.ops import Copy, Op, Plan, Rename, kind, tally
from skynet.outline import counts_text
from skynet.preview import Weight, preview, spares
from skynet.rules import shown
from skynet.target import printable

COUNTED = ("upload", "patch", "copy", "rename", "delete", "mkdir", "rmdir", "setmeta")


class Calls(NamedTuple):
    """The words that lead to a mirror again, quoted for a shell.

    plan: behind `skynet plan --dry-run`; "" if there is nothing else to see. sync: behind
    `skynet sync --once`.
    """

    plan: str
    sync: str


def report_lines(
    report: Report,
    seconds: float,
    *,
    everything: bool,
    calls: Calls,
    approve: str = "",
    of_saved: bool = False,
) -> Iterator[str]:
    """What a cycle came to, in rich markup.

    approve: the hash that was given, if any. of_saved: a saved plan was carried out, and nothing
    else was looked at.
    """
    yield from problem_lines(report.problems)
    yield from hazard_lines(report.hazards, calls)
    if approve and report.outcome == "held":
        given = escape(printable(approve))
        yield f"[red]The hash that was given, {given}, is of something else.[/]"
    if report.skipped["special"]:
        yield f"[dim]{report.skipped['special']} special files (pipes, sockets) were left out.[/]"
    if report.skipped["links"]:
        yield f"[dim]{report.skipped['links']} symbolic links were left out.[/]"
    cost = f"{report.counts['requests']} requests, {seconds:.1f} s"
    done = counts_text(report.done, planned=False)
    right = "As planned:" if of_saved else "In sync:"
    match report.outcome:
        case "in-sync":
            yield f"[green]{right}[/] nothing had to be done ({cost})."
        case "changed":
            yield f"[green]{right}[/] {done} ({cost})."
        case "problems":
            count = len(report.problems)
            paths = "1 path is" if count == 1 else f"{count} paths are"
            yield f"[red]{paths} not in sync;[/] {done or 'nothing was done'} ({cost})."
        case "held":
            yield "[red]Held:[/] nothing was done."
        case "planned":
            if everything:
                yield f"[dim]Nothing was done: this was a dry run ({cost}).[/]"


def headline(mirror: str) -> str:
    """What stands above the report of one mirror of several, in rich markup."""
    return f"[bold]{escape(printable(mirror))}:[/]"


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """Every path that is not in sync, with its reason."""
    for problem in problems:
        yield f"[red]! {escape(shown(problem.path))}[/]  {escape(problem.message)}"


def hazard_lines(hazards: Sequence[Hazard], calls: Calls) -> Iterator[str]:
    """Why a plan is held, and the commands that show and approve it."""
    for hazard in hazards:
        yield f"[bold red]Held:[/] {escape(hazard.message)}"
    if hazards:
        if calls.plan:
            yield f"Look at the plan:    skynet plan --dry-run {escape(calls.plan)}"
        words = f"{calls.sync} --approve {hazards[0].approve}"
        yield f"If it is right, run: skynet sync --once {escape(words)}"


def saved_lines(report: Report, file: str, calls: Calls) -> Iterator[str]:
    """Where a plan was saved, and the command that carries it out."""
    yield f"Saved in {escape(file)}."
    if not report.hazards:
        yield f"To carry it out, run: skynet sync --once {escape(calls.sync)}"


def settings_text(keys: Iterable[tuple[str, str, str]]) -> str:
    """The guide to skynet.toml, in Markdown, from each key's name, meaning and default."""
    lines = ["# Settings", "", "For one mirror in `[mirror.NAME]`, for all in `[defaults]`."]
    for name, meaning, default in keys:
        lines += ["", f"- `{name}` ({default})", f"  {meaning}"]
    return "\n".join(lines) + "\n"


def report_json(mirror: str, report: Report, seconds: float, *, ops: bool) -> dict[str, Any]:
    """The object that `--json` prints. Paths are text, bytes that are none as lone surrogates."""
    return {
        "mirror": mirror,
        "outcome": report.outcome,
        "plan": _counts_json(report.plan.counts()),
        "done": _counts_json(report.done),
        **(_ops_json(report) if ops else {}),
        "sent_bytes": report.counts["bytes"],
        "requests": report.counts["requests"],
        "mutations": report.counts["mutations"],
        "problems": [
            {"path": _text(p.path), "code": p.code, "message": p.message} for p in report.problems
        ],
        "hazards": [_hazard_json(hazard) for hazard in report.hazards],
        "seconds": round(seconds, 3),
    }


def failure_json(
    mirror: str, error: SkynetError, seconds: float, until_then: BrokenOff | None = None
) -> dict[str, Any]:
    """The object that `--json` prints when the cycle could not go on, or did not begin."""
    planned, done, counts = until_then or (Counter[str](),) * 3
    report = Report("problems", Plan((), ()), done, [], [], counts)
    return {
        **report_json(mirror, report, seconds, ops=False),
        "outcome": "failed",
        "plan": _counts_json(planned),
        "error": {"code": error.code, "message": str(error)},
    }


def _counts_json(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in (*COUNTED, "bytes")}


def _hazard_json(hazard: Hazard) -> dict[str, str]:
    return {"code": hazard.code, "message": hazard.message, "approve": hazard.approve}


def _ops_json(report: Report) -> dict[str, Any]:
    cost = preview(report.plan, report.moved)
    spared = {"rename": cost.by_rename, "copy": cost.by_copy, "patch": cost.by_patch}
    return {
        "ops": [_op_json(op, report.moved) for op in report.plan.ops],
        "saved": spared,
        "round_trips": cost.trips,
    }


def _op_json(op: Op, moved: Mapping[bytes, Weight]) -> dict[str, Any]:
    return {
        "op": kind(op),
        "path": _text(op.path),
        "from": _text(op.source) if isinstance(op, Rename | Copy) else None,
        "bytes": tally([op])["bytes"],
        "saved": spares(op, moved),
    }


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
