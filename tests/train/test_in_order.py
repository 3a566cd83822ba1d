import gc
import threading
import time
import weakref

import pytest

from train.streaming.in_order import in_order


class Thing:
    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_things_come_in_order_and_are_made_a_few_ahead(num_threads):
    asked: list[int] = []

    def items():
        for number in range(40):
            asked.append(number)
            yield number

    def make(number: int) -> Thing:
        time.sleep(0.001 * (number % 3))  # later ones are often done first
        return Thing(number)

    for expected, thing in enumerate(in_order(make, items(), num_threads)):
        assert thing.number == expected
        ahead = num_threads if num_threads > 1 else 0
        assert len(asked) == min(40, expected + 1 + ahead)
    assert len(asked) == 40


@pytest.mark.parametrize("num_threads", [1, 3])
def test_what_was_handed_over_is_not_held(num_threads):
    alive: list[weakref.ref[Thing]] = []
    for thing in in_order(Thing, range(10), num_threads):
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(thing))
        del thing
        deadline = time.monotonic() + 5  # the thread that made it lets go of it a moment later
        while alive[-1]() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
    gc.collect()
    assert len(alive) == 10


@pytest.mark.parametrize("num_threads", [1, 4])
def test_an_error_comes_in_its_place_and_ends_the_rest(num_threads):
    before = threading.active_count()

    def make(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    made = in_order(make, range(100), num_threads)
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="five"):
        next(made)
    assert list(made) == []
    assert threading.active_count() == before


@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("num_before", [0, 1, 7])
def test_an_error_of_the_items_comes_behind_all_that_was_made_of_those_before(
    num_threads, num_before
):
    def items():
        yield from range(num_before)
        raise ValueError("the next")

    made = in_order(lambda number: number, items(), num_threads)
    assert [next(made) for _ in range(num_before)] == list(range(num_before))
    with pytest.raises(ValueError, match="the next"):
        next(made)


def test_leaving_early_waits_for_what_is_being_made():
    done: list[int] = []

    def make(number: int) -> int:
        time.sleep(0.02)
        done.append(number)
        return number

    before = threading.active_count()
    made = in_order(make, range(100), 2)
    assert next(made) == 0
    made.close()
    seen = list(done)
    assert threading.active_count() == before
    time.sleep(0.05)
    assert done == seen
    assert len(done) <= 3
