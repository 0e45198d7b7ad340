"""Drips the bars: one for each order event, which says that its episode is ready for the next."""

from __future__ import annotations

from policyserver.pipelines.events import EndEvent, MarketEvent, OrderEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode
from policyserver.pipelines.runtime.inbox import push_together


class MarketNode(PipelineNode[OrderEvent]):
    """Takes the next bar of each episode. Nothing downstream holds a later one."""

    def _process(self, batch: list[OrderEvent]) -> None:
        bars: list[MarketEvent] = []
        exhausted: list[EndEvent] = []
        for event in batch:
            episode = event.episode
            if episode.abandoned:
                continue
            bar = episode.prices.next_bar()
            if bar is None:
                exhausted.append(EndEvent(episode, "truncated"))
            else:
                bars.append(MarketEvent(episode, bar))
        push_together([*self._routes.execution.shares(bars), *self._routes.episode.shares(exhausted)])
