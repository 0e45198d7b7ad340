"""Turns decisions into orders."""

from __future__ import annotations

from policyserver.pipelines.events import ActionEvent, OrderEvent
from policyserver.pipelines.market.step_kinds import perform
from policyserver.pipelines.nodes.pipeline_node import PipelineNode


class PortfolioNode(PipelineNode[ActionEvent]):
    """Submits what the action scheme makes of the actions; of rows that had no action in time it does what the fallback says."""

    is_lent = True

    def _process(self, batch: list[ActionEvent]) -> None:
        orders: list[OrderEvent] = []
        for event in batch:
            if event.played.abandoned:
                continue
            perform(event.played.block, event.rows, event.actions, event.kinds)
            orders.append(OrderEvent(event.played))
            self._turns.add(event.played.turn)
        self._routes.market.push_many(orders)
