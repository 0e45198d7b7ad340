"""A sink's counters as points, which go where all points go: into the sinks themselves."""

from __future__ import annotations

from collections.abc import Mapping

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import SINK
from policyserver.monitoring.sink import MultiSink, NullSink, Sink


def sink_points(sink: Sink, tags: Mapping[str, str]) -> Points | None:
    """Return a point of the counters of each sink that stores something; None when none does."""
    sinks = [each for each in (sink.sinks if isinstance(sink, MultiSink) else [sink]) if not isinstance(each, NullSink)]
    if not sinks:
        return None
    statistics = [each.statistics() for each in sinks]
    columns = {name: [getattr(counters, name) for counters in statistics] for name in SINK.types}
    return Points("sink", tags, columns, tag_columns={"sink": [type(each).__name__ for each in sinks]})
