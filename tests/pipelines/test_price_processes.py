"""Simulated prices follow the law of their process in mean, variance and autocorrelation, and their bars hold together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.price_processes import GbmConfig, LogPathProcess, OuConfig, autoregressive_path, bars_from_path

Z = 4.0
"""Bound of every statistical check in standard errors; seeds are fixed, so a check that passes goes on passing."""


def log_paths(process: LogPathProcess, n_episodes: int, n_bars: int, steps_per_bar: int = 1, seed: int = 1) -> FloatArray:
    """Log-prices at the bars' closes, (n_episodes, n_bars + 1)."""
    rng = np.random.default_rng(seed)
    return np.array(
        [
            process.log_path(rng, process.draw_parameters(rng), n_bars * steps_per_bar, steps_per_bar)[::steps_per_bar]
            for _ in range(n_episodes)
        ]
    )


def gbm(volatility: float, price_drift: float = 0.0) -> GbmConfig:
    return GbmConfig(start_price=Prior.fixed(100.0), price_drift=Prior.fixed(price_drift), volatility=Prior.fixed(volatility))


def ou(reversion: float, volatility: float) -> OuConfig:
    return OuConfig(mean_price=Prior.fixed(100.0), reversion=Prior.fixed(reversion), volatility=Prior.fixed(volatility))


@pytest.mark.parametrize("steps_per_bar", [1, 5])
def test_gbm_returns_are_independent_normal_with_the_exact_mean_and_variance(steps_per_bar: int) -> None:
    drift, volatility = 0.001, 0.02
    returns = np.diff(log_paths(gbm(volatility, drift), 400, 200, steps_per_bar)).ravel()
    n = len(returns)
    assert abs(returns.mean() - (drift - volatility**2 / 2)) < Z * volatility / math.sqrt(n)
    assert abs(returns.var() / volatility**2 - 1) < Z * math.sqrt(2 / n)
    assert abs(stats.kurtosis(returns)) < Z * math.sqrt(24 / n)
    assert abs(stats.skew(returns)) < Z * math.sqrt(6 / n)
    for series in (returns, np.abs(returns)):
        assert abs(np.corrcoef(series[:-1], series[1:])[0, 1]) < Z / math.sqrt(n)


def test_gbm_price_is_a_martingale_by_default_with_the_log_normal_variance() -> None:
    volatility, n_bars, n = 0.01, 100, 20_000
    ratio = np.exp(np.diff(log_paths(gbm(volatility), n, n_bars)[:, [0, -1]])[:, 0])
    variance = math.expm1(volatility**2 * n_bars)
    assert abs(ratio.mean() - 1.0) < Z * math.sqrt(variance / n)
    assert abs(ratio.var() / variance - 1) < Z * math.sqrt((stats.kurtosis(ratio) + 2) / n)


def test_gbm_price_drift_is_the_growth_of_the_expected_price() -> None:
    drift, n_bars, n = 0.002, 50, 20_000
    ratio = np.exp(np.diff(log_paths(gbm(0.01, drift), n, n_bars)[:, [0, -1]])[:, 0])
    assert abs(ratio.mean() - math.exp(drift * n_bars)) < Z * ratio.std() / math.sqrt(n)


@pytest.mark.parametrize("steps_per_bar", [1, 5])
def test_ou_log_price_is_stationary_with_the_exact_mean_and_variance(steps_per_bar: int) -> None:
    reversion, volatility, n = 0.05, 0.01, 8000
    paths = log_paths(ou(reversion, volatility), n, 40, steps_per_bar)
    variance = volatility**2 / (2 * reversion)
    for bar in (0, 1, 40):
        assert abs(paths[:, bar].mean() - math.log(100.0)) < Z * math.sqrt(variance / n)
        assert abs(paths[:, bar].var() / variance - 1) < Z * math.sqrt(2 / n)


@pytest.mark.parametrize("steps_per_bar", [1, 5])
def test_ou_autocorrelation_decays_by_exp_of_the_reversion_so_that_half_is_gone_at_the_half_life(steps_per_bar: int) -> None:
    reversion, n = 0.05, 8000
    paths = log_paths(ou(reversion, 0.01), n, 40, steps_per_bar)
    half_life = math.log(2) / reversion
    for lag in (1, 5, round(half_life), 40):
        expected = math.exp(-reversion * lag)
        measured = np.corrcoef(paths[:, 0], paths[:, lag])[0, 1]
        assert abs(measured - expected) < Z * (1 - expected**2) / math.sqrt(n)
    assert math.exp(-reversion * half_life) == pytest.approx(0.5)


