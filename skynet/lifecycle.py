"""The life of a mirror in the daemon: (state, event) -> (state, command), as one table. Pure.

What is not in the table changes nothing: an event that comes too late, or twice, does no harm.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """As `skynet status` tells it."""

    STARTING = "starting"
    SCANNING = "scanning"
    SYNCING = "syncing"
    IDLE = "idle"
    OFFLINE = "offline"
    HELD = "held"
    PAUSED = "paused"
    STOPPING = "stopping"


class Event(StrEnum):
    """What can happen.

    BEGUN: the source is watched. SCAN_DUE, DIRTY: everything, or what is marked, is to be looked
    at. DONE, QUESTION: a cycle has ended; in the second case a person must agree to something.
    LOST: there is no connection, or none that can be used. REFUSED: trying again soon cannot help.
    RETRY: it is time to try again, or at rest to connect anew, for the link may be dead.
    """

    BEGUN = "begun"
    CONNECTED = "connected"
    SCAN_DUE = "scan-due"
    DIRTY = "dirty"
    DONE = "done"
    QUESTION = "question"
    LOST = "lost"
    REFUSED = "refused"
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class Command(StrEnum):
    """What is to be done now. END: leave in order; QUIT: at once."""

    CONNECT = "connect"
    SCAN = "scan"
    SYNC = "sync"
    WAIT = "wait"
    BACK_OFF = "back-off"
    BACK_OFF_LONG = "back-off-long"
    DISCONNECT = "disconnect"
    END = "end"
    QUIT = "quit"


S, E, C = State, Event, Command
_AT_ANY_TIME = {
    E.LOST: (S.OFFLINE, C.BACK_OFF),
    E.REFUSED: (S.OFFLINE, C.BACK_OFF_LONG),
    E.PAUSE: (S.PAUSED, C.DISCONNECT),
    E.STOP: (S.STOPPING, C.END),
}
_AT_REST = _AT_ANY_TIME | {
    E.SCAN_DUE: (S.SCANNING, C.SCAN),
    E.DIRTY: (S.SYNCING, C.SYNC),
    E.RETRY: (S.OFFLINE, C.CONNECT),
}
_AT_WORK = _AT_ANY_TIME | {
    E.DONE: (S.IDLE, C.WAIT),
    E.QUESTION: (S.HELD, C.WAIT),
}
TABLE: dict[State, dict[Event, tuple[State, Command]]] = {
    S.STARTING: {
        E.BEGUN: (S.OFFLINE, C.CONNECT),
        E.PAUSE: (S.PAUSED, C.DISCONNECT),
        E.STOP: (S.STOPPING, C.END),
    },
    S.OFFLINE: _AT_ANY_TIME
    | {
        E.RETRY: (S.OFFLINE, C.CONNECT),
        E.CONNECTED: (S.IDLE, C.WAIT),
    },
    S.IDLE: _AT_REST,
    S.HELD: _AT_REST,
    S.SCANNING: _AT_WORK,
    S.SYNCING: _AT_WORK,
    S.PAUSED: {
        E.RESUME: (S.OFFLINE, C.CONNECT),
        E.STOP: (S.STOPPING, C.END),
    },
    S.STOPPING: {E.STOP: (S.STOPPING, C.QUIT)},
}


def follow(state: State, event: Event) -> tuple[State, Command | None]:
    """The next state, and what is to be done; None where the event changes nothing."""
    return TABLE[state].get(event, (state, None))
