"""Plans and reports as text for people and as JSON for programs. Pure: values in, text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.markup import escape

from skynet.errors import Problem, SkynetError
from skynet.guard import Hazard
from skynet.ops import Delete, Mkdir, Op, Plan, Record, Rename, Rmdir, SetMeta, Upload, kind
from skynet.reconcile import Report
from skynet.rules import shown
from skynet.tree import LINK

COUNTED = ("upload", "patch", "copy", "rename", "delete", "mkdir", "rmdir", "setmeta")
SHOWN_AT_MOST = 40  # lines of one kind, unless all are asked for

_WORDS = {  # counted operation: of what, how it is told as a plan, and when it is done
    "upload": ("", "to upload", "uploaded"),
    "rename": ("", "to rename", "renamed"),
    "setmeta": ("", "to get other times or modes", "got other times or modes"),
    "delete": ("", "to delete", "deleted"),
    "mkdir": ("directory", "to make", "made"),
    "rmdir": ("directory", "to remove", "removed"),
    "record": ("", "right already", "right already"),
}
_SIGNS: tuple[tuple[type[Op], str, str], ...] = (
    (Rename, ">", "cyan"),
    (Mkdir, "+", "green"),
    (Upload, "+", "green"),
    (SetMeta, "~", "yellow"),
    (Record, "=", "dim"),
    (Delete, "-", "red"),
    (Rmdir, "-", "red"),
)


def size(count: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def plan_lines(report: Report, *, everything: bool) -> Iterator[str]:
    """A plan, renames first, in rich markup."""
    for op_type, sign, style in _SIGNS:
        if op_type is Record and not everything:
            continue
        ops = [op for op in report.plan.ops if type(op) is op_type]
        limit = len(ops) if everything else SHOWN_AT_MOST
        for op in ops[:limit]:
            yield f"[{style}]{sign} {escape(_op_text(op))}[/]"
        if len(ops) > limit:
            yield f"[dim]  ... and {len(ops) - limit} more like these (-v shows all)[/]"
    yield f"[bold]Plan:[/] {_counts_text(report.plan.counts(), planned=True) or 'nothing to do'}."


def _op_text(op: Op) -> str:
    path = shown(op.path)
    match op:
        case Rename(source=source):
            return f"{shown(source)} -> {path}  (no content sent)"
        case Upload(entry=entry, replaces=replaces):
            what = f"-> {shown(entry.link)}" if entry.kind == LINK else size(entry.size)
            return f"{path}  {what}{'' if replaces is None else ', replaces the old version'}"
        case Mkdir() | Rmdir():
            return f"{path}/"
        case SetMeta():
            return f"{path}  times or mode"
        case Record():
            return f"{path}  only noted"
        case _:
            return path


def _counts_text(counts: Counter[str], *, planned: bool) -> str:
    parts = []
    for name, (what, plan, past) in _WORDS.items():
        if counts[name]:
            noun = "" if not what else f" {what}" if counts[name] == 1 else " directories"
            extra = f" ({size(counts['bytes'])})" if name == "upload" else ""
            parts.append(f"{counts[name]}{noun} {plan if planned else past}{extra}")
    return ", ".join(parts)


def report_lines(report: Report, seconds: float, *, everything: bool, call: str) -> Iterator[str]:
    """What a cycle came to, in rich markup. call: the words that lead to this mirror again."""
    yield from problem_lines(report.problems)
    yield from hazard_lines(report.hazards, call)
    if report.skipped["special"]:
        yield f"[dim]{report.skipped['special']} special files (pipes, sockets) were left out.[/]"
    if report.skipped["links"]:
        yield f"[dim]{report.skipped['links']} symbolic links were left out.[/]"
    cost = f"{report.counts['requests']} requests, {seconds:.1f} s"
    done = _counts_text(report.done, planned=False)
    match report.outcome:
        case "in-sync":
            yield f"[green]In sync:[/] nothing had to be done ({cost})."
        case "changed":
            yield f"[green]In sync:[/] {done} ({cost})."
        case "problems":
            count = len(report.problems)
            paths = "1 path is" if count == 1 else f"{count} paths are"
            yield f"[red]{paths} not in sync;[/] {done or 'nothing was done'} ({cost})."
        case "held":
            yield "[red]Held:[/] nothing was done."
        case "planned":
            if everything:
                yield f"[dim]Nothing was done: this was a dry run ({cost}).[/]"


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """Every path that is not in sync, with its reason."""
    for problem in problems:
        yield f"[red]! {escape(shown(problem.path))}[/]  {escape(problem.message)}"


def hazard_lines(hazards: Sequence[Hazard], call: str) -> Iterator[str]:
    """Why a plan is held, and the commands that show and approve it."""
    for hazard in hazards:
        yield f"[bold red]Held:[/] {escape(hazard.message)}"
    if hazards:
        yield f"Look at the plan:    skynet plan --dry-run {escape(call)}"
        approve = f"--approve {hazards[0].approve}"
        yield f"If it is right, run: skynet sync --once {escape(call)} {approve}"


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
        **({"ops": [_op_json(op) for op in report.plan.ops]} if ops else {}),
        "sent_bytes": report.counts["bytes"],
        "requests": report.counts["requests"],
        "mutations": report.counts["mutations"],
        "problems": [
            {"path": _text(p.path), "code": p.code, "message": p.message} for p in report.problems
        ],
        "hazards": [h._asdict() for h in report.hazards],
        "seconds": round(seconds, 3),
    }


def failure_json(mirror: str, error: SkynetError, seconds: float) -> dict[str, Any]:
    """The object that `--json` prints when the cycle could not go on."""
    nothing = Report("problems", Plan((), ()), Counter(), [], [], Counter())
    return {
        **report_json(mirror, nothing, seconds, ops=False),
        "outcome": "failed",
        "error": {"code": error.code, "message": str(error)},
    }


def _counts_json(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in (*COUNTED, "bytes")}


def _op_json(op: Op) -> dict[str, Any]:
    return {
        "op": kind(op),
        "path": _text(op.path),
        "from": _text(op.source) if isinstance(op, Rename) else None,
        "bytes": op.entry.size if isinstance(op, Upload) else 0,
    }


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
