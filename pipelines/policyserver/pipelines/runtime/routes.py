"""Where the nodes of a pipeline send their events, and where they write what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policyserver.monitoring.points import Column, Points
from policyserver.monitoring.sink import Sink
from policyserver.pipelines.events import ActionEvent, EndEvent, FillEvent, MarketEvent, OpenEvent, OrderEvent, RewardEvent, SignalEvent
from policyserver.pipelines.runtime.node_group import NodeGroup


class Routes:
    """The groups of nodes by what they do. The pipeline fills it in before it starts any of them."""

    market: NodeGroup[OrderEvent | OpenEvent]
    execution: NodeGroup[MarketEvent]
    reward: NodeGroup[FillEvent]
    signal: NodeGroup[RewardEvent]
    policy: NodeGroup[SignalEvent]
    portfolio: NodeGroup[ActionEvent]
    episode: NodeGroup[EndEvent]


@dataclass(frozen=True, slots=True)
class Recorder:
    """A sink, and the tags of everything that this run writes to it."""

    sink: Sink
    """Takes the points; never waits."""
    tags: Mapping[str, str]
    """Tags run, policy, process and worker."""

    def write(self, measurement: str, columns: Mapping[str, Column], **tag_columns: Sequence[str]) -> None:
        """Write n points: columns of n values, and the tags that differ from point to point."""
        self.sink.write(Points(measurement, self.tags, columns, tag_columns=tag_columns))
