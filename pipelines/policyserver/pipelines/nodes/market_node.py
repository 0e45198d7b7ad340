"""Drips the bars: the next one of each row that has acted; and begins the next episode in each row that is vacant."""

from __future__ import annotations

from policyserver.pipelines.config import PlayedEpisodesConfig
from policyserver.pipelines.events import MarketEvent, OpenEvent, OrderEvent
from policyserver.pipelines.market.episode_source import EpisodeSource
from policyserver.pipelines.price_records import PriceRecords
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import NodeConfig
from policyserver.pipelines.runtime.node import Node, Supervisor
from policyserver.pipelines.runtime.routes import Recorder, Routes


class MarketNode(Node[OrderEvent | OpenEvent]):
    """Takes the next bar of each row. Nothing downstream holds a later one."""

    def __init__(
        self,
        name: str,
        options: NodeConfig,
        supervisor: Supervisor,
        routes: Routes,
        run: RunState,
        recorder: Recorder,
        source: EpisodeSource,
        episodes: PlayedEpisodesConfig,
    ) -> None:
        """Make the node; see `Node`. Episodes come from `source`."""
        super().__init__(name, options, supervisor=supervisor)
        self._routes = routes
        self._run_state = run
        self._source = source
        self._concurrent = episodes.concurrent
        self._price_records = PriceRecords(run, recorder, trained_on=episodes.training_enabled)

    def _process(self, batch: list[OrderEvent | OpenEvent]) -> None:
        events = []
        for event in batch:
            played = event.played
            if played.abandoned:
                continue
            waiting = played.playing
            waiting = waiting[~played.is_new[waiting]]
            bar = played.feed.next(waiting) if len(waiting) else None
            if not self._run_state.stopping.is_set():
                for episode in played.begin(self._source, self._concurrent):
                    self._price_records.note(episode)
            events.append(MarketEvent(played, waiting, bar))
        self._routes.execution.push_many(events)
