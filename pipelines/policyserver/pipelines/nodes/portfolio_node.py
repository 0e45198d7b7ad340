"""Turns decisions into orders."""

from __future__ import annotations

from policyserver.pipelines.events import ActionEvent, OrderEvent
from policyserver.pipelines.fallback import Fallback
from policyserver.pipelines.runtime.inbox import NodeConfig
from policyserver.pipelines.runtime.node import Node, Supervisor
from policyserver.pipelines.runtime.routes import Routes


class PortfolioNode(Node[ActionEvent]):
    """Sizes an order by the account: the difference between the position that the action asks for and the one there is."""

    def __init__(self, name: str, options: NodeConfig, supervisor: Supervisor, routes: Routes, fallback: Fallback) -> None:
        """Make the node; see `Node`. `fallback` says what a fallback decision does to the position."""
        super().__init__(name, options, supervisor=supervisor)
        self._routes = routes
        self._flatten = fallback == "flatten"

    def _process(self, batch: list[ActionEvent]) -> None:
        orders: list[OrderEvent] = []
        for event in batch:
            episode, decision = event.episode, event.decision
            if episode.abandoned:
                continue
            flatten = decision.fallback and self._flatten
            order = episode.account.order_to(0) if flatten else episode.account.order(decision.action)
            orders.append(OrderEvent(episode, order))
        self._routes.execution.push_many(orders)
