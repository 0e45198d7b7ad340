"""Turns decisions into orders."""

from __future__ import annotations

from policyserver.pipelines.events import ActionEvent, OrderEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode


class PortfolioNode(PipelineNode[ActionEvent]):
    """Submits what the action scheme makes of the actions, or closes the positions of rows that had no action in time."""

    is_lent = True

    def _process(self, batch: list[ActionEvent]) -> None:
        orders: list[OrderEvent] = []
        for event in batch:
            block, flattens = event.played.block, event.flattens
            if event.played.abandoned:
                continue
            if flattens is not None and flattens.any():
                block.act(event.rows[~flattens], event.actions[~flattens])
                block.close_positions(event.rows[flattens])
            elif len(event.rows):
                block.act(event.rows, event.actions)
            orders.append(OrderEvent(event.played))
            self._turns.add(event.played.turn)
        self._routes.market.push_many(orders)
