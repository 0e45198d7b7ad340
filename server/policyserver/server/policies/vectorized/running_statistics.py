"""Batches of rows in RLlib's running statistics, which take one row at a time themselves.

RLlib's `RunningStat` holds, for every element of an observation, the number n of rows seen, their mean M and the sum S of their squared
deviations from it. Beside them it has *delta* values: how much each of them has changed since other env runners heard of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ray.rllib.utils.filter import RunningStat

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """What a batch of rows adds to running statistics."""

    count: int
    """How many rows."""
    mean: Floats
    """Their mean."""
    squares: Floats
    """The sum of their squared deviations from it."""

    @classmethod
    def of(cls, deviations: Floats, center: Floats) -> RowStatistics:
        """Summarise rows, [n, ...], given as deviations from a center near them, so that nothing cancels out."""
        mean = deviations.mean(axis=0)
        squares = np.square(deviations - mean).sum(axis=0)
        return cls(len(deviations), np.asarray(center + mean), np.asarray(squares))


def add(statistic: RunningStat, rows: RowStatistics) -> None:
    """Let a statistic see rows, with the result of pushing them one by one.

    Source: T. Chan, G. Golub, R. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    if not rows.count:
        return
    before = statistic.num_pushes
    after = before + rows.count
    offset = rows.mean - statistic.mean_array
    step = offset * (rows.count / after)
    squares = rows.squares + np.square(offset) * (before * (rows.count / after))
    statistic.num_pushes = after
    statistic.num_pushes_delta += rows.count
    # New arrays instead of changed ones: a reader that holds the old ones keeps what it has read.
    statistic.mean_array = np.asarray(statistic.mean_array + step)
    statistic.mean_delta_array = np.asarray(statistic.mean_delta_array + step)
    statistic.sum_sq_diff_array = np.asarray(statistic.sum_sq_diff_array + squares)
    statistic.sum_sq_diff_delta_array = np.asarray(statistic.sum_sq_diff_delta_array + squares)


def delta_of(statistic: RunningStat) -> RowStatistics:
    """Return what a statistic has seen since its deltas were cleared: `add` of it to what there was then gives what there is now."""
    count = statistic.num_pushes_delta
    if not count:
        return RowStatistics(0, np.zeros_like(statistic.mean_array), np.zeros_like(statistic.mean_array))
    before = statistic.num_pushes - count
    offset = statistic.mean_delta_array * (statistic.num_pushes / count)  # of the new rows' mean from that of the others
    squares = statistic.sum_sq_diff_delta_array - np.square(offset) * (before * (count / statistic.num_pushes))
    mean = statistic.mean_array - statistic.mean_delta_array + offset
    return RowStatistics(count, np.asarray(mean), np.asarray(np.maximum(squares, 0.0)))


def clear_delta(statistic: RunningStat) -> None:
    """Begin a new count of what a statistic sees."""
    statistic.num_pushes_delta = 0
    statistic.mean_delta_array = np.zeros_like(statistic.mean_array)
    statistic.sum_sq_diff_delta_array = np.zeros_like(statistic.mean_array)
