"""What a daemon does and has done, as text for people and as JSON. Pure: values in, text out.

All text of a status or a history comes out of files and from servers, so it is escaped here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

import msgspec

from skynet.history import Record
from skynet.markup import escape
from skynet.outline import counts_text, size
from skynet.status import Held, Seen, Status, Transfer
from skynet.target import printable

BAR_COLUMNS = 10
NAME_COLUMNS = 26  # of a file on its way, so that bars stand below each other

_STYLES = {"idle": "green", "offline": "red", "held": "bold red", "paused": "yellow"}


class Place(NamedTuple):
    """A mirror as the command line knows it. call: the words that lead to it, for a shell."""

    mirror: str
    source: str
    target: str
    call: str


# For people ---------------------------------------------------------------------------------


def status_lines(place: Place, seen: Seen, now: float) -> Iterator[str]:
    """What a mirror's daemon does, in rich markup. now: unix seconds."""
    status = seen.alive
    name = f"[bold]{_safe(place.mirror)}:[/]"
    if status is None:
        yield f"{name} [red]{_not_running(seen, now)}[/]"
    else:
        yield f"{name} {_state(status, now)}"
    yield _fact("source", place.source)
    yield _fact("target", place.target)
    if status is not None:
        yield from _alive_lines(status, place, now)
    elif seen.status is not None:
        yield _fact("last sync", _last_sync(seen.status, now))


def _not_running(seen: Seen, now: float) -> str:
    if seen.holder is not None:
        process = f"process {seen.holder}" if seen.holder else "a process"
        # A daemon whose disk is full cannot tell that it runs.
        fact = "no daemon tells of it" if seen.status is None else "no daemon runs"
        return f"{fact}; {process} works on it"
    if seen.status is None:
        return "no daemon runs"
    last = ago(now - seen.status.updated)
    if seen.status.state == "stopping":
        return f"no daemon runs; the last one ended {last}"
    return f"the daemon has died (process {seen.status.pid}, last heard of {last})"


def _state(status: Status, now: float) -> str:
    doing = f" ({_safe(status.doing)})" if status.doing else ""
    if status.is_in_sync and status.state == "idle":
        text = "[green]idle, in sync[/]"
    else:
        text = f"[{_STYLES.get(status.state, 'cyan')}]{escape(printable(status.state))}[/]{doing}"
    return f"{text} for {span(now - status.since)}"


def _alive_lines(status: Status, place: Place, now: float) -> Iterator[str]:
    yield _fact("server", _server(status))
    if status.next_try:
        yield _fact("next try", f"in {span(status.next_try - now)}")
    if status.watch:
        yield _fact("watching", status.watch)
    yield _fact("to do", _backlog(status))
    for transfer in status.transfers:
        yield f"    {_transfer(transfer)}"
    yield _fact("last sync", _last_sync(status, now))
    yield from _problem_lines(status)
    if status.held is not None:
        yield from _held_lines(status.held, place)


def _server(status: Status) -> str:
    if status.offline:
        return f"not connected: {status.offline}"
    return status.server or "not connected"


def _backlog(status: Status) -> str:
    if status.backlog_is_whole:
        return "everything is to be looked at"
    if not status.has_backlog:
        return "nothing"
    files = "1 file" if status.backlog_files == 1 else f"{status.backlog_files:,} files"
    return f"{files}, {size(status.backlog_bytes)}" if status.backlog_bytes else files


def _transfer(transfer: Transfer) -> str:
    share = min(transfer.sent / transfer.total, 1.0) if transfer.total else 1.0
    filled = int(share * BAR_COLUMNS)
    bar = "#" * filled + "." * (BAR_COLUMNS - filled)
    left = max(transfer.total - transfer.sent, 0)
    eta = f"  {span(left / transfer.rate)} left" if transfer.rate >= 1 and left else ""
    name = printable(transfer.path)
    if len(name) > NAME_COLUMNS:
        name = "..." + name[3 - NAME_COLUMNS :]
    numbers = f"{share:4.0%} of {size(transfer.total)}  {size(transfer.rate)}/s{eta}"
    return escape(f"{name:<{NAME_COLUMNS}}  {bar} {numbers}")


def _last_sync(status: Status, now: float) -> str:
    return ago(now - status.last_sync) if status.last_sync else "never"


def _problem_lines(status: Status) -> Iterator[str]:
    for path, _, message in status.problems:
        yield f"  [red]! {_safe(path)} [/] {_safe(message)}"
    more = status.problem_count - len(status.problems)
    if more > 0:
        yield f"  [red]! {more:,} paths more are not in sync[/]"


