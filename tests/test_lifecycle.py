"""The life cycle: every event is decided in every state, and no sequence of events gets stuck."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest

from skynet.lifecycle import TABLE, Command, Event, State, follow

S, E, C = State, Event, Command

# What a keeper can tell next, in whatever state, after it was told to do this.
RESULTS: dict[Command, set[Event]] = {
    C.CONNECT: {E.CONNECTED, E.LOST, E.REFUSED},
    C.SCAN: {E.DONE, E.QUESTION, E.LOST, E.REFUSED, E.PAUSE, E.STOP},
    C.SYNC: {E.DONE, E.QUESTION, E.LOST, E.REFUSED, E.PAUSE, E.STOP},
    C.WAIT: {E.SCAN_DUE, E.DIRTY, E.RETRY, E.LOST, E.REFUSED, E.PAUSE, E.STOP},
    C.BACK_OFF: {E.RETRY, E.PAUSE, E.STOP},
    C.BACK_OFF_LONG: {E.RETRY, E.PAUSE, E.STOP},
    C.DISCONNECT: {E.RESUME, E.STOP},
}
ENDS = {C.END, C.QUIT}
FIRST = {E.BEGUN, E.PAUSE}
PAIRS = list(product(State, Event))


def lives() -> set[tuple[State, Command]]:
    """All that a keeper can be at: its state, and what it was told last."""
    found: set[tuple[State, Command]] = set()
    new = [follow(S.STARTING, event) for event in FIRST]
    while new:
        state, command = new.pop()
        assert command is not None
        if (state, command) not in found:
            found.add((state, command))
            new += [follow(state, event) for event in RESULTS.get(command, ())]
    return found


def reached(start: tuple[State, Command], events: Iterable[Event]) -> set[State]:
    """The states that some sequence of these events leads to."""
    events = set(events)
    found, new = {start}, [start]
    while new:
        state, told = new.pop()
        for event in RESULTS.get(told, set()) & events:
            then, command = follow(state, event)
            assert command is not None
            if (then, command) not in found:
                found.add((then, command))
                new.append((then, command))
    return {state for state, _ in found}


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_decided(state: State, event: Event) -> None:
    then, command = follow(state, event)
    assert (command is not None) == (event in TABLE[state])
    assert command is not None or then == state


@pytest.mark.parametrize("state", State)
def test_stop_leads_to_the_end_from_everywhere(state: State) -> None:
    then, command = follow(state, E.STOP)
    assert then == S.STOPPING
    assert command == (C.QUIT if state == S.STOPPING else C.END)


def test_whatever_a_command_comes_to_is_in_the_table() -> None:
    for state, command in lives():
        missing = RESULTS.get(command, set()) - TABLE[state].keys()
        assert not missing, (state, command)


def test_every_state_is_lived_in() -> None:
    assert {state for state, _ in lives()} == set(State) - {S.STARTING}


def test_no_sequence_of_events_gets_stuck() -> None:
    good = {E.CONNECTED, E.RETRY, E.RESUME, E.DONE, E.SCAN_DUE, E.DIRTY}
    for at in lives():
        if at[1] not in ENDS:
            assert S.STOPPING in reached(at, Event), at
            assert {S.SCANNING, S.SYNCING, S.IDLE} <= reached(at, good), at


def test_nothing_but_a_person_ends_a_pause() -> None:
    for event in set(Event) - {E.RESUME, E.STOP}:
        assert follow(S.PAUSED, event) == (S.PAUSED, None)


def test_who_was_refused_does_not_come_back_soon() -> None:
    for state in (S.OFFLINE, S.IDLE, S.HELD, S.SCANNING, S.SYNCING):
        assert follow(state, E.REFUSED) == (S.OFFLINE, C.BACK_OFF_LONG)
        assert follow(state, E.LOST) == (S.OFFLINE, C.BACK_OFF)


def test_who_is_at_rest_can_connect_anew_at_once() -> None:
    for state in (S.IDLE, S.HELD):
        assert follow(state, E.RETRY) == (S.OFFLINE, C.CONNECT)


def test_after_the_end_there_is_nothing() -> None:
    for event in set(Event) - {E.STOP}:
        assert follow(S.STOPPING, event) == (S.STOPPING, None)
