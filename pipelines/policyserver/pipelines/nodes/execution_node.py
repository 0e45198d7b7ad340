"""Plays the bars: the simulated broker fills what was ordered."""

from __future__ import annotations

from policyserver.pipelines.events import FillEvent, MarketEvent
from policyserver.pipelines.market.orders import Fills
from policyserver.pipelines.nodes.pipeline_node import PipelineNode
from policyserver.pipelines.played_block import PlayedBlock


class ExecutionNode(PipelineNode[MarketEvent]):
    """Orders against bars; see `policyserver.pipelines.market.execution`."""

    def _process(self, batch: list[MarketEvent]) -> None:
        events = []
        for event in batch:
            played = event.played
            if played.abandoned:
                continue
            fills = played.block.fill(event.rows, event.bar) if event.bar is not None else None
            if fills is not None and len(fills.rows):
                self._record(played, fills)
            events.append(FillEvent(played, event.rows, fills))
        self._routes.reward.push_many(events)

    def _record(self, played: PlayedBlock, fills: Fills) -> None:
        """Write the fills of a bar."""
        slippage = abs(fills.quantity) * abs(fills.price - fills.reference_price)
        names = [episode.symbols for row in fills.rows.tolist() if (episode := played.episodes[row]) is not None]
        self._recorder.write(
            "order",
            {
                "episode": played.ids_of(fills.rows),
                "bar": played.block.view.clock[fills.rows],
                "bar_time_s": played.block.view.bar.time_ns[fills.rows] * 1e-9,
                "quantity": fills.quantity,
                "reference_price": fills.reference_price,
                "fill_price": fills.price,
                "fee": fills.fee,
                "slippage": slippage,
            },
            symbol=[symbols[place] for symbols, place in zip(names, fills.symbol.tolist(), strict=True)],
        )