def test_ou_returns_are_as_predictable_as_theory_says() -> None:
    reversion, n = 0.05, 8000
    paths = log_paths(ou(reversion, 0.01), n, 20) - math.log(100.0)
    levels, returns = paths[:, :-1].ravel(), np.diff(paths).ravel()
    forecast = -(1 - math.exp(-reversion)) * levels
    measured = 1 - np.mean((returns - forecast) ** 2) / np.mean(returns**2)
    assert measured == pytest.approx((1 - math.exp(-reversion)) / 2, abs=Z * 2 * math.sqrt(0.025 / len(returns)))


@given(
    rate=st.floats(1e-4, 50.0),
    start=st.floats(-10, 10),
    noise=st.lists(st.floats(-1, 1), max_size=200),
)
def test_autoregressive_path_is_the_recursion(rate: float, start: float, noise: list[float]) -> None:
    expected = [start]
    for shock in noise:
        expected.append(math.exp(-rate) * expected[-1] + shock)
    np.testing.assert_allclose(autoregressive_path(start, rate, np.array(noise)), expected, rtol=1e-9, atol=1e-9)


@given(
    process=st.sampled_from(["gbm", "ou"]),
    volatility=st.floats(1e-5, 0.3),
    reversion=st.floats(1e-3, 2.0),
    n_bars=st.integers(1, 50),
    steps_per_bar=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_bars_of_any_process_hold_together(
    process: str, volatility: float, reversion: float, n_bars: int, steps_per_bar: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    law: LogPathProcess = gbm(volatility) if process == "gbm" else ou(reversion, volatility)
    path = law.log_path(rng, law.draw_parameters(rng), n_bars * steps_per_bar, steps_per_bar)
    bars = bars_from_path(rng, path, steps_per_bar, start_time_ns=10, interval_ns=5)
    assert len(bars) == n_bars
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(np.maximum(bars.open, bars.close) <= bars.high)
    assert np.all(bars.low > 0)
    assert np.all(bars.volume > 0)
    assert np.array_equal(bars.open[1:], bars.close[:-1])
    assert bars.time_ns.tolist() == [10 + 5 * (i + 1) for i in range(n_bars)]
    np.testing.assert_array_equal(bars.close, np.exp(path[steps_per_bar::steps_per_bar]))


def test_the_range_of_finely_stepped_bars_agrees_with_the_volatility() -> None:
    volatility, rng = 0.01, np.random.default_rng(3)
    law = gbm(volatility)
    path = law.log_path(rng, law.draw_parameters(rng), 4000 * 200, 200)
    bars = bars_from_path(rng, path, 200, 0, 1)
    parkinson = math.sqrt(np.mean(np.log(bars.high / bars.low) ** 2) / (4 * math.log(2)))
    assert 0.92 * volatility < parkinson < 1.0 * volatility  # biased low: 200 sub-steps miss the extremes between them


def test_a_process_with_a_prior_that_reaches_zero_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"reversion: expected more than 0 and at most 30, received Prior\(low=0"):
        OuConfig(reversion=Prior(0.0, 0.1))
    with pytest.raises(ValueError, match=r"volatility: expected more than 0"):
        GbmConfig(volatility=Prior(-1.0, 0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OuConfig(reversion=Prior.fixed(800.0)), r"reversion: expected more than 0 and at most 30, received Prior\(low=800"),
        (lambda: OuConfig(mean_price=Prior.fixed(1e308)), r"mean_price: expected at least 1e-15 and at most 1e\+15"),
        (lambda: GbmConfig(start_price=Prior.fixed(1e-300)), r"start_price: expected at least 1e-15 and at most 1e\+15"),
    ],
)
def test_a_parameter_whose_paths_no_float_can_hold_is_refused_by_name(make: Callable[[], LogPathProcess], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_volume_of_a_bar_knows_no_later_bar() -> None:
    calm = gbm(0.01).log_path(np.random.default_rng(1), {"start_price": 100.0, "price_drift": 0.0, "volatility": 0.01}, 400, 4)
    wild = np.concatenate((calm[:201], calm[200] + 50 * (calm[201:] - calm[200])))
    volumes = [bars_from_path(np.random.default_rng(2), path, 4, 0, 1).volume for path in (calm, wild)]
    np.testing.assert_array_equal(volumes[0][:50], volumes[1][:50])
    assert volumes[1][50] > volumes[0][50]
