"""Measures of many episodes at once, from their equity and from the returns of their bars.

    returns = simple_returns(equity)                      # equity: float64 (n episodes, T + 1 marks), the first mark before the first bar
    sharpe_ratio(returns, periods_per_year=252)           # float64 (n,)

An episode that ends earlier than the longest one has NaN in the rest of its row. A measure that is not defined is NaN: a ratio to zero, a
deviation of one bar. No measure is infinite. All returns are simple ones, `equity now / equity before - 1`, none is logarithmic.
`periods_per_year` is the number of bars in a year (365 for days that never pause, 525,600 for their minutes, 252 for exchange days).

The definitions are those of empyrical: sample deviation with n - 1, a required return of 0, percentiles interpolated linearly.
"""

from __future__ import annotations

import math

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.truth.ragged import count, deviation, last, mean, quantile, ratio, total


def simple_returns(equity: FloatArray) -> FloatArray:
    """Return the simple return of each bar, float64 (n, T), from the equity at each mark, float64 (n, T + 1).

    An episode whose equity was 0 or less before its last mark has no returns: its row is NaN.

    Raises:
        ValueError: The equity is not of two dimensions, not positive at first, infinite, or has NaN before a number.
    """
    check_equity(equity)
    before, after = equity[:, :-1], equity[:, 1:]
    # A bar whose mark is missing has no return, so what precedes it need not be positive.
    lost = ((before <= 0) & ~np.isnan(after)).any(axis=1, keepdims=True)
    returns: FloatArray = np.divide(after, before, out=np.full(after.shape, np.nan), where=~lost) - 1.0
    return returns


def total_return(equity: FloatArray) -> FloatArray:
    """Return the simple return from first to last mark, float64 (n,)."""
    gain: FloatArray = last(equity) / equity[:, 0] - 1.0
    return gain


def annual_return(equity: FloatArray, periods_per_year: float) -> FloatArray:
    """Return the compound simple return of a year, float64 (n,): -1 when all is lost, NaN without a bar or beyond what a float holds."""
    _check_periods(periods_per_year)
    growth = np.maximum(last(equity) / equity[:, 0], 0.0)
    bars = count(equity) - 1
    with np.errstate(over="ignore"):
        annual = np.power(growth, ratio(periods_per_year, bars)) - 1.0
    return np.where((bars > 0) & np.isfinite(annual), annual, np.nan)


def volatility(returns: FloatArray, periods_per_year: float) -> FloatArray:
    """Return the deviation of the simple returns, times the root of `periods_per_year`, float64 (n,); NaN with fewer than two bars."""
    _check_periods(periods_per_year)
    return deviation(returns) * math.sqrt(periods_per_year)


def sharpe_ratio(returns: FloatArray, periods_per_year: float) -> FloatArray:
    """Return mean over deviation of the simple returns, times the root of `periods_per_year`, float64 (n,); NaN without variance."""
    _check_periods(periods_per_year)
    return ratio(mean(returns), deviation(returns)) * math.sqrt(periods_per_year)


def sortino_ratio(returns: FloatArray, periods_per_year: float) -> FloatArray:
    """Return mean over downside deviation of the simple returns, times the root of `periods_per_year`, float64 (n,).

    The downside deviation is the root of the mean over all bars of min(return, 0) squared. NaN without a loss or with fewer than two bars.
    """
    _check_periods(periods_per_year)
    downside = np.sqrt(mean(np.square(np.minimum(returns, 0.0))))
    sortino = ratio(mean(returns), downside) * math.sqrt(periods_per_year)
    return np.where(count(returns) < 2, np.nan, sortino)


def drawdowns(equity: FloatArray) -> FloatArray:
    """Return the fall of the equity below its highest value so far, a fraction of that, float64 (n, T + 1); more than 1 with debts."""
    peak: FloatArray = np.fmax.accumulate(equity, axis=1)
    return 1.0 - equity / peak


def max_drawdown(equity: FloatArray) -> FloatArray:
    """Return the largest drawdown as a positive fraction, float64 (n,)."""
    largest: FloatArray = np.fmax.reduce(drawdowns(equity), axis=1)
    return largest


