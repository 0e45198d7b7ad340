"""Drips the bars: the next one of each row that has acted; and begins the next episode in each row that is vacant."""

from __future__ import annotations

from policyserver.pipelines.events import EndEvent, MarketEvent, OpenEvent, OrderEvent
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.price_records import PriceRecords
from policyserver.pipelines.replay.turn import Turn


class MarketNode(PipelineNode[OrderEvent | OpenEvent]):
    """Takes the next bar of each row. Nothing downstream holds a later one."""

    is_lent = True

    def __init__(self, name: str, wiring: Wiring, price_records: PriceRecords) -> None:
        """Make the node; see `Node`. `price_records` are those of the run."""
        super().__init__(name, wiring)
        self._price_records = price_records

    def _process(self, batch: list[OrderEvent | OpenEvent]) -> None:
        events = []
        for event in batch:
            played = event.played
            if played.abandoned:
                continue
            stopping = self._run_state.stopping.is_set()
            if not stopping and played.is_over(self._config.episodes.concurrent):
                self._routes.episode.push_many([EndEvent((), played.block.shape.n_rows)])
                continue
            turn = played.turn = Turn(played.number)
            if isinstance(event, OpenEvent):
                turn.opened = (played.rounds.copy(),)
            waiting = played.waiting
            bar = played.feed.next(waiting) if len(waiting) else None
            if bar is not None and (played.has_frames or bar.asks is not None):
                played.has_frames = True
                played.asks[waiting] = True if bar.asks is None else bar.asks
            if not stopping:
                for episode in played.begin(self._source, self._config.episodes.concurrent):
                    self._price_records.note(episode)
            events.append(MarketEvent(played, waiting, bar))
        self._routes.execution.push_many(events)
