"""Measures of equity and returns are empyrical's to 1e-12, row by row, and NaN where they are not defined."""

from __future__ import annotations

import math
from collections.abc import Callable

import empyrical
import numpy as np
import pytest

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.truth import metrics
from policyserver.pipelines.market.truth.ragged import ratio

PERIODS = 365

Measure = Callable[[FloatArray], FloatArray]
Oracle = Callable[[FloatArray], float]

OF_EQUITY: dict[str, tuple[Measure, Oracle]] = {
    "total_return": (metrics.total_return, empyrical.cum_returns_final),
    "annual_return": (lambda e: metrics.annual_return(e, PERIODS), lambda r: empyrical.annual_return(r, annualization=PERIODS)),
    "volatility": (lambda e: metrics.volatility(_returns(e), PERIODS), lambda r: empyrical.annual_volatility(r, annualization=PERIODS)),
    "sharpe_ratio": (lambda e: metrics.sharpe_ratio(_returns(e), PERIODS), lambda r: empyrical.sharpe_ratio(r, annualization=PERIODS)),
    "sortino_ratio": (lambda e: metrics.sortino_ratio(_returns(e), PERIODS), lambda r: empyrical.sortino_ratio(r, annualization=PERIODS)),
    "max_drawdown": (metrics.max_drawdown, lambda r: -empyrical.max_drawdown(r)),
    "calmar_ratio": (lambda e: metrics.calmar_ratio(e, PERIODS), lambda r: empyrical.calmar_ratio(r, annualization=PERIODS)),
    "value_at_risk": (lambda e: metrics.value_at_risk(_returns(e)), empyrical.value_at_risk),
    "conditional_value_at_risk": (lambda e: metrics.conditional_value_at_risk(_returns(e)), empyrical.conditional_value_at_risk),
    "tail_ratio": (lambda e: metrics.tail_ratio(_returns(e)), empyrical.tail_ratio),
}

# Slips that a reader would not see, by the measure that they spoil.
WRONG: dict[str, tuple[str, Measure]] = {
    "population deviation": ("volatility", lambda e: np.nanstd(_returns(e), axis=1) * math.sqrt(PERIODS)),
    "deviation times the periods": ("volatility", lambda e: metrics.volatility(_returns(e), PERIODS) * math.sqrt(PERIODS)),
    "log-returns": ("sharpe_ratio", lambda e: metrics.sharpe_ratio(np.diff(np.log(e), axis=1), PERIODS)),
    "downside of the losing bars alone": ("sortino_ratio", lambda e: _sortino_of_losses(_returns(e))),
    "peaks without the first mark": ("max_drawdown", lambda e: metrics.max_drawdown(e[:, 1:])),
    "mean return of a year": ("annual_return", lambda e: np.nanmean(_returns(e), axis=1) * PERIODS),
    "deviation for drawdown": ("calmar_ratio", lambda e: metrics.annual_return(e, PERIODS) / metrics.volatility(_returns(e), PERIODS)),
    "the lowest quantile that was seen": ("value_at_risk", lambda e: np.nanquantile(_returns(e), 0.05, axis=1, method="lower")),
    "value at risk": ("conditional_value_at_risk", lambda e: metrics.value_at_risk(_returns(e))),
    "signed tails": ("tail_ratio", lambda e: -metrics.tail_ratio(_returns(e))),
    "the last column": ("total_return", lambda e: e[:, -1] / e[:, 0] - 1.0),
}


def _returns(equity: FloatArray) -> FloatArray:
    return metrics.simple_returns(equity)


def _sortino_of_losses(returns: FloatArray) -> FloatArray:
    squares = np.nansum(np.square(np.minimum(returns, 0.0)), axis=1) / np.maximum(np.count_nonzero(returns < 0, axis=1), 1)
    return ratio(np.nanmean(returns, axis=1), np.sqrt(squares)) * math.sqrt(PERIODS)


@pytest.fixture(scope="module")
def equity() -> FloatArray:
    """Return 40 episodes of 2 to 400 bars; some begin with their largest loss."""
    rng = np.random.default_rng(12)
    returns = rng.standard_t(4, (40, 400)) * 0.01 + 0.0005
    returns[::8, 0] = -0.5
    marks = 10_000.0 * np.concatenate((np.ones((40, 1)), np.cumprod(1.0 + returns, axis=1)), axis=1)
    ends = rng.integers(2, 401, 40)
    ends[:5] = (400, 400, 2, 3, 21)
    return np.where(np.arange(401) <= ends[:, None], marks, np.nan)


def expected(oracle: Oracle, equity: FloatArray) -> FloatArray:
    rows = [row[~np.isnan(row)] for row in equity]
    return np.array([oracle(row[1:] / row[:-1] - 1.0) for row in rows])


@pytest.mark.parametrize("name", OF_EQUITY)
def test_a_measure_is_empyricals(name: str, equity: FloatArray) -> None:
    measure, oracle = OF_EQUITY[name]
    theirs = expected(oracle, equity)
    theirs[np.isinf(theirs)] = np.nan
    assert np.count_nonzero(~np.isnan(theirs)) >= 35
    np.testing.assert_allclose(measure(equity), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slip", WRONG)
def test_a_slip_would_be_seen(slip: str, equity: FloatArray) -> None:
    name, wrong = WRONG[slip]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong(equity), expected(OF_EQUITY[name][1], equity), rtol=1e-12, atol=1e-12)


