"""Where the nodes of a pipeline send their events, and where they write what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from policyserver.monitoring.points import Column, Points
from policyserver.monitoring.sink import MultiSink, Sink
from policyserver.pipelines.events import ActionEvent, EndEvent, FillEvent, MarketEvent, OpenEvent, OrderEvent, RewardEvent, SignalEvent
from policyserver.pipelines.runtime.node_group import NodeGroup
from policyserver.pipelines.runtime.point_buffer import PointBuffer

Buffered = Literal["step", "order", "order_event"]
"""Measurements that have points at every bar."""


class Routes:
    """The groups of nodes by what they do. The pipeline fills it in before it starts any of them."""

    market: NodeGroup[OrderEvent | OpenEvent]
    execution: NodeGroup[MarketEvent]
    reward: NodeGroup[FillEvent]
    signal: NodeGroup[RewardEvent]
    policy: NodeGroup[SignalEvent]
    portfolio: NodeGroup[ActionEvent]
    episode: NodeGroup[EndEvent]


class Recorder:
    """A sink, and the tags of everything that this run writes to it. Thread-safe."""

    def __init__(self, sink: Sink, tags: Mapping[str, str]) -> None:
        """Write to `sink`, which never waits, with the tags run, policy, process and worker."""
        self.sink = sink
        self.tags = tags
        self.is_kept = not (type(sink) is MultiSink and not sink.sinks)
        """Whether anything takes the points, so that they are worth to be made."""
        self._buffers = {measurement: PointBuffer(sink, measurement, tags) for measurement in ("step", "order", "order_event")}

    def write(self, measurement: str, columns: Mapping[str, Column], **tag_columns: Sequence[str]) -> None:
        """Write n points: columns of n values, and the tags that differ from point to point."""
        self.sink.write(Points(measurement, self.tags, columns, tag_columns=tag_columns))

    def add(self, measurement: Buffered, columns: Mapping[str, Column], **tag_columns: Sequence[str]) -> None:
        """Write n points as `write` does, soon: with those of other bars, at the latest with the next `flush`."""
        if self.is_kept:
            self._buffers[measurement].add(columns, tag_columns)

    def flush(self) -> None:
        """Let the sink have all that was added."""
        for buffer in self._buffers.values():
            buffer.flush()
