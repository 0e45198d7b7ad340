"""Plays the bars: the simulated broker fills what was ordered."""

from __future__ import annotations

from policyserver.pipelines.events import FillEvent, MarketEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode
from policyserver.pipelines.order_records import record_fills, record_order_events


class ExecutionNode(PipelineNode[MarketEvent]):
    """Orders against bars; see `policyserver.pipelines.market.execution`."""

    is_lent = True

    def _process(self, batch: list[MarketEvent]) -> None:
        events = []
        for event in batch:
            played = event.played
            if played.abandoned:
                continue
            fills = played.block.fill(event.rows, event.bar) if event.bar is not None else None
            if fills is not None:
                record_fills(self._recorder, played, fills)
                record_order_events(self._recorder, played)
            events.append(FillEvent(played, event.rows, fills))
        self._routes.reward.push_many(events)
