"""Bars are dripped: each row has its own next bar, and nothing downstream holds a later one."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.market.bars import BarRows, FloatArray
from policyserver.pipelines.market.feed import BarFeed, EpisodeBars
from policyserver.pipelines.prices import PricesConfig, make_source

LENGTHS = (3, 400, 700)
"""Bars after the warm-up: less than a chunk of the feed, and more than one or two."""


def episode(seed: int, n_steps: int, warmup_bars: int = 2) -> EpisodeBars:
    rng = np.random.default_rng(seed)
    return EpisodeBars(np.arange(warmup_bars + n_steps), rng.uniform(1.0, 2.0, (warmup_bars + n_steps, 2, 5)), warmup_bars)


def columns(bar: BarRows) -> FloatArray:
    """The prices and volumes, (m, K, 5)."""
    return np.stack([bar.open, bar.high, bar.low, bar.close, bar.volume], axis=-1)


def test_every_bar_after_the_warm_up_comes_once_and_in_order_whatever_other_rows_do() -> None:
    episodes = [episode(seed, length) for seed, length in enumerate(LENGTHS)]
    feed, rng = BarFeed(3, 2), np.random.default_rng(0)
    for row, each in enumerate(episodes):
        feed.begin(row, each)
    dripped: list[list[FloatArray]] = [[], [], []]
    times: list[list[int]] = [[], [], []]
    while len(left := np.flatnonzero(feed.has_next(np.arange(3)))):
        rows = rng.permutation(left)[: rng.integers(1, len(left) + 1)]
        bar = feed.next(rows)
        for place, row in enumerate(rows.tolist()):
            dripped[row].append(columns(bar)[place])
            times[row].append(int(bar.time_ns[place]))
    for row, each in enumerate(episodes):
        np.testing.assert_array_equal(dripped[row], each.bars[2:])
        assert times[row] == each.time_ns[2:].tolist()


def test_a_row_that_begins_anew_has_the_new_bars() -> None:
    feed, first, second = BarFeed(1, 2), episode(1, 300), episode(2, 5, warmup_bars=4)
    feed.begin(0, first)
    for _ in range(260):
        feed.next(np.arange(1))
    feed.begin(0, second)
    assert [columns(feed.next(np.arange(1)))[0].tolist() for _ in range(5)] == second.bars[4:].tolist()


def test_a_bar_is_a_copy_that_leads_to_no_other() -> None:
    feed, each = BarFeed(1, 2), episode(1, 300)
    feed.begin(0, each)
    for _ in range(2):
        bar = feed.next(np.arange(1))
        for name in BarRows.__slots__:
            column = getattr(bar, name)
            while column is not None:
                assert column.size <= 2 * 5, f"{name} holds more than its bar"
                column = column.base
    assert not np.shares_memory(bar.close, each.bars)


@pytest.mark.parametrize("begun", [False, True])
def test_there_is_no_bar_after_the_last_and_none_before_an_episode_begins(begun: bool) -> None:
    feed = BarFeed(2, 2)
    if begun:
        feed.begin(1, episode(1, 300))
        for _ in range(300):
            feed.next(np.array([1]))
    assert not feed.has_next(np.array([1]))[0]
    with pytest.raises(ValueError, match="row 1: expected a next bar, received none"):
        feed.next(np.array([1]))


def test_the_first_action_of_a_simulated_episode_is_taken_at_the_last_warm_up_bar() -> None:
    (each,) = make_source(PricesConfig(bars_per_episode=3, warmup_bars=2), seed=1).episodes([5])
    assert (each.bars.n_steps, len(each.bars.time_ns), each.bars.warmup_bars) == (3, 5, 2)
    assert (each.symbols, each.number, each.id) == (("BBB",), 5, "BBB-5")


@pytest.mark.parametrize(
    ("shape", "warmup_bars", "message"),
    [
        ((5, 1, 4), 2, r"bars: expected 5 bars of K symbols and 5 columns, received \(5, 1, 4\)"),
        ((6, 1, 5), 2, r"bars: expected 5 bars"),
        ((5, 1, 5), 0, "warmup_bars: expected 1 to 4, received 0"),
        ((5, 1, 5), 5, "warmup_bars: expected 1 to 4, received 5"),
    ],
)
def test_bars_that_make_no_episode_are_refused(shape: tuple[int, ...], warmup_bars: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeBars(np.arange(5), np.ones(shape), warmup_bars)
