"""How many more steps one side needs than the other: the ratio of geometric means, with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.90
"""Of the two-sided confidence interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of geometric means."""

    value: float
    lower: float
    upper: float


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare samples of steps.

    The logarithms' means are compared by Welch's t-test, which does not ask for equal variances.

    Args:
        ours: Steps of some runs, at least two.
        theirs: Steps that they are held against, at least two.

    References:
        B. L. Welch, The generalization of Student's problem when several different population variances are involved, Biometrika 34 (1947).
    """
    one, other = np.log(np.asarray(ours, float)), np.log(np.asarray(theirs, float))
    difference = one.mean() - other.mean()
    parts = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    error = float(np.sqrt(sum(parts)))
    if error == 0.0:
        return Ratio(*[float(np.exp(difference))] * 3)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error
    value, lower, upper = np.exp([difference, difference - half, difference + half]).tolist()
    return Ratio(value, lower, upper)


def geometric_mean(steps: Sequence[float]) -> float:
    """Return the geometric mean of steps."""
    return float(np.exp(np.log(np.asarray(steps, float)).mean()))