def longest_drawdown_bars(equity: FloatArray) -> IntArray:
    """Return the greatest number of bars from a mark at the highest equity so far to a later one below it, int64 (n,)."""
    marks = np.arange(equity.shape[1])
    at_peak = equity >= np.fmax.accumulate(equity, axis=1)
    since = marks - np.maximum.accumulate(np.where(at_peak, marks, 0), axis=1)
    longest: IntArray = np.where(np.isnan(equity), 0, since).max(axis=1)
    return longest


def calmar_ratio(equity: FloatArray, periods_per_year: float) -> FloatArray:
    """Return the compound simple return of a year over the largest drawdown, float64 (n,); NaN without a drawdown."""
    return ratio(annual_return(equity, periods_per_year), max_drawdown(equity))


def value_at_risk(returns: FloatArray, cutoff: float = 0.05) -> FloatArray:
    """Return the `cutoff` quantile of the simple returns, float64 (n,): negative when it is a loss."""
    _check_cutoff(cutoff)
    return quantile(np.sort(returns, axis=1), cutoff)


def conditional_value_at_risk(returns: FloatArray, cutoff: float = 0.05) -> FloatArray:
    """Return the mean of the lowest simple returns, float64 (n,): of the floor((bars - 1) * cutoff) + 1 lowest."""
    _check_cutoff(cutoff)
    if returns.shape[1] == 0:
        return np.full(len(returns), np.nan)
    sums = np.cumsum(np.sort(returns, axis=1), axis=1)
    place = np.maximum((count(returns) - 1) * cutoff, 0.0).astype(np.int64)
    lowest: FloatArray = sums[np.arange(len(returns)), place] / (place + 1)
    return lowest


def tail_ratio(returns: FloatArray) -> FloatArray:
    """Return the size of the 95 % quantile of the simple returns over that of the 5 % quantile, float64 (n,)."""
    ordered = np.sort(returns, axis=1)
    return ratio(np.abs(quantile(ordered, 0.95)), np.abs(quantile(ordered, 0.05)))


def hit_ratio(profits: FloatArray) -> FloatArray:
    """Return the part of the profits that are positive, float64 (n,), among those that are not 0.

    Args:
        profits: Of bars (`numpy.diff` of the equity) or of trades, in cash, float64 (n, m); NaN where a row has fewer.
    """
    return ratio(np.count_nonzero(profits > 0, axis=1), np.count_nonzero((profits > 0) | (profits < 0), axis=1))


def profit_factor(profits: FloatArray) -> FloatArray:
    """Return the sum of the gains over the sum of the losses, float64 (n,); `profits` as in `hit_ratio`. NaN without a loss."""
    return ratio(total(np.maximum(profits, 0.0)), -total(np.minimum(profits, 0.0)))


def check_equity(equity: FloatArray) -> None:
    """Raise a ValueError that says what is wrong with an equity, float64 (n, T + 1)."""
    if equity.ndim != 2 or equity.shape[1] == 0:
        raise ValueError(f"equity: expected an array (episodes, marks) with at least one mark, received shape {equity.shape}")
    missing = np.isnan(equity)
    for wrong, expected in (
        (np.isinf(equity), "finite numbers"),
        (~(equity[:, :1] > 0), "a positive number at the first mark"),
        (missing[:, :-1] & ~missing[:, 1:], "NaN only after the end of an episode"),
    ):
        if wrong.any():
            row, mark = np.argwhere(wrong)[0]
            raise ValueError(f"equity: expected {expected}, received {equity[row, mark]} in row {row}, mark {mark}")


def _check_periods(periods_per_year: float) -> None:
    if not 0 < periods_per_year < math.inf:
        raise ValueError(f"periods_per_year: expected a finite number of bars above 0, received {periods_per_year}")


def _check_cutoff(cutoff: float) -> None:
    if not 0 <= cutoff <= 1:
        raise ValueError(f"cutoff: expected a fraction from 0 to 1, received {cutoff}")
