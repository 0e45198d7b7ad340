"""Turns decisions into orders."""

from __future__ import annotations

from policyserver.pipelines.events import ActionEvent, OrderEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode


class PortfolioNode(PipelineNode[ActionEvent]):
    """Sizes an order by the account: the difference between the position that the action asks for and the one there is."""

    def _process(self, batch: list[ActionEvent]) -> None:
        orders: list[OrderEvent] = []
        for event in batch:
            episode, decision = event.episode, event.decision
            if episode.abandoned:
                continue
            flatten = decision.fallback and self._config.policy.fallback == "flatten"
            order = episode.account.order_to(0) if flatten else episode.account.order(decision.action)
            orders.append(OrderEvent(episode, order))
        self._routes.execution.push_many(orders)
