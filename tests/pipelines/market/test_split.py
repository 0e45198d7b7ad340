"""Splits: no bar that a training decision has seen or learnt from is seen by a test decision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.pipelines.market.split import Fold, Reach, SplitConfig, split


def touched(rows: tuple[int, int], reach: Reach) -> set[int]:
    """Every bar that the decisions at these rows are made of or judged by."""
    return {bar for row in range(*rows) for bar in range(row - reach.window_bars + 1, row + reach.label_bars + 1)}


@given(
    n_bars=st.integers(150, 400),
    window=st.integers(1, 20),
    label=st.integers(1, 10),
    config=st.one_of(
        st.builds(SplitConfig, method=st.just("once"), train_fraction=st.floats(0.3, 0.8), embargo_bars=st.integers(0, 5)),
        st.builds(
            SplitConfig,
            method=st.just("walk_forward"),
            train_bars=st.integers(5, 50),
            test_bars=st.integers(5, 40),
            is_anchored=st.booleans(),
            embargo_bars=st.integers(0, 5),
        ),
    ),
)
def test_training_and_testing_share_no_bar(n_bars: int, window: int, label: int, config: SplitConfig) -> None:
    reach = Reach(window, label)
    folds = split(np.arange(n_bars, dtype=np.int64) * 60, config, reach)
    for fold in folds:
        assert not touched(fold.train, reach) & touched(fold.test, reach)
        assert 0 <= fold.train[0] < fold.train[1] <= fold.test[0] < fold.test[1] <= n_bars
    for before, after in itertools.pairwise(folds):
        assert before.test[1] == after.test[0], "every bar is tested once"


@pytest.mark.parametrize("reach", [Reach(1, 1), Reach(20, 1), Reach(1, 10), Reach(20, 10)])
def test_a_purge_that_is_a_bar_shorter_leaks(reach: Reach) -> None:
    """The wrong variant: the purge is not longer than it has to be."""
    fold = split(np.arange(500, dtype=np.int64), SplitConfig("once"), reach)[0]
    longer = (fold.train[0], fold.train[1] + 1)
    assert touched(longer, reach) & touched(fold.test, reach)


def test_a_date_cuts_symbols_of_different_bars_at_one_time() -> None:
    config = SplitConfig("once", test_from="2024-01-03")
    reach = Reach(5, 1)
    for minutes in (60, 30, 7):
        times = np.arange("2024-01-01", "2024-01-05", np.timedelta64(minutes, "m"), dtype="M8[m]").astype("M8[ns]").astype(np.int64)
        fold = split(times, config, reach)[0]
        cut = np.datetime64("2024-01-03", "ns").astype(int)
        assert times[fold.test[0]] >= cut > times[fold.test[0] - 1]


def test_walking_forward_moves_by_the_bars_tested() -> None:
    config = SplitConfig("walk_forward", train_bars=100, test_bars=50)
    folds = split(np.arange(300, dtype=np.int64), config, Reach(3, 2))
    assert folds == [Fold((0, 100), (104, 154)), Fold((50, 150), (154, 204)), Fold((100, 200), (204, 254))]
    anchored = split(
        np.arange(300, dtype=np.int64), SplitConfig("walk_forward", train_bars=100, test_bars=50, is_anchored=True), Reach(3, 2)
    )
    assert [fold.train for fold in anchored] == [(0, 100), (0, 150), (0, 200)]


def test_none_trains_on_all() -> None:
    assert split(np.arange(10, dtype=np.int64), SplitConfig(), Reach(3, 1)) == [Fold((0, 10), (10, 10))]


@pytest.mark.parametrize("config", [SplitConfig("once"), SplitConfig("walk_forward"), SplitConfig("once", test_from="1980-01-01")])
def test_too_few_bars_are_refused_with_the_purge(config: SplitConfig) -> None:
    with pytest.raises(ValueError, match="split: expected bars for training, a purge of 30 bars and testing, received 20 bars"):
        split(np.arange(20, dtype=np.int64), config, Reach(30, 1))


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="test_from: expected a date such as 2023-01-01"):
        SplitConfig("once", test_from="soon")
