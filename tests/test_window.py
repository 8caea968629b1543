"""The window of a channel: shrinks when the server refuses to open files, and grows again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skynet.sftp.window import Window


def filled(most: int, weights: list[int]) -> Window[str]:
    window: Window[str] = Window(most)
    for weight in weights:
        window.enter(weight)
    return window


def test_there_is_room_up_to_the_size() -> None:
    window = filled(3, [1, 1])
    assert window.has_room
    window.enter(1)
    assert not window.has_room


def test_whoever_is_refused_waits_for_another_to_end_and_the_window_shrinks() -> None:
    window = filled(8, [1] * 8)
    assert window.refuse("seventh", 1)
    assert window.refuse("eighth", 1)
    assert window.size == 6
    assert window.leave(1) == "seventh"
    assert window.leave(1) == "eighth"
    assert window.leave(1) is None


def test_the_last_one_does_not_wait() -> None:
    window = filled(8, [1])
    assert not window.refuse("alone", 1)
    assert window.size == 8


def test_not_all_of_them_wait() -> None:
    window = filled(8, [1, 1, 1])
    assert [window.refuse(str(n), 1) for n in range(3)] == [True, True, False]


def test_the_window_grows_to_what_it_was_when_nothing_is_refused() -> None:
    window = filled(100, [1] * 100)
    for number in range(90):
        window.refuse(str(number), 1)
    for _ in range(100):
        window.leave(1)
    assert window.size <= 12
    for _ in range(2000):
        window.enter(1)
        window.leave(1)
    assert window.size == 100


def test_a_narrowed_window_does_not_grow_beyond() -> None:
    window: Window[str] = Window(100)
    window.narrow(-3)
    assert window.size == 1
    for _ in range(10):
        window.enter(1)
        window.leave(1)
    assert window.size == 1


@given(st.lists(st.sampled_from(["enter", "refuse", "leave"])), st.integers(1, 10))
def test_whoever_waits_is_named_before_the_last_has_left(acts: list[str], most: int) -> None:
    window: Window[int] = Window(most)
    running, waiting, number = 0, 0, 0
    for act in acts:
        if act == "enter" and window.has_room:
            window.enter(1)
            running += 1
        elif act == "refuse" and running > waiting:
            number += 1
            waiting += window.refuse(number, 1)
        elif act == "leave" and running > waiting:
            named = window.leave(1)
            running -= 1
            assert (named is not None) == (waiting > 0)
            waiting -= named is not None
        assert 1 <= window.size <= most
        assert waiting == 0 or running > waiting
