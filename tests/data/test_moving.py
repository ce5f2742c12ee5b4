"""Batches that are read ahead are the same batches in the same order; errors come when their turn comes."""

import threading

import pytest
import torch

from apd_bench.data.moving import _pinned, ahead, moved


def read(place):
    return torch.full((2, 3), float(place))


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_order_and_content_are_those_of_reading_one_by_one(count):
    expected = [read(place) for place in range(count)]
    for found in (list(ahead(read, range(count))), list(moved(read, range(count), torch.device("cpu")))):
        assert len(found) == count
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_the_next_batch_is_read_while_one_is_in_use_and_no_other():
    begun = [threading.Event() for _ in range(4)]

    def noted(place):
        begun[place].set()
        return read(place)

    batches = ahead(noted, range(4))
    assert float(next(batches)[0, 0]) == 0
    assert begun[1].wait(30)
    assert not begun[2].is_set()
    assert [float(batch[0, 0]) for batch in batches] == [1, 2, 3]


def test_an_error_is_raised_when_its_turn_comes():
    def failing(place):
        if place == 1:
            raise ValueError("torn file")
        return read(place)

    batches = ahead(failing, range(3))
    assert float(next(batches)[0, 0]) == 0
    with pytest.raises(ValueError, match="torn file"):
        next(batches)


def test_on_a_cpu_nothing_is_read_ahead_and_no_thread_is_left_when_a_loop_ends_early():
    seen = []
    batches = moved(lambda place: seen.append(place) or read(place), range(3), torch.device("cpu"))
    assert seen == []
    next(batches)
    assert seen == [0]
    batches = ahead(read, range(5))
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("apd-bench-read")]
    there = torch.zeros(2, device="meta")
    assert _pinned(there) is there