def test_drawdowns_last_from_the_peak_to_the_mark_before_the_recovery() -> None:
    equity = np.array(
        [
            [100.0, 90.0, 95.0, 100.0, 99.0, 120.0],
            [100.0, 101.0, 102.0, 103.0, 104.0, 105.0],
            [100.0, 101.0, 99.0, 98.0, 97.0, 96.0],
            [100.0, 99.0, 98.0, np.nan, np.nan, np.nan],
            [100.0, np.nan, np.nan, np.nan, np.nan, np.nan],
        ]
    )
    assert metrics.longest_drawdown_bars(equity).tolist() == [2, 0, 4, 2, 0]
    np.testing.assert_allclose(metrics.max_drawdown(equity), [0.1, 0.0, 1 - 96 / 101, 0.02, 0.0], rtol=1e-12, atol=1e-15)


def test_the_length_of_a_drawdown_is_what_a_loop_counts(equity: FloatArray) -> None:
    def counted(row: FloatArray) -> int:
        peak, bars, longest = -math.inf, 0, 0
        for mark in row[~np.isnan(row)]:
            bars = 0 if mark >= peak else bars + 1
            peak, longest = max(peak, mark), max(longest, bars)
        return longest

    assert metrics.longest_drawdown_bars(equity).tolist() == [counted(row) for row in equity]


@pytest.mark.parametrize(
    ("row", "without"),
    [
        pytest.param([100.0], set(OF_EQUITY) - {"total_return", "max_drawdown"}, id="no bar"),
        pytest.param([100.0, 90.0], {"volatility", "sharpe_ratio", "sortino_ratio"}, id="one bar"),
        pytest.param([100.0] * 4, {"sharpe_ratio", "sortino_ratio", "calmar_ratio", "tail_ratio"}, id="no trade"),
        pytest.param([1.0, 1.1, 1.21, 1.331], {"sharpe_ratio", "sortino_ratio", "calmar_ratio"}, id="always the same gain"),
        pytest.param([1.0, 1.1, 1.2, 1.3], {"sortino_ratio", "calmar_ratio"}, id="never a loss"),
        pytest.param([100.0, -5.0], {"volatility", "sharpe_ratio", "sortino_ratio"}, id="ruined by the last bar"),
        pytest.param([100.0, -5.0, -4.0], set(OF_EQUITY) - {"total_return", "annual_return", "max_drawdown", "calmar_ratio"}, id="debts"),
        pytest.param([1.0, 1e3, 1e6, 1e5], {"annual_return", "calmar_ratio"}, id="beyond a float"),
    ],
)
def test_what_is_not_defined_is_nan_never_infinite(row: list[float], without: set[str]) -> None:
    equity = np.array([row, [100.0, *[101.0] * (len(row) - 1)]])
    measured = {name: measure(equity)[0] for name, (measure, _) in OF_EQUITY.items()}
    assert not np.isinf(list(measured.values())).any()
    assert {name for name, value in measured.items() if math.isnan(value)} == without


def test_equal_returns_have_no_deviation_whatever_rounding_leaves() -> None:
    returns = metrics.simple_returns(np.array([[1.1**bars for bars in range(50)]]))
    assert np.std(returns) > 0
    assert metrics.volatility(returns, PERIODS).tolist() == [0.0]
    assert np.isnan(metrics.sharpe_ratio(returns, PERIODS)).all()


def test_hits_and_the_profit_factor_leave_out_what_is_neither() -> None:
    profits = np.array([[3.0, -1.0, 0.0, 2.0, -1.5], [np.nan, 4.0, np.nan, 0.0, 1.0], [0.0, 0.0, np.nan, 0.0, 0.0]])
    np.testing.assert_array_equal(metrics.hit_ratio(profits), [0.5, 1.0, np.nan])
    np.testing.assert_array_equal(metrics.profit_factor(profits), [2.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("equity", "named"),
    [
        (np.ones(3), "shape"),
        (np.ones((3, 0)), "shape"),
        (np.array([[1.0, np.inf]]), "finite numbers, received inf in row 0, mark 1"),
        (np.array([[1.0, 1.0], [0.0, 1.0]]), "positive number at the first mark, received 0.0 in row 1, mark 0"),
        (np.array([[np.nan, 1.0]]), "positive number at the first mark, received nan"),
        (np.array([[1.0, np.nan, 1.0]]), "NaN only after the end of an episode, received nan in row 0, mark 1"),
    ],
)
def test_a_wrong_equity_is_named(equity: FloatArray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        metrics.simple_returns(equity)


@pytest.mark.parametrize("periods", [0.0, -1.0, math.nan, math.inf])
def test_wrong_periods_are_named(periods: float) -> None:
    with pytest.raises(ValueError, match="periods_per_year"):
        metrics.sharpe_ratio(np.zeros((1, 2)), periods)


def test_a_wrong_cutoff_is_named() -> None:
    with pytest.raises(ValueError, match="cutoff"):
        metrics.value_at_risk(np.zeros((1, 2)), 5.0)
