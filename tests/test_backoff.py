"""Backoff: ever longer, never beyond the cap, never in step, and short again when it worked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skynet.backoff import Backoff


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_each_wait_is_between_half_and_all_of_twice_the_last(numbers: list[float]) -> None:
    given_numbers = iter(numbers)
    backoff = Backoff(1.0, 60.0, lambda: next(given_numbers))
    for tries in range(len(numbers)):
        longest = min(60.0, 2.0**tries)
        assert longest / 2 <= backoff.next() <= longest


def test_a_month_of_outage_does_no_harm() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    assert [backoff.next() for _ in range(100_000)][-1] == 60.0


def test_many_clients_do_not_come_at_once() -> None:
    waits = {Backoff(60.0, 600.0, lambda n=n: n / 100).next() for n in range(100)}  # type: ignore[misc]  # a default binds n now
    assert len(waits) == 100


def test_when_it_worked_the_shortest_wait_comes_first() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next() == 1.0
