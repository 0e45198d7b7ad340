"""The states of connectors on their way between env runners: each row that a filter saw counts once, whichever runner saw it.

RLlib asks its env runners for their connectors' states, merges them in the driver's, and sends the result round. As of Ray 2.60 that
fails in four ways, which this module corrects at our two ends:

- a state names only those connectors that have one, but is merged by their places in the pipeline, so that a filter behind a stateless
  connector is never merged;
- from the second round on the delta of a mean is how far it has moved, but is merged as the mean of the new rows: a filter that sees
  nothing but values near 100 ends near 0;
- the rows that an env runner sees while states are under way are overwritten, and those in a state that was sent twice count twice;
- filters of anything but a flat Box can't be merged, because the comparison of their shapes has no single truth value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tree
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.utils.filter import MeanStdFilter as Filter
from ray.rllib.utils.filter import RunningStat

from policyserver.server.policies.connectors.connector_pipelines import pieces_of
from policyserver.server.policies.vectorized.running_statistics import RowStatistics, add, clear_delta, delta_of


class ComparableShape(np.ndarray[Any, Any]):
    """A shape as RLlib's filters keep it, an array of ints, that is equal to another one or not."""

    def __eq__(self, other: object) -> bool:
        """Tell whether all axes are the same."""
        return bool(np.array_equal(np.asarray(self), np.asarray(other)))

    __hash__ = None


def export_state(pipeline: ConnectorPipelineV2) -> dict[str, Any]:
    """Return the state of a pipeline, to be merged; what its filters see from now on is new for the next one.

    Meanwhile no other thread may use the pipeline.
    """
    for filter_ in _filters(pipeline):
        if np.size(filter_.shape) != 1:
            filter_.shape = np.asarray(filter_.shape).view(ComparableShape)
    statistics = _statistics(pipeline)
    for statistic in statistics:
        new = delta_of(statistic)
        statistic.mean_delta_array, statistic.sum_sq_diff_delta_array = new.mean, new.squares
    try:
        return {**{type(piece).__name__: {} for piece in pipeline.connectors}, **pipeline.get_state()}
    finally:
        for statistic in statistics:
            clear_delta(statistic)


def adopt_state(pipeline: ConnectorPipelineV2, state: dict[str, Any], *, keep_delta: bool) -> None:
    """Take over a pipeline's state. Meanwhile no other thread may use the pipeline.

    `keep_delta` adds the rows that filters saw since `export_state`: right for a merged state, wrong for a restored one.
    """
    unacknowledged: list[RowStatistics] = [delta_of(statistic) for statistic in _statistics(pipeline)] if keep_delta else []
    pipeline.set_state(state)
    statistics = _statistics(pipeline)
    for statistic in statistics:
        clear_delta(statistic)
    for statistic, rows in zip(statistics, unacknowledged, strict=False):
        add(statistic, rows)


def _filters(pipeline: ConnectorPipelineV2) -> Iterator[Filter]:
    for piece in pieces_of(pipeline):
        if isinstance(piece, MeanStdFilter) and piece._filters is not None:
            yield from piece._filters.values()


def _statistics(pipeline: ConnectorPipelineV2) -> list[RunningStat]:
    return [statistic for filter_ in _filters(pipeline) for statistic in tree.flatten(filter_.running_stats)]
