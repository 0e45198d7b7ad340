"""Holds each order until its episode's next bar, and fills it at that bar's open."""

from __future__ import annotations

from policyserver.pipelines.account import Fill
from policyserver.pipelines.events import FillEvent, MarketEvent, OrderEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode
from policyserver.pipelines.runtime.inbox import push_together


class ExecutionNode(PipelineNode[MarketEvent | OrderEvent]):
    """The simulated broker: market orders, filled whole at the next open, with the account's fee and slippage."""

    def _process(self, batch: list[MarketEvent | OrderEvent]) -> None:
        held: list[OrderEvent] = []
        bars: list[FillEvent] = []
        for event in batch:
            episode = event.episode
            if episode.abandoned:
                continue
            if isinstance(event, OrderEvent):
                episode.working_order = event.order
                held.append(event)
                continue
            fill: Fill | None = None
            if episode.working_order is not None:
                fill = episode.account.fill(episode.working_order, event.bar.open)
                episode.working_order = None
            bars.append(FillEvent(episode, event.bar, fill))
        self._record(bars)
        push_together([*self._routes.market.shares(held), *self._routes.reward.shares(bars)])

    def _record(self, events: list[FillEvent]) -> None:
        """Write the fills of a batch."""
        filled = [(event.episode, event.bar, event.fill) for event in events if event.fill is not None]
        if not filled:
            return
        self._recorder.write(
            "order",
            {
                "episode": [episode.id for episode, _, _ in filled],
                "bar": [bar.index for _, bar, _ in filled],
                "quantity": [fill.quantity for _, _, fill in filled],
                "reference_price": [bar.open for _, bar, _ in filled],
                "fill_price": [fill.price for _, _, fill in filled],
                "fee": [fill.fee for _, _, fill in filled],
                "slippage": [fill.slippage for _, _, fill in filled],
            },
            symbol=[episode.symbol for episode, _, _ in filled],
        )
