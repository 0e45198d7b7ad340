"""Bars of paths: ranges of a Brownian path whatever the sub-steps, prices that hold together, volume that knows no later bar."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths, bars_from_paths
from policyserver.pipelines.market.processes.process import draw_bars
from tests.pipelines.market.processes.facts import Fact, from_groups, mutant, wrong_facts

VOLATILITY = 0.01


def brownian(n_rows: int, n_bars: int, steps_per_bar: int, seed: int = 1) -> tuple[Draws, LogPaths]:
    rng = np.random.default_rng(seed)
    draws, step_std = Draws([rng] * n_rows), VOLATILITY / math.sqrt(steps_per_bar)
    path = np.zeros((n_rows, n_bars * steps_per_bar + 1))
    np.cumsum(draws.normal(n_bars * steps_per_bar) * step_std, axis=1, out=path[:, 1:])
    return draws, LogPaths(path, np.full((n_rows, 1), step_std))


def parkinson(ranges: FloatArray) -> float:
    """The volatility that log ranges tell, as a share of the true one."""
    return float(np.sqrt(np.mean(ranges**2) / (4 * math.log(2)))) / VOLATILITY


def range_facts(make: Any, steps_per_bar: int, n_rows: int = 400) -> dict[str, Fact]:
    draws, paths = brownian(n_rows, 500, steps_per_bar)
    bars = make(draws, paths, steps_per_bar)
    above, below = np.log(bars.high / bars.open), np.log(bars.open / bars.low)
    # The high of a Brownian motion is distributed as the size of its end (reflection), and so is the low.
    mean, square = VOLATILITY * math.sqrt(2 / math.pi), VOLATILITY**2
    return {
        "parkinson": from_groups(parkinson, np.log(bars.high / bars.low), 1.0),
        "high": from_groups(lambda rows: float(rows.mean()), above, mean),
        "low": from_groups(lambda rows: float(rows.mean()), below, mean),
        "square of the high": from_groups(lambda rows: float(np.mean(rows**2)), above, square),
        "square of the low": from_groups(lambda rows: float(np.mean(rows**2)), below, square),
    }


@pytest.mark.long
def test_four_sub_steps_have_the_range_of_brownian_motion() -> None:
    assert wrong_facts(range_facts(bars_from_paths, 4)) == []


@pytest.mark.long
@pytest.mark.parametrize("steps_per_bar", [1, 2])
def test_fewer_sub_steps_have_its_highs_and_lows(steps_per_bar: int) -> None:
    facts = range_facts(bars_from_paths, steps_per_bar)
    assert set(wrong_facts(facts)) <= {"parkinson"}  # high and low of one sub-step are drawn apart
    assert facts["parkinson"].measured == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("squares + spread * draws.exponential(starts.shape[1])", "squares", "parkinson", id="no extremes between sub-steps"),
        pytest.param("2.0 * paths.step_std**2", "paths.step_std**2", "parkinson", id="half the variance"),
        pytest.param("2.0 * paths.step_std**2", "2.0 * paths.step_std", "parkinson", id="deviation taken as variance"),
        pytest.param("np.minimum, middles - distances()", "np.minimum, middles", "low", id="lows too high"),
    ],
)
def test_wrong_extremes_are_found(old: str, new: str, fact: str) -> None:
    assert fact in wrong_facts(range_facts(mutant("path_bars", old, new).bars_from_paths, 4, 40))


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["gbm", "abm", "ou", "merton", "heston", "garch", "regimes"]),
    n_bars=st.integers(1, 40),
    steps_per_bar=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_bars_of_any_process_hold_together(name: str, n_bars: int, steps_per_bar: int, seed: int) -> None:
    process = PROCESSES.make(name, "process")
    bars = draw_bars(process, [np.random.default_rng([seed, row]) for row in range(3)], n_bars, steps_per_bar)[1]
    assert bars.close.shape == (3, n_bars)
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(np.maximum(bars.open, bars.close) <= bars.high)
    assert np.all(bars.low > 0)
    assert np.all(np.isfinite(bars.high))
    assert np.all(bars.volume > 0)
    assert np.array_equal(bars.open[:, 1:], bars.close[:, :-1])
    row = bars.row(1, np.arange(n_bars))
    assert row.close.tolist() == bars.close[1].tolist()


@pytest.mark.parametrize("volatility", [1e-12, 3.0])
def test_bars_hold_together_where_rounding_is_all_there_is_or_prices_fly(volatility: float) -> None:
    prior = {"low": volatility, "high": volatility}
    process = PROCESSES.make({"name": "gbm", "volatility": prior}, "process")
    bars = draw_bars(process, [np.random.default_rng(row) for row in range(20)], 10, 4)[1]
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(np.maximum(bars.open, bars.close) <= bars.high)


def volumes(make: Any, path: FloatArray) -> FloatArray:
    step_std = np.full((1, 1), VOLATILITY / 2)
    volume: FloatArray = make(Draws([np.random.default_rng(2)]), LogPaths(path[np.newaxis], step_std), 4).volume[0]
    return volume


def later_bars_change(make: Any) -> bool:
    """Tell whether a wild second half of a path changes the volumes of its calm first half."""
    calm = brownian(1, 100, 4)[1].log_price[0]
    wild = np.concatenate((calm[:201], calm[200] + 50 * (calm[201:] - calm[200])))
    first, second = volumes(make, calm), volumes(make, wild)
    assert second[50] > first[50]
    return not np.array_equal(first[:50], second[:50])


def test_the_volume_of_a_bar_knows_no_later_bar() -> None:
    assert not later_bars_change(bars_from_paths)


def test_volume_that_knows_later_bars_is_found() -> None:
    changed = mutant("path_bars", "np.cumsum(ranges, axis=1) / np.arange(1, n_bars + 1)", "ranges.mean(axis=1, keepdims=True) + 0 * ranges")
    assert later_bars_change(changed.bars_from_paths)


def test_volume_grows_with_the_range() -> None:
    draws, paths = brownian(500, 100, 4)
    bars = bars_from_paths(draws, paths, 4)
    measured = np.corrcoef(np.log(bars.high / bars.low).ravel(), np.log(bars.volume).ravel())[0, 1]
    assert 0.4 < measured < 0.8
