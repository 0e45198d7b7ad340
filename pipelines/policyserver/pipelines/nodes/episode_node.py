"""Ends episodes with the server, compares them with the baselines, and begins the next ones in their slots."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.common.errors import HandshakeError, PolicyServerError, ServerEndedError
from policyserver.pipelines.account import Account
from policyserver.pipelines.baselines import ReplayResult, no_trade, random_actions
from policyserver.pipelines.events import EndEvent, Ending, Episode, OpenEvent, OrderEvent
from policyserver.pipelines.fallback import NO_ANSWER, FallbackReporter, row_errors
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.price_records import PriceRecords

logger = logging.getLogger(__name__)

_END_TIMEOUT_S = 5.0
"""Longest wait for the end of episodes: longer than an action's, because nothing waits behind it, and an episode that is given up stays
open at the server."""
_RETRY_S = 1.0
"""Seconds from one attempt to begin episodes to the next, while the server refuses."""


class EpisodeNode(PipelineNode[EndEvent | OpenEvent]):
    """Begins, ends and records episodes.

    It has a thread of its own because it may wait for a server that is away, while episodes in fallback mode go on elsewhere.
    """

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`."""
        super().__init__(name, wiring)
        self._account = wiring.config.account
        self._seed = wiring.config.episodes_seed
        self._episodes = wiring.config.episodes
        self._price_records = PriceRecords(wiring.run, wiring.recorder, trained_on=self._episodes.training_enabled)
        self._rounds = [self._episodes.first_round] * self._episodes.concurrent
        self.reporter = FallbackReporter(wiring.policy)
        """Tells the server of the last fallback actions of an episode."""

    def _process(self, batch: list[EndEvent | OpenEvent]) -> None:
        ends = list({event.episode: event for event in batch if isinstance(event, EndEvent) and not event.episode.ended}.values())
        slots = [event.episode.slot for event in ends] + [event.slot for event in batch if isinstance(event, OpenEvent)]
        if ends:
            self._end(ends)
        self._begin(slots)

    # Ends ----------------------------------------------------------------------------------------------------------------------------

    def _end(self, events: Sequence[EndEvent]) -> None:
        """End episodes with the server and record them."""
        lost = self._tell_server([event for event in events if event.ending != "lost" and event.episode.started])
        endings: list[tuple[Episode, Ending]] = []
        for event in events:
            ending: Ending = "lost" if event.episode in lost else event.ending
            event.episode.ended = True
            endings.append((event.episode, ending))
            self._run_state.add_ending(ending)
        self._record(endings)

    def _tell_server(self, events: Sequence[EndEvent]) -> dict[Episode, PolicyServerError]:
        """End episodes that the server knows; return those that it no longer does."""
        lost = self.reporter.report([event.episode for event in events])
        rest = [event for event in events if event.episode not in lost]
        if rest:
            ids = [event.episode.id for event in rest]
            observations = np.array([event.episode.observation for event in rest])
            truncated = np.array([event.ending != "terminated" for event in rest])
            try:
                self._policy.end_episodes(ids, observations, truncated, timeout_s=_END_TIMEOUT_S)
            except PolicyServerError as error:
                lost |= {rest[row].episode: row_error for row, row_error in row_errors(error, len(rest)).items()}
        if lost:
            logger.warning("%s: %d episodes could not be ended (%s)", self.name, len(lost), next(iter(lost.values())))
        return lost

    def _record(self, endings: Sequence[tuple[Episode, Ending]]) -> None:
        """Write the points of ended episodes; those that ran their full length, or into ruin, count for the statistics of the run."""
        whole = [(e, ending) for e, ending in endings if ending == "terminated" or (ending == "truncated" and e.steps == e.prices.n_steps)]
        nothing = random = None
        if whole:
            prices = [episode.prices for episode, _ in whole]
            nothing, random = no_trade(self._account, prices), random_actions(self._account, prices, self._seed)
            self._run_state.episodes.extend(
                [
                    (e.return_sum, nothing.returns[i], random.returns[i], *_profit_and_costs(e), random.profits[i], random.costs[i])
                    for i, (e, _) in enumerate(whole)
                ]
            )
        partly = [(e, ending) for e, ending in endings if (e, ending) not in whole]
        self._write(whole, nothing, random)
        self._write(partly, None, None)

    def _write(self, endings: Sequence[tuple[Episode, Ending]], nothing: ReplayResult | None, random: ReplayResult | None) -> None:
        """Write one point for each episode."""
        if not endings:
            return
        episodes = [episode for episode, _ in endings]
        money = [_profit_and_costs(episode) for episode in episodes]
        columns: dict[str, Sequence[Any]] = {
            "episode": [episode.id for episode in episodes],
            "return": [episode.return_sum for episode in episodes],
            "length": [episode.steps for episode in episodes],
            "profit": [profit for profit, _ in money],
            "costs": [costs for _, costs in money],
            "turnover": [episode.account.turnover / self._account.initial_equity for episode in episodes],
            "drawdown": [episode.account.drawdown for episode in episodes],
            "ended": [ending for _, ending in endings],
            "cut": [nothing is None] * len(episodes),
            "seed": [self._seed] * len(episodes),
            "parameters": [json.dumps(episode.prices.parameters) for episode in episodes],
        }
        if nothing is not None and random is not None:
            columns |= {"no_trade_return": nothing.returns.tolist(), "random_return": random.returns.tolist()}
        self._recorder.write("episode", columns, symbol=[episode.symbol for episode in episodes])

    # Beginnings ----------------------------------------------------------------------------------------------------------------------

    def _begin(self, slots: Sequence[int]) -> None:
        """Begin the next episode of each slot, or give the slots back when the run is ending."""
        if not slots:
            return
        episodes = [] if self._run_state.stopping.is_set() else [self._next(slot) for slot in slots]
        if episodes and self._start_with_server([episode.id for episode in episodes]):
            self._routes.market.push_many([OrderEvent(episode, None) for episode in episodes])
        else:
            self._run_state.give_back_slots(len(slots))

    def _next(self, slot: int) -> Episode:
        """Make a slot's next episode: symbol and prices are a function of its number, and every symbol has its turn."""
        symbols = self._source.symbols
        number = self._rounds[slot] * self._episodes.concurrent + slot
        symbol = symbols[number % len(symbols)]
        self._rounds[slot] += 1
        prices = self._source.episode(symbol, number)
        self._price_records.note(prices)
        episode = Episode(slot, f"{symbol}-{number}", prices, Account(self._account, float(prices.bars.open[0])))
        for _ in range(prices.warmup_bars - 1):
            if (bar := prices.next_bar()) is not None:
                episode.features.update(bar)
        return episode

    def _start_with_server(self, episode_ids: Sequence[str]) -> bool:
        """Start episodes as soon as there is a server; return False when the run ended before there was one."""
        waited = False
        while not self._run_state.stopping.is_set():
            try:
                self._policy.start_episodes(episode_ids, self._episodes.training_enabled)
                if waited:
                    logger.warning("%s: the server is there, %d episodes begin", self.name, len(episode_ids))
                return True
            except (HandshakeError, ServerEndedError) as error:  # waiting does not help
                self._run_state.fail(error)
                return False
            except NO_ANSWER as error:
                if not waited:
                    logger.warning("%s: %d episodes wait for the server (%s)", self.name, len(episode_ids), error)
                waited = True
                self._run_state.stopping.wait(_RETRY_S)
        return False


def _profit_and_costs(episode: Episode) -> tuple[float, float]:
    """Return an episode's simple profit and its costs, fractions of the initial equity."""
    account = episode.account
    return account.profit, account.costs / account.config.initial_equity
