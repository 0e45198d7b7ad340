"""The window of an episode is a function of the seed and its number, and every order keeps its promise."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.pipelines.market.windows import WindowsConfig, WindowTable
from policyserver.pipelines.prices.window_order import Place, WindowOrder

SEQUENTIAL, RANDOM = WindowsConfig(order="sequential"), WindowsConfig()


def table(*begins: int) -> WindowTable:
    begin = np.array(sorted(begins), dtype=np.int64)
    return WindowTable(begin + 1, begin + 5, begin, len(begin), {})


def order(folds: list[list[WindowTable]], config: WindowsConfig, seed: int = 0, *, is_test: bool = False) -> WindowOrder:
    return WindowOrder(folds, [f"S{line}" for line in range(len(folds[0]))], config, seed, is_test=is_test)


tables = st.lists(
    st.lists(st.sets(st.integers(0, 60), max_size=8).map(lambda begins: table(*begins)), min_size=3, max_size=3).filter(
        lambda lines: any(map(len, lines))
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.long
@settings(deadline=None)
@given(folds=tables, is_test=st.booleans(), rounds=st.integers(1, 3))
def test_sequential_plays_each_window_once_a_round_in_the_order_of_time(folds: list[list[WindowTable]], is_test: bool, rounds: int) -> None:
    for config in (SEQUENTIAL, WindowsConfig(order="walk_forward")):
        if config is SEQUENTIAL or is_test:
            count = sum(len(each) for lines in folds for each in lines)
            played = [order(folds, config, is_test=is_test).place(number) for number in range(count * rounds)]
            windows = {
                (fold, line, place) for fold, lines in enumerate(folds) for line, each in enumerate(lines) for place in range(len(each))
            }
            for start in range(0, len(played), count):
                assert set(played[start : start + count]) == windows
            moments = [(fold, int(folds[fold][line].begin_ns[place]), line) for fold, line, place in played[:count]]
            assert moments == sorted(moments)


@pytest.mark.long
@settings(deadline=None, max_examples=50)
@given(
    folds=tables,
    seed=st.integers(0, 2**40),
    config=st.sampled_from([SEQUENTIAL, RANDOM, WindowsConfig(order="walk_forward", fold_episodes=7)]),
)
def test_neither_the_order_of_asking_nor_what_was_asked_changes_an_answer(
    folds: list[list[WindowTable]], seed: int, config: WindowsConfig
) -> None:
    numbers = list(range(60))
    expected = [order(folds, config, seed).place(number) for number in numbers]
    random.Random(1).shuffle(numbers)
    shared = order(folds, config, seed)
    assert [shared.place(number) for number in numbers] == [expected[number] for number in numbers]
    assert order(folds, config, seed).place(59) == expected[59], "a resumed run goes on with the same windows"


@pytest.mark.long
def test_any_threads_give_the_same_windows() -> None:
    shared = order([[table(*range(40)), table(*range(9))]], RANDOM, 5)
    alone = [shared.place(number) for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.place, range(400))) == alone
    assert [order([[table(*range(40)), table(*range(9))]], RANDOM, 6).place(number) for number in range(400)] != alone


@pytest.mark.long
def test_random_windows_are_drawn_uniformly_and_symbols_have_equal_turns() -> None:
    """Chi-square of n cells has mean n - 1 and variance 2 (n - 1): five standard deviations above is one chance in 100,000 or so."""
    lines = [table(*range(20)), table(), table(*range(50))]
    places = [order([lines], RANDOM, 3).place(number) for number in range(20_000)]
    assert Counter(line for _, line, _ in places) == {0: 10_000, 2: 10_000}
    for line, cells in ((0, 20), (2, 50)):
        counts = np.bincount([place for _, at, place in places if at == line], minlength=cells)
        statistic = float(((counts - 10_000 / cells) ** 2).sum() / (10_000 / cells))
        assert statistic < cells - 1 + 5 * np.sqrt(2 * (cells - 1))
        wrong = counts + np.where(np.arange(cells) % 2, 60, -60)  # the wrong variant: every other window more often
        assert float(((wrong - 10_000 / cells) ** 2).sum() / (10_000 / cells)) > cells - 1 + 5 * np.sqrt(2 * (cells - 1))


@pytest.mark.long
def test_a_round_goes_through_a_universe_of_any_number_of_symbols() -> None:
    lines = [table(*range(symbol % 3)) for symbol in range(500)]
    places = [order([lines], RANDOM).place(number) for number in range(333)]
    assert sorted(line for _, line, _ in places) == [symbol for symbol in range(500) if symbol % 3]


def test_walking_forward_trains_on_a_fold_for_its_episodes_and_stays_with_the_last() -> None:
    folds = [[table(*range(5))], [table(*range(5))], [table(*range(5))]]
    config = WindowsConfig(order="walk_forward", fold_episodes=4)
    assert [order(folds, config).place(number)[0] for number in range(14)] == [0] * 4 + [1] * 4 + [2] * 6
    tested: list[Place] = [order(folds, config, is_test=True).place(number) for number in range(16)]
    assert [fold for fold, _, _ in tested] == [0] * 5 + [1] * 5 + [2] * 5 + [0]


@pytest.mark.parametrize("config", [SEQUENTIAL, RANDOM])
def test_numbers_far_beyond_any_round_have_windows(config: WindowsConfig) -> None:
    fold, line, place = order([[table(1, 2, 3)]], config).place(10**15)
    assert (fold, line) == (0, 0)
    assert 0 <= place < 3
