"""The one definition of a mean over a run's episodes, such as its mean return: of whole episodes, over the newest tenth of them.

An episode is cut where it ends before its prices do: at the end of the run, with its server, with a failed node. Its figures are those of
fewer steps, so it is in no mean. Terminal, summary, page and recorded points all take the mean from here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SHARE = 0.1
"""Share of the whole episodes that a mean is of."""

MOST_EPISODES = 65_536
"""Most episodes that a mean is of."""


def newest_count(count: int) -> int:
    """Return how many of `count` whole episodes a mean is of: the newest tenth, one at least if there is any."""
    return min(max(round(SHARE * count), min(count, 1)), MOST_EPISODES)


def newest_means(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], first: int = 0) -> npt.NDArray[np.float64]:
    """Return the means as they were after so many episodes.

    Args:
        values: Figures (n, k) of whole episodes in the order of their ends, from number `first` on; NaN where one is not known.
        counts: Numbers (m,) of all episodes until then, at most first + n.
        first: Number of the first row's episode, from 0; those before it are in no mean.

    Returns:
        Means (m, k) over the newest tenth of so many episodes; NaN where none of them has the figure.
    """
    known = ~np.isnan(values)
    zero = np.zeros((1, values.shape[1]))
    sums = np.concatenate([zero, np.cumsum(np.where(known, values, 0.0), axis=0)])
    numbers = np.concatenate([zero, np.cumsum(known, axis=0)])
    ends = counts - first
    begins = ends - np.array([newest_count(int(count)) for count in counts], np.int64)
    total, number = sums[ends] - sums[begins], numbers[ends] - numbers[begins]
    means: npt.NDArray[np.float64] = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return means
