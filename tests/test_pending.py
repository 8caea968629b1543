"""A request that a server leaves out is found, whatever else it answers, and in whatever order."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from skynet.sftp.conversation import Talk
from skynet.sftp.pending import Asked, Pending

ASKED: Asked = (cast("Talk", None), 0, False, 0)


def asked(count: int) -> Pending:
    pending = Pending()
    pending.update((number, ASKED) for number in range(count))
    return pending


def test_a_request_is_left_out_from_when_a_later_one_is_answered() -> None:
    pending = asked(3)
    assert [pending.passed_over_for(now, 3) for now in (0.0, 100.0)] == [0.0, 0.0]
    del pending[2]
    assert [pending.passed_over_for(now, 3) for now in (200.0, 207.0)] == [0.0, 7.0]
    del pending[0]
    assert [pending.passed_over_for(now, 3) for now in (208.0, 300.0)] == [0.0, 0.0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50))
def test_answers_in_the_order_of_the_requests_leave_out_none(answers: list[int]) -> None:
    pending = asked(1)
    count, now = 1, 0.0
    for number in answers:
        for _ in range(number):
            pending[count] = ASKED
            count += 1
            del pending[next(iter(pending))]
        now += 100.0
        assert pending.passed_over_for(now, count) == 0.0


def test_a_server_without_anything_to_answer_leaves_out_none() -> None:
    pending = asked(0)
    assert [pending.passed_over_for(now, 9) for now in (0.0, 100.0)] == [0.0, 0.0]
