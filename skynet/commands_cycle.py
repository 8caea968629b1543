"""What `sync --once` and `plan` do with one mirror, and what they say of it.

Loaded while the server is connected: see commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from skynet.config import Mirror, Options
from skynet.console import Face
from skynet.cycle import Report, Request
from skynet.errors import ExitCode
from skynet.monitor import Monitor
from skynet.outline import plan_lines
from skynet.planfile import write
from skynet.reconcile import run_cycle
from skynet.remote import Remote
from skynet.render import Calls, report_json, report_lines, saved_lines
from skynet.wiring import surroundings

EXIT_CODES = {"problems": ExitCode.PROBLEMS, "held": ExitCode.HELD}  # of a report's outcome


def run(
    mirror: Mirror,
    connect: Callable[[], Remote],
    request: Request,
    monitor: Monitor,
    file: Path | None,
) -> Report:
    """One cycle; a plan that is to be saved is written to the file."""
    report = run_cycle(mirror, connect, request, surroundings(monitor))
    if file is not None and report.saved is not None:
        write(file, report.saved)
    return report


def tell(
    mirror: Mirror,
    options: Options,
    request: Request,
    report: Report,
    seconds: float,
    face: Face,
    file: Path | None,
) -> ExitCode:
    """Say what came of a mirror; the code to end with. file: where its plan was saved."""
    if face.as_json:
        face.print_json(report_json(mirror.name, report, seconds, ops=request.dry_run))
    else:
        calls = calls_of(mirror, options, request, file)
        _show(report, request, seconds, calls, face)
        if report.saved is not None:
            face.say(saved_lines(report, str(file), calls))
    return EXIT_CODES.get(report.outcome, ExitCode.IN_SYNC)


def calls_of(mirror: Mirror, options: Options, request: Request, file: Path | None) -> Calls:
    """The words, quoted for a shell, that make the same request of this mirror again.

    file: of a saved plan, which was shown just now, and says itself how it was made.
    """
    words = _words_for(mirror, options)
    limit = [] if options.bwlimit is None else ["--bwlimit", options.bwlimit]
    if file is not None:
        return Calls("", shlex.join([*words, *limit, "--plan", str(file)]))
    if request.adopt != "stat":
        words += ["--adopt", request.adopt]
    if not request.audit:
        words.append("--no-audit")
    return Calls(shlex.join(words), shlex.join([*words, *limit]))


def _words_for(mirror: Mirror, options: Options) -> list[str]:
    given = {
        "--config": options.config,
        "--source": options.source,
        "--target": options.target,
        "--identity": options.identity,
        "--known-hosts": options.known_hosts,
        "--state-dir": options.state_dir,
    }
    words = [] if options.source else [mirror.name]
    for option, value in given.items():
        if value is not None:
            words += [option, str(value)]
    if options.complete_sync is not None:
        words.append("--complete-sync" if options.complete_sync else "--no-complete-sync")
    return words


def _show(report: Report, request: Request, seconds: float, calls: Calls, face: Face) -> None:
    if request.dry_run or report.outcome == "held" or face.verbose:
        face.say(plan_lines(report, everything=face.verbose))
    lines = report_lines(
        report,
        seconds,
        everything=face.verbose,
        calls=calls,
        approve=request.approve,
        of_saved=request.saved is not None,
    )
    if report.outcome in ("problems", "held"):
        face.insist(lines)
    else:
        face.say(lines)
