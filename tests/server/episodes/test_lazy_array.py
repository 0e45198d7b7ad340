"""An arena costs the memory that is written and gives back what is released; a free list hands out no number twice."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.server.episodes.lazy_array import LazyArray, LazyTable
from tests.server.anonymous_memory import anonymous_mb


@pytest.mark.long
def test_an_arena_costs_what_is_written_and_gives_back_what_is_released() -> None:
    before = anonymous_mb()
    lazy = LazyArray(1_000_000, (256,), np.float32)
    assert lazy.array.shape == (1_000_000, 256)
    assert anonymous_mb() - before < 20
    lazy.array[:100_000] = 1.0
    assert anonymous_mb() - before > 90
    lazy.release(0, 100_000)
    assert anonymous_mb() - before < 20
    assert not lazy.array[:100_000].any()


def test_a_release_leaves_the_neighbours_alone() -> None:
    lazy = LazyArray(3000, (3,), np.float32)
    lazy.array[:] = 7.0
    lazy.release(1000, 1000)
    assert (lazy.array[:1000] == 7.0).all()
    assert (lazy.array[2000:] == 7.0).all()
    assert set(np.unique(lazy.array[1000:2000]).tolist()) <= {0.0, 7.0}
    assert (lazy.array[1000:2000] == 0.0).mean() > 0.5


def test_an_arena_of_empty_rows_is_possible() -> None:
    assert LazyArray(10, (0,), np.float32).array.shape == (10, 0)


def test_numbers_are_unique_while_in_use_and_run_out_at_the_capacity() -> None:
    free = LazyTable(5)
    assert [free.take() for _ in range(7)] == [0, 1, 2, 3, 4, None, None]
    assert (free.used, free.touched) == (5, 5)
    free.give(3)
    assert (free.take(), free.take()) == (3, None)


def test_trim_forgets_the_unused_upper_end_only() -> None:
    free = LazyTable(10)
    for _ in range(8):
        free.take()
    for number in (7, 2, 5, 6):
        free.give(number)
    assert free.trim() == (5, 3)
    assert free.used == 4
    assert [free.take() for _ in range(2)] == [2, 5]
    assert free.trim() == (6, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_free_list_never_hands_a_number_out_twice(seed: int) -> None:
    random, free, used = np.random.default_rng(seed), LazyTable(50), set[int]()
    for _ in range(2000):
        if used and random.random() < 0.5:
            number = int(random.choice(list(used)))
            used.remove(number)
            free.give(number)
        elif (taken := free.take()) is not None:
            assert taken not in used
            used.add(taken)
        else:
            assert len(used) == 50
        if random.random() < 0.05:
            first, count = free.trim()
            assert not used & set(range(first, first + count))
        assert free.used == len(used)


def test_a_reservation_far_beyond_the_memory_costs_nothing_until_it_is_written() -> None:
    lazy = LazyArray(100_000, (66, 84, 84, 3), np.float32)
    assert lazy.array.nbytes > 500e9
    lazy.array[70_000, 65] = 1.0
    assert float(lazy.array[70_000, 65].sum()) == 84 * 84 * 3
    with pytest.raises(MemoryError, match=r"lower episodes\.max_open"):
        LazyArray(2**40, (2**10,), np.float64)
