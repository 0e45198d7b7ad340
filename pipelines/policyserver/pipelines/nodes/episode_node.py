"""Ends episodes with the server, compares them with the baselines, and records what came of them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.common.errors import PolicyServerError
from policyserver.pipelines.baselines import Baselines
from policyserver.pipelines.comparison.kept_episodes import KeptEpisode, KeptEpisodes
from policyserver.pipelines.events import Ended, EndEvent
from policyserver.pipelines.fallback import FallbackReporter, row_errors
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring

logger = logging.getLogger(__name__)

_COMPARE_S = 2.0
"""Longest time that an episode waits for others to be compared together with them: a bar of the baselines costs nearly the same, however
many episodes it is of."""

_COMPARED_BARS = 131_072
"""Bars of the episodes that wait at most."""

_END_TIMEOUT_S = 5.0
"""Longest wait for the end of episodes: longer than an action's, for no row waits behind it, and one given up stays open at the server."""


class EpisodeNode(PipelineNode[EndEvent]):
    """Everything about an episode that comes after its last bar.

    It has a thread of its own because it may wait for a server that is away, while the rows that the episodes were in go on.
    """

    def __init__(self, name: str, wiring: Wiring, baselines: Baselines, kept: KeptEpisodes) -> None:
        """Make the node; see `Node`. Episodes are compared with `baselines`, and whole ones go to `kept`."""
        super().__init__(name, wiring)
        self._kept = kept
        self._baselines = baselines
        self._seed = wiring.config.episodes_seed
        self.reporter = FallbackReporter(wiring.policy)
        """Tells the server of the last fallback actions of an episode."""
        self._uncompared: list[Ended] = []
        self._bars = 0  # of those episodes
        self._compare_at_s = 0.0

    def _process(self, batch: list[EndEvent]) -> None:
        ended = [episode for event in batch for episode in event.ended]
        if ended:
            lost = self._tell_server(ended)
            self._run_state.spans.update(episode.episode.span for episode in ended if episode.episode.span)
            for episode in ended:
                self._run_state.add_ending("lost" if episode.id in lost else episode.ending)
            self._record(ended, lost)
        retired = sum(event.retired_rows for event in batch)
        if self._uncompared and (retired or self._bars >= _COMPARED_BARS or time.monotonic() >= self._compare_at_s):
            self._compare()
        if retired:
            self._run_state.give_back_slots(retired)

    def _wait_s(self) -> float | None:
        return max(0.0, self._compare_at_s - time.monotonic()) if self._uncompared else None

    def _stop(self) -> None:
        if self._uncompared:
            self._compare()

    def _tell_server(self, ended: Sequence[Ended]) -> dict[str, PolicyServerError]:
        """End episodes that the server knows; return those that it no longer does."""
        told = [episode for episode in ended if episode.ending != "lost" and (episode.is_started or episode.unreported)]
        lost = self.reporter.report({episode.id: episode.unreported for episode in told})
        rest = [episode for episode in told if episode.id not in lost]
        if rest:
            observations = np.stack([episode.observation for episode in rest])
            truncated = np.array([episode.ending != "terminated" for episode in rest])
            try:
                self._policy.end_episodes([episode.id for episode in rest], observations, truncated, timeout_s=_END_TIMEOUT_S)
            except PolicyServerError as error:
                lost |= {rest[row].id: row_error for row, row_error in row_errors(error, len(rest)).items()}
        if lost:
            logger.warning("%s: %d episodes could not be ended (%s)", self.name, len(lost), next(iter(lost.values())))
        return lost

    def _record(self, ended: Sequence[Ended], lost: dict[str, PolicyServerError]) -> None:
        """Write the points of ended episodes; those that ran their full length, or into ruin, count for the statistics of the run."""
        whole = [e for e in ended if e.id not in lost and (e.ending == "terminated" or e.reason not in ("stopped", "lost", "abandoned"))]
        partly = [episode for episode in ended if episode not in whole]
        if whole:
            if not self._uncompared:
                self._compare_at_s = time.monotonic() + _COMPARE_S
            self._uncompared += whole
            self._bars += sum(episode.episode.bars.n_steps for episode in whole)
        if partly:
            self._write(partly, lost, {})

    def _compare(self) -> None:
        """Compare the episodes that wait with the baselines."""
        whole, self._uncompared, self._bars = self._uncompared, [], 0
        self._kept.extend([KeptEpisode(each.episode, each.actions, each.kinds, each.profit) for each in whole])
        nothing, random = self._baselines.of([episode.episode for episode in whole])
        self._run_state.add_results(
            [
                (e.return_sum, nothing.returns[i], random.returns[i], e.profit, e.costs, random.profits[i], random.costs[i])
                for i, e in enumerate(whole)
            ]
        )
        self._write(whole, {}, {"no_trade_return": nothing.returns, "random_return": random.returns})

    def _write(self, ended: Sequence[Ended], lost: dict[str, PolicyServerError], baselines: dict[str, Any]) -> None:
        """Write one point for each episode."""
        columns: dict[str, Sequence[Any]] = {
            "episode": [episode.id for episode in ended],
            "return": [episode.return_sum for episode in ended],
            "length": [episode.steps for episode in ended],
            "span": [episode.episode.span or None for episode in ended],
            "first_bar_s": [episode.episode.first_ns * 1e-9 for episode in ended],
            "last_bar_s": [episode.episode.last_ns * 1e-9 for episode in ended],
            "profit": [episode.profit for episode in ended],
            "costs": [episode.costs for episode in ended],
            "turnover": [episode.turnover for episode in ended],
            "drawdown": [episode.drawdown for episode in ended],
            "ended": ["lost" if episode.id in lost else episode.ending for episode in ended],
            "cut": [not baselines] * len(ended),
            "seed": [self._seed] * len(ended),
            "parameters": [json.dumps(dict(episode.episode.bars.parameters)) for episode in ended],
        }
        self._recorder.write("episode", columns | baselines, symbol=[episode.symbol for episode in ended])