def _held_lines(held: Held, place: Place) -> Iterator[str]:
    for _, message in held.hazards:
        yield f"  [bold red]Held:[/] {_safe(message)}"
    for line in held.plan:
        yield f"    {_safe(line)}"
    if held.more > 0:
        yield f"    [dim]... and {held.more:,} lines more[/]"
    words = f"{printable(held.approve)} {place.call}".rstrip()
    yield f"  If it is right, run: skynet approve {escape(words)}"


def answer_line(mirror: str, words: str) -> str:
    """What a daemon says of a command that it obeyed, in rich markup."""
    return f"{_safe(mirror)}: {_safe(words)}"


def log_lines(mirror: str, record: Record, zone: tzinfo | None) -> Iterator[str]:
    """What a cycle came to, in rich markup. mirror: "" if it goes without saying.

    zone: that of the time shown; None for this machine's.
    """
    when = datetime.fromtimestamp(record.ended, zone).strftime("%Y-%m-%d %H:%M:%S")
    what = counts_text(Counter(record.done), planned=False) or "nothing was done"
    style = "green" if record.outcome in ("in-sync", "changed") else "red"
    name = f"{_safe(mirror)}: " if mirror else ""
    problems = f", {_paths(record.problems)} not in sync" if record.problems else ""
    yield (
        f"{when}  {name}[{style}]{_safe(record.outcome)}:[/] {what}{problems} "
        f"({record.seconds:.1f} s)"
    )
    if record.error:
        yield f"    [red]Error:[/] {_safe(record.error)}"
    for line in record.ops:
        yield f"    {_safe(line)}"
    if record.more > 0:
        yield f"    [dim]... and {record.more:,} more[/]"


def _paths(count: int) -> str:
    return "1 path" if count == 1 else f"{count:,} paths"


def _fact(label: str, text: str) -> str:
    return f"  {label:<9}  {_safe(text)}"


def _safe(text: str) -> str:
    """Text from outside, as markup that shows it and does nothing. No tag may stand behind it.

    `escape` doubles a backslash at the end, for a tag that might, and without one two are shown.
    """
    return escape(printable(text) + " ")[:-1]


def ago(seconds: float) -> str:
    """How long ago something was, in words."""
    return f"{span(seconds)} ago" if seconds >= 1 else "just now"


def span(seconds: float) -> str:
    """A time in the largest unit that it fills, rounded down; a time below 0 is 0."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "days" else 1):
            return f"{int(seconds // length):,} {unit}"
    return f"{int(max(seconds, 0))} s"


# For programs -------------------------------------------------------------------------------


def status_json(place: Place, seen: Seen) -> dict[str, Any]:
    """The object that `skynet status --json` prints. Times are unix seconds, null for none.

    Of a daemon that does not run, only the time of the last sync is told.
    """
    status = seen.alive
    past = status or seen.status
    found: dict[str, Any] = {
        "mirror": place.mirror,
        "source": place.source,
        "target": place.target,
        "running": status is not None,
        "in_sync": status is not None and status.is_in_sync,
        "state": status.state if status else "not-running",
        "last_sync": (past.last_sync or None) if past else None,
    }
    return found | (_alive_json(status) if status else {})


def _alive_json(status: Status) -> dict[str, Any]:
    return {
        "pid": status.pid,
        "version": status.version,
        "since": status.since,
        "updated": status.updated,
        "doing": status.doing,
        "server": status.server,
        "offline": status.offline,
        "next_try": status.next_try or None,
        "watch": status.watch,
        "backlog": {
            "files": status.backlog_files,
            "bytes": status.backlog_bytes,
            "is_whole": status.backlog_is_whole,
        },
        "transfers": msgspec.to_builtins(status.transfers),
        "problems": [
            {"path": path, "code": code, "message": message}
            for path, code, message in status.problems
        ],
        "problem_count": status.problem_count,
        "held": _held_json(status.held),
    }


def _held_json(held: Held | None) -> dict[str, Any] | None:
    if held is None:
        return None
    hazards = [{"code": code, "message": message} for code, message in held.hazards]
    return {"approve": held.approve, "hazards": hazards, "plan": held.plan, "more": held.more}


def log_json(mirror: str, record: Record) -> dict[str, Any]:
    """The object that `skynet log --json` prints for a cycle: the mirror, and the record."""
    return {"mirror": mirror, **msgspec.to_builtins(record)}
