"""Work in the background comes back in order, errors included."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from shelfwise.pipelines.crew import Crew


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize("hands", [1, 3])
def test_results_come_in_the_order_of_their_items(hands: int) -> None:
    with closing(Crew([slow_square] * hands)) as crew:
        assert list(crew.each(range(20))) == [(i, i * i) for i in range(20)]


def test_the_next_item_is_at_work_while_the_last_result_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def begin(number: int) -> int:
        begun[number].set()
        return number

    with closing(Crew([begin])) as crew:
        each = crew.each(range(3))
        assert next(each) == (0, 0)
        assert begun[1].wait(10)


def test_an_error_comes_where_its_result_would() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    got = []
    with closing(Crew([fail_at_two])) as crew, pytest.raises(ValueError, match="two"):
        for pair in crew.each(range(5)):
            got.append(pair)
    assert got == [(0, 0), (1, 1)]


@pytest.mark.parametrize("fails", [True, False])
def test_nothing_is_begun_after_an_error_or_the_end(fails: bool) -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def begin(number: int) -> int:
        begun.append(number)
        go_on.wait(10)
        if fails:
            raise ValueError("no")
        return number

    crew: Crew[int, int] = Crew([begin])
    each = crew.each(range(5))
    said: list[object] = []

    def ask() -> None:
        try:
            said.append(next(each))
        except ValueError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while not begun:
        time.sleep(0.001)
    if not fails:
        crew.close()
    go_on.set()
    asking.join(10)
    crew.close()
    time.sleep(0.05)
    assert begun == [0]
    assert said == ["no" if fails else (0, 0)]


def test_results_before_an_error_of_the_items_are_not_lost() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the file ends here")

    got = []
    with closing(Crew([slow_square] * 2)) as crew, pytest.raises(OSError, match="ends here"):
        for pair in crew.each(items()):
            got.append(pair)
    assert got == [(0, 0), (1, 1), (2, 4)]
