"""Splits: no bar that an episode of training has seen or is judged by is seen by an episode of testing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.split import Cut, Fold, Reach, SplitConfig, cut, split
from policyserver.pipelines.market.windows import WindowLength, WindowsConfig, find_windows


def folds_of(times: IntArray, config: SplitConfig, reach: Reach) -> list[Fold]:
    return split(times, cut(int(times[0]), int(times[-1]), config), reach.purge_bars + config.embargo_bars)


def touched(rows: tuple[int, int], reach: Reach) -> set[int]:
    """Every bar that the actions are made of or judged by whose first bar is one of these rows."""
    return {bar for row in range(*rows) for bar in range(row - reach.window_bars, row + reach.label_bars)}


cuts: dict[str, Any] = {"train_fraction": st.floats(0.3, 0.8), "embargo_bars": st.integers(0, 5)}
configs = st.one_of(st.builds(SplitConfig, **cuts), st.builds(SplitConfig, folds=st.integers(2, 4), is_anchored=st.booleans(), **cuts))
steps = st.lists(st.sampled_from([60, 60, 60, 120, 3600]), min_size=150, max_size=400)


@pytest.mark.long
@given(steps=steps, window=st.integers(1, 20), label=st.integers(1, 10), config=configs)
def test_training_and_testing_share_no_bar(steps: list[int], window: int, label: int, config: SplitConfig) -> None:
    reach, times = Reach(window, label), np.cumsum(steps)
    folds = folds_of(times, config, reach)
    assert len(folds) == config.folds
    for fold in folds:
        assert not touched(fold.train, reach) & touched(fold.test, reach)
        assert 0 <= fold.train[0] <= fold.train[1] <= fold.test[0] <= fold.test[1] <= len(times)
    for before, after in itertools.pairwise(folds):
        assert before.test[1] == after.test[0], "every bar is tested once"
    assert folds[-1].test[1] == len(times)


@pytest.mark.long
@given(
    steps=steps,
    warmup=st.integers(1, 20),
    played=st.integers(1, 12),
    config=configs,
    windows=st.builds(
        WindowsConfig,
        order=st.sampled_from(["random", "sequential", "walk_forward"]),
        length=st.sampled_from(["", "20min"]),
        start=st.sampled_from(["any", "day"]),
    ),
)
def test_no_window_crosses_the_split_or_plays_the_purge(
    steps: list[int], warmup: int, played: int, config: SplitConfig, windows: WindowsConfig
) -> None:
    times = np.cumsum(steps) * 1_000_000_000
    length = WindowLength(warmup, played, 20 * 60_000_000_000 if windows.length else 0, 60_000_000_000)
    for fold in folds_of(times, config, Reach(warmup)):
        seen: dict[str, set[int]] = {"train": set(), "test": set()}
        for side in ("train", "test"):
            span = fold.of(side)
            table = find_windows(times, span, length, windows, is_test=side == "test")
            for first, stop in zip(table.first.tolist(), table.stop.tolist(), strict=True):
                assert span[0] <= first < stop <= span[1]
                seen[side] |= set(range(first - warmup, stop))
        assert not seen["train"] & seen["test"]
        assert not any(fold.train[1] <= row < fold.test[0] for row in seen["train"])


@pytest.mark.parametrize("reach", [Reach(1, 1), Reach(20, 1), Reach(1, 10), Reach(20, 10)])
def test_a_purge_that_is_a_bar_shorter_leaks(reach: Reach) -> None:
    """The wrong variant: the purge is not longer than it has to be."""
    (fold,) = folds_of(np.arange(500, dtype=np.int64), SplitConfig(), reach)
    longer = (fold.train[0], fold.train[1] + 1)
    assert touched(longer, reach) & touched(fold.test, reach)


def test_a_date_cuts_symbols_of_different_bars_at_one_time() -> None:
    config = SplitConfig(train_from="2024-01-02", test_from="2024-01-03", test_until="2024-01-04")
    cuts = cut(0, 1, config)
    assert [str(np.datetime64(time, "ns"))[:10] for time in (cuts[0].train_from, cuts[0].test_from, cuts[0].test_until)] == [
        "2024-01-02",
        "2024-01-03",
        "2024-01-04",
    ]
    for minutes in (60, 30, 7):
        times = np.arange("2024-01-01", "2024-01-05", np.timedelta64(minutes, "m"), dtype="M8[m]").astype("M8[ns]").astype(np.int64)
        (fold,) = split(times, cuts, 5)
        for row, time in ((fold.train[0], cuts[0].train_from), (fold.test[0], cuts[0].test_from), (fold.test[1], cuts[0].test_until)):
            assert times[row] >= time > times[row - 1]
        assert fold.train[1] == fold.test[0] - 5


def test_walking_forward_moves_by_the_time_tested() -> None:
    times = np.arange(1, 301, dtype=np.int64)
    config = SplitConfig(folds=3, train_fraction=0.5)
    assert cut(0, 299, config) == [Cut(0, 150, 200), Cut(50, 200, 250), Cut(100, 250, 300)]
    assert folds_of(times - 1, config, Reach(3, 2)) == [
        Fold((0, 146), (150, 200)),
        Fold((50, 196), (200, 250)),
        Fold((100, 246), (250, 300)),
    ]
    anchored = folds_of(times - 1, SplitConfig(folds=3, train_fraction=0.5, is_anchored=True), Reach(3, 2))
    assert [fold.train for fold in anchored] == [(0, 146), (0, 196), (0, 246)]


def test_a_symbol_that_lacks_a_part_has_no_rows_there() -> None:
    cuts = cut(0, 999, SplitConfig(train_fraction=0.5))
    assert split(np.arange(600, 700, dtype=np.int64), cuts, 10) == [Fold((0, 0), (0, 100))]
    assert split(np.arange(100, 200, dtype=np.int64), cuts, 10) == [Fold((0, 90), (100, 100))]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"test_from": "soon"}, "test_from: expected a date such as 2023-01-01, received 'soon'"),
        ({"folds": 3, "fold": 3}, "fold: expected 0 to 2, received 3"),
        ({"fold": 1}, "fold: expected 0 to 0, received 1"),
        ({"train_fraction": 1.0}, "train_fraction: expected more than 0 and less than 1, received 1.0"),
        ({"play": "all"}, r"play: expected train\|test\|both, received 'all'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_key_expected_and_received(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SplitConfig(**wrong)


def test_a_date_outside_the_bars_is_refused() -> None:
    first, last = (int(np.datetime64(date, "ns").astype(np.int64)) for date in ("2020-01-01", "2021-01-01"))
    with pytest.raises(ValueError, match="test_from: expected a time between 2020-01-01T00:00:00 and 2021-01-01T00:00:00, received 1980-"):
        cut(first, last, SplitConfig(test_from="1980-01-01"))
