"""Statistics of each row of float64 (n, m) whose NaN stand for numbers that are not there: shorter episodes, bars without a trade."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray

_ROUNDING = 8 * np.finfo(np.float64).eps


def count(values: FloatArray) -> IntArray:
    """Return how many numbers each row has, int64 (n,)."""
    numbers: IntArray = np.count_nonzero(~np.isnan(values), axis=1).astype(np.int64)
    return numbers


def total(values: FloatArray) -> FloatArray:
    """Return the sum of each row, float64 (n,); 0 without a number."""
    sums: FloatArray = np.nansum(values, axis=1)
    return sums


def mean(values: FloatArray) -> FloatArray:
    """Return the mean of each row, float64 (n,); NaN without a number."""
    return ratio(total(values), count(values))


def deviation(values: FloatArray) -> FloatArray:
    """Return the sample deviation (n - 1) of each row, float64 (n,): NaN with fewer than two numbers.

    It is 0 where the numbers, returns, differ by no more than the rounding of `equity now / equity before - 1`.
    """
    variance = ratio(total(np.square(values - mean(values)[:, None])), np.maximum(count(values) - 1, 0))
    spread = np.fmax.reduce(values, axis=1, initial=-np.inf) - np.fmin.reduce(values, axis=1, initial=np.inf)
    return np.where((spread <= _ROUNDING) & ~np.isnan(variance), 0.0, np.sqrt(variance))


def last(values: FloatArray) -> FloatArray:
    """Return the last number of each row, float64 (n,), of rows that have one and whose NaN come last."""
    found: FloatArray = values[np.arange(len(values)), count(values) - 1]
    return found


def quantile(ordered: FloatArray, fraction: float) -> FloatArray:
    """Return the quantile of each row that is sorted (NaN last), interpolated linearly, float64 (n,); NaN without a number."""
    if ordered.shape[1] == 0:
        return np.full(len(ordered), np.nan)
    rows = np.arange(len(ordered))
    place = np.maximum((count(ordered) - 1) * fraction, 0.0)
    below = place.astype(np.int64)
    low, high = ordered[rows, below], ordered[rows, np.ceil(place).astype(np.int64)]
    between: FloatArray = low + (high - low) * (place - below)
    return between


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Return the quotients, float64 (n,); NaN where the denominator is 0 or the quotient is beyond what a float holds."""
    with np.errstate(all="ignore"):
        quotient = np.true_divide(numerator, denominator)
    return np.where(np.isfinite(quotient), quotient, np.nan)
