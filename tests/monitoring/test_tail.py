"""A tail keeps the newest rows up to its capacity, and its last tenth is that of all rows there were."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.monitoring.tail import Tail


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 1_024, 1_025, 5_000, 50_000])
def test_the_last_tenth_is_that_of_all_rows_whatever_their_number(count: int) -> None:
    tail = Tail(("number", "square"), capacity=8_192)
    numbers = np.arange(count, dtype=float)
    for start in range(0, count, 700):
        tail.extend([(number, number**2) for number in numbers[start : start + 700]])
    wanted = numbers[count - max(round(count / 10), min(count, 1)) :]
    last = tail.last(0.1)
    assert tail.count == count
    assert np.array_equal(last["number"], wanted)
    assert np.array_equal(last["square"], wanted**2)


def test_no_more_than_the_capacity_is_kept() -> None:
    tail = Tail(("number",), capacity=2_000)
    for start in range(0, 10_000, 500):
        tail.extend([(float(number),) for number in range(start, start + 500)])
    assert np.array_equal(tail.last(1.0)["number"], np.arange(8_000.0, 10_000.0))
