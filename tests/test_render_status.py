"""What a daemon does and has done, as people and programs see it: values in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.text import Text

from skynet.history import Record
from skynet.render_status import (
    Place,
    ago,
    answer_line,
    log_json,
    log_lines,
    span,
    status_json,
    status_lines,
)
from skynet.status import Held, Seen, Status, Transfer
from tests.support.statuses import HELD, NOW, PID, TRANSFERS, status

PLACE = Place("photos", "/data/photos", "sftp://me@host/srv/photos", "photos -c 'my file'")

HEAD = """
  source     /data/photos
  target     sftp://me@host/srv/photos
"""
AT_REST = f"""{HEAD}  server     me@host:22 (OpenSSH_9.2)
  watching   native
  to do      nothing
  last sync  3 min ago"""


def plain(lines: Iterable[str]) -> str:
    """The lines as a terminal shows them; markup that does not parse is an error."""
    return "\n".join(Text.from_markup(line, emoji=False).plain for line in lines)


def told(seen: Status | None, holder: int | None = PID) -> str:
    return plain(status_lines(PLACE, Seen(seen, holder), NOW))


# One golden text for each state: (changes of an idle daemon's status, what is shown).
GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({}, f"photos: idle, in sync for 3 min{AT_REST}"),
    (
        {"state": "starting", "server": "", "since": NOW - 2, "watch": "", "last_sync": 0.0}
        | {"backlog_is_whole": True},
        f"""photos: starting for 2 s{HEAD}  server     not connected
  to do      everything is to be looked at
  last sync  never""",
    ),
    (
        {"state": "scanning", "doing": "comparing", "since": NOW - 61, "updated": NOW - 1}
        | {"backlog_is_whole": True},
        f"photos: scanning (comparing) for 1 min{AT_REST}".replace(
            "nothing", "everything is to be looked at"
        ),
    ),
    (
        {"state": "syncing", "doing": "transferring", "since": NOW - 12, "updated": NOW}
        | {"backlog_files": 1200, "backlog_bytes": 3_400_000_000, "transfers": TRANSFERS},
        f"photos: syncing (transferring) for 12 s{AT_REST}".replace(
            "nothing",
            """1,200 files, 3.4 GB
    video/clip.mov              ####......  45% of 1.0 GB  5.0 MB/s  1 min left
    ...onglonglonglonglong.mov  ..........   0% of 2.0 MB  0 B/s""",
        ),
    ),
    (
        {"state": "offline", "offline": "host refused the connection"}
        | {"next_try": NOW + 42, "backlog_files": 1, "backlog_bytes": 10},
        f"""photos: offline for 3 min{HEAD}  server     not connected: host refused the connection
  next try   in 42 s
  watching   native
  to do      1 file, 10 B
  last sync  3 min ago""",
    ),
    (
        {"state": "held", "held": HELD},
        f"""photos: held for 3 min{AT_REST}
  Held: 120 of 130 entries would be deleted.
    Delete
      - old/  120 files, 3.4 GB
    ... and 7 lines more
  If it is right, run: skynet approve 0123456789ab photos -c 'my file'""",
    ),
    (
        {"state": "paused", "backlog_files": 2, "backlog_bytes": 2000},
        f"photos: paused for 3 min{AT_REST}".replace("nothing", "2 files, 2.0 kB"),
    ),
    (
        {"state": "syncing", "backlog_files": 2},
        f"photos: syncing for 3 min{AT_REST}".replace("nothing", "2 files"),
    ),
    ({"state": "stopping"}, f"photos: stopping for 3 min{AT_REST}"),
    (
        {"problems": [("a [b]/c", "refused", "Permission denied")], "problem_count": 1001},
        f"""photos: idle for 3 min{AT_REST}
  ! a [b]/c  Permission denied
  ! 1,000 paths more are not in sync""",
    ),
]


@pytest.mark.parametrize(("changes", "text"), GOLDEN)
def test_each_state_is_told(changes: dict[str, Any], text: str) -> None:
    assert told(status(**changes)) == text


NOT_RUNNING: list[tuple[Status | None, int | None, str, str]] = [
    (None, None, "no daemon runs", ""),
    (None, 12, "no daemon tells of it; process 12 works on it", ""),
    (None, 0, "no daemon tells of it; a process works on it", ""),
    (status(), 12, "no daemon runs; process 12 works on it", "  last sync  3 min ago\n"),
    (
        *(status(state="stopping", updated=NOW - 7200), None),
        *("no daemon runs; the last one ended 2 h ago", "  last sync  3 min ago\n"),
    ),
    (
        *(status(state="syncing", transfers=TRANSFERS, held=HELD, backlog_files=3), None),
        "the daemon has died (process 4711, last heard of 3 min ago)",
        "  last sync  3 min ago\n",
    ),
]


@pytest.mark.parametrize(("last", "holder", "words", "more"), NOT_RUNNING)
def test_a_daemon_that_does_not_run_is_not_told_as_alive(
    last: Status | None, holder: int | None, words: str, more: str
) -> None:
    assert told(last, holder) + "\n" == f"photos: {words}{HEAD}{more}"
    as_json = status_json(PLACE, Seen(last, holder))
    assert (as_json["running"], as_json["in_sync"]) == (False, False)
    assert set(as_json) == {
        *("mirror", "source", "target", "running", "in_sync", "state", "last_sync")
    }


IN_SYNC: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"state": "paused"}, True),
    ({"last_sync": 0.0}, False),
    ({"backlog_files": 1}, False),
    ({"backlog_is_whole": True}, False),
    ({"problem_count": 1}, False),
    ({"held": HELD}, False),
    *[
        ({"state": state}, False)
        for state in ("starting", "scanning", "syncing", "offline", "held", "stopping")
    ],
]


@pytest.mark.parametrize(("changes", "in_sync"), IN_SYNC)
def test_in_sync_is_said_of_a_daemon_at_rest_only(changes: dict[str, Any], in_sync: bool) -> None:
    one = status(**changes)
    assert one.is_in_sync is in_sync
    assert status_json(PLACE, Seen(one, PID))["in_sync"] is in_sync
    assert ("in sync for" in told(one)) is (in_sync and one.state == "idle")


def test_the_object_of_a_status() -> None:
    one = status(
        state="syncing",
        transfers=TRANSFERS[:1],
        problems=[("a", "refused", "No")],
        problem_count=2,
        held=HELD,
        backlog_files=3,
        backlog_bytes=4,
    )
    found = json.loads(json.dumps(status_json(PLACE, Seen(one, PID))))
    assert found["backlog"] == {"files": 3, "bytes": 4, "is_whole": False}
    assert found["transfers"] == [
        {"path": "video/clip.mov", "sent": 450_000_000, "total": 1_000_000_000, "rate": 5e6}
    ]
    assert found["problems"] == [{"path": "a", "code": "refused", "message": "No"}]
    assert (found["problem_count"], found["next_try"], found["pid"]) == (2, None, PID)
    assert found["held"]["hazards"] == [
        {"code": "mass-delete", "message": "120 of 130 entries would be deleted."}
    ]


# Whatever a path, a server or a file says.

NASTY = ["[red]", "[/]", "[bold", "a\\", ":warning:", "\x1b[2J", "a\nb", "\u202e", "\r"]


@pytest.mark.parametrize("text", NASTY)
def test_text_from_outside_is_shown_and_not_obeyed(text: str) -> None:
    one = status(
        server=text,
        doing=text,
        watch=text,
        transfers=[Transfer(text, 1, 2, 3.0)],
        problems=[(text, text, text)],
        held=Held(text, [(text, text)], [text], 0),
    )
    place = Place(text, text, text, "photos")
    lines = [
        *status_lines(place, Seen(one, PID), NOW),
        *status_lines(place, Seen(status(server="", offline=text), PID), NOW),
        *log_lines(text, Record(ended=NOW, seconds=1, outcome=text, error=text, ops=[text]), UTC),
        answer_line(text, text),
    ]
    shown = plain(lines).splitlines()
    assert len(shown) == len(lines)
    assert all(line.isprintable() for line in shown)
    visible = text if text.isprintable() else ascii(text)[1:-1]
    assert "\\\\" not in "".join(shown)  # a backslash stays one
    assert [line.split()[0] for line in shown if visible not in line] == [
        *("to", "last", "watching", "to", "last")
    ]


@example(seconds=0, rate=5e-324, sent=0, total=1)
@given(st.floats(-10, 1e12), st.floats(0, 1e12), st.integers(0), st.integers(0))
def test_numbers_make_no_status_fail(seconds: float, rate: float, sent: int, total: int) -> None:
    one = status(
        since=NOW - seconds,
        updated=NOW + seconds,
        last_sync=NOW - seconds,
        next_try=NOW + seconds,
        transfers=[Transfer("a", sent % 10**15, total % 10**15, rate)],
        backlog_bytes=total % 10**15,
    )
    assert told(one)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(-5, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min")],
        *[(3600, "1 h"), (172_799, "47 h"), (172_800, "2 days"), (1e8, "1,157 days")],
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert ago(seconds) == ("just now" if seconds < 1 else f"{text} ago")


# The history.


def test_cycles_are_told() -> None:
    done = Record(
        ended=NOW,
        seconds=2.04,
        outcome="changed",
        done={"upload": 12, "rename": 1, "bytes": 3_100_000},
        ops=["+ a [b].jpg"],
        more=12,
    )
    failed = Record(
        ended=NOW, seconds=60, outcome="failed", problems=1, error="link-lost: It broke."
    )
    assert plain(log_lines("", done, UTC)) == (
        "2023-11-14 22:13:20  changed: 12 uploaded (3.1 MB), 1 renamed (2.0 s)\n"
        "    + a [b].jpg\n"
        "    ... and 12 more"
    )
    assert plain(log_lines("photos", failed, UTC)) == (
        "2023-11-14 22:13:20  photos: failed: nothing was done, 1 path not in sync (60.0 s)\n"
        "    Error: link-lost: It broke."
    )
    assert log_json("photos", done) == {
        "mirror": "photos",
        "ended": NOW,
        "seconds": 2.04,
        "outcome": "changed",
        "done": {"upload": 12, "rename": 1, "bytes": 3_100_000},
        "problems": 0,
        "error": "",
        "ops": ["+ a [b].jpg"],
        "more": 12,
    }
