"""RLlib's `MeanStdFilter` on whole batches of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.utils.filter import MeanStdFilter as Filter
from ray.rllib.utils.filter import RunningStat

from policyserver.common.acting.observations import normalised
from policyserver.server.policies.policy import Array, Mask, StepRows
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector
from policyserver.server.policies.vectorized.running_statistics import Floats, RowStatistics, add


@dataclass(frozen=True, slots=True)
class FrozenFilter:
    """A filter that learns no more."""

    mean: Floats
    """Of what it has seen."""
    deviation: Array
    """The standard deviation, float32[...]."""
    demean: bool
    """Whether the mean is subtracted."""
    destd: bool
    """Whether what is left is divided by the deviation."""
    clip: float | None
    """How far from 0 the result may be."""


class VectorizedFrozenFilter(VectorizedConnector):
    """Normalise observations by a mean and a standard deviation that stay as they are."""

    def __init__(self, filter_: FrozenFilter) -> None:
        self._filter = filter_

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the normalised observations."""
        del rows
        (values,), frozen = leaves, self._filter
        remainders = values - frozen.mean
        return [normalised(values, remainders, frozen.deviation, demean=frozen.demean, destd=frozen.destd, clip=frozen.clip)]


class VectorizedMeanStdFilter(VectorizedConnector):
    """Normalise observations by the mean and the standard deviation of all rows up to each, in the order of the rows.

    The statistics are those of RLlib's own connector, so that they are merged, sent round and saved as RLlib does it. Rows of episodes
    that are not trained on are normalised, but not learned from.
    """

    def __init__(self, connector: MeanStdFilter) -> None:
        """Take a connector of RLlib's, whose observation space is one Box or MultiBinary.

        Only the thread that calls `write` and `commit` may touch it from now on.
        """
        self._connector = connector
        self._seen: tuple[Mask, Floats, Floats] | None = None
        """What the last `write` would have the statistics learn: which rows, bool[n], all n as deviations from a center, and the center."""

    def frozen(self) -> FrozenFilter:
        """Return what the filter does to observations that it doesn't learn from, until it has learned from others."""
        filter_ = _filter_of(self._connector)
        statistic = filter_.running_stats
        return FrozenFilter(statistic.mean_array, _deviations_of(statistic), filter_.demean, filter_.destd, filter_.clip)

    def as_it_is(self) -> VectorizedConnector:
        """Return a filter that does the same as this one does now, and learns nothing."""
        return VectorizedFrozenFilter(self.frozen())

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the normalised observations; change nothing yet."""
        (values,) = leaves
        filter_ = _filter_of(self._connector)
        updates = rows.training if self._connector._update_stats else np.zeros(len(rows), np.bool_)
        self._seen = None
        statistic = filter_.running_stats
        first = int(updates.argmax()) if updates.any() else len(rows)
        if first == len(rows):
            return [_normalised(filter_, values, values - statistic.mean_array, _deviations_of(statistic))]
        count = statistic.num_pushes
        center: Floats = np.asarray(statistic.mean_array if count else values[first], np.float64)
        deviations: Floats = values - center
        means, deviances = _prefixes(count, statistic.sum_sq_diff_array, deviations, updates)
        remainders = deviations - means
        if count == 0 and first > 0:  # nothing has been seen before these rows, and they are not learned from
            remainders[:first] = values[:first]
        self._seen = updates, deviations, center
        return [_normalised(filter_, values, remainders, deviances)]

    def commit(self, kept: Mask) -> None:
        """Let the statistics learn the rows of the last `write`; those that are not `kept` were refused."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        updates, deviations, center = seen
        if not (chosen := updates & kept).any():
            return
        filter_ = _filter_of(self._connector)
        added = RowStatistics.of(deviations if chosen.all() else deviations[chosen], center)
        for statistic in (filter_.running_stats, filter_.buffer):
            add(statistic, added)


def _filter_of(connector: MeanStdFilter) -> Filter:
    """Return the filter of a connector for one agent."""
    if connector._filters is None:
        connector.get_state()  # makes the filters
    return connector._filters[None]


def _prefixes(count: int, squares: Floats, deviations: Floats, updates: Mask) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Return the mean, in deviations from the center, and the standard deviation after each row, [n, ...] both.

    Args:
        count: Rows seen before.
        squares: The sum of their squared deviations from their mean, which is the center if there are any.
        deviations: The rows.
        updates: Which of them count, bool[n].
    """
    column = (-1, *[1] * (deviations.ndim - 1))
    everything = bool(updates.all())
    counts = count + (np.arange(1, len(updates) + 1) if everything else np.cumsum(updates)).reshape(column)
    sums = np.cumsum(deviations if everything else np.where(updates.reshape(column), deviations, 0.0), axis=0)
    means = sums / np.maximum(counts, 1)
    before = np.empty_like(means)
    before[0], before[1:] = 0.0, means[:-1]
    # Welford's update, whose terms are never negative, for all rows at once.
    terms = (deviations - before) * (deviations - means)
    if not everything:
        terms[~updates] = 0.0
    totals = np.cumsum(terms, axis=0)
    totals += squares
    return means, _root(totals, counts)


def _deviations_of(statistic: RunningStat) -> Array:
    """Return the standard deviations of what a statistic has seen, float32[...]."""
    return _root(np.asarray(statistic.sum_sq_diff_array), np.asarray(statistic.num_pushes))


def _root(squares: Floats, counts: Array) -> Array:
    """Return standard deviations in single precision, as RLlib has them: zeros as long as there are less than two rows."""
    variances = (squares / np.maximum(counts - 1, 1)).astype(np.float32)
    return np.where(counts > 1, np.sqrt(np.maximum(variances, 0)), np.float32(0))


def _normalised(filter_: Filter, values: Array, remainders: Floats, deviances: Array) -> Array:
    return normalised(values, remainders, deviances, demean=filter_.demean, destd=filter_.destd, clip=filter_.clip)
