"""What a mean over a run's episodes is, such as its mean return: the mean over the newest tenth of the whole episodes.

An episode is cut if it ends before its prices do: with the run, with its server, with a failed node. It has fewer steps, so no mean counts
it. Terminal, summary, page and recorded points all take their means from here; only the summary of a run that learns nothing, whose policy
was the same one throughout, is of all.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SHARE = 0.1
"""Share of the whole episodes that a mean is over."""

MOST_EPISODES = 65_536
"""Most episodes that a mean is over."""


def newest_count(count: int) -> int:
    """Return how many of `count` whole episodes a mean is over: a tenth, at least one if there is any."""
    return min(max(round(SHARE * count), min(count, 1)), MOST_EPISODES)


def newest_means(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], first: int = 0, weight: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the means as they were after some numbers of episodes.

    Args:
        values: Figures (n, k) of whole episodes in the order of their ends, from number `first` on; NaN where one is unknown.
        counts: Numbers (m,) of episodes until then, at most first + n.
        first: Number of the first row's episode, from 0; no mean counts earlier ones.
        weight: How many episodes each row stands for, in a sample; `counts` and `first` are of rows.

    Returns:
        Means (m, k) over the newest tenth of each number of episodes; NaN where no episode has the figure.
    """
    known = ~np.isnan(values)
    zero = np.zeros((1, values.shape[1]))
    sums = np.concatenate([zero, np.cumsum(np.where(known, values, 0.0), axis=0)])
    numbers = np.concatenate([zero, np.cumsum(known, axis=0)])
    ends = counts - first
    begins = np.maximum(
        ends - np.array([math.ceil(newest_count(round(weight * count)) / weight) for count in counts.tolist()], np.int64), 0
    )
    total, number = sums[ends] - sums[begins], numbers[ends] - numbers[begins]
    means: npt.NDArray[np.float64] = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return means
