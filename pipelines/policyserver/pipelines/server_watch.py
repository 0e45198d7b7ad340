"""Asks the policy server how serving and learning go, and records the answer once a second."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from policyserver.client import ServerStats, TrainingIteration
from policyserver.common.errors import PolicyServerError
from policyserver.common.figures import known
from policyserver.monitoring.reports import serving_point
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.trouble import Trouble
from policyserver.pipelines.runtime.node import Node

logger = logging.getLogger(__name__)

ASK_S = 0.25
"""Seconds from one question to the next."""

_ANSWERS_PER_POINT = 4


class StatsService(Protocol):
    """Answers questions for statistics, such as `client.PolicyClient`."""

    def stats_by_endpoint(self) -> Mapping[str, ServerStats]:
        """Ask each serving runner for its counters."""


class ServerWatch(Node[Any]):
    """Keeps the newest statistics of all serving runners together; the sums include runners that died."""

    def __init__(self, service: StatsService, sink: Sink, tags: Mapping[str, str]) -> None:
        """Watch `service`; points go to `sink` with the run and policy of `tags`."""
        super().__init__("server-watch", interval_s=ASK_S)
        self._service = service
        self._answers = 0
        self._sink = sink
        self._tags = dict(tags)
        self._boots: dict[str, ServerStats] = {}
        self._present = 0
        self._staleness_sum = 0.0
        self._staleness_steps = 0
        self._iteration = 0
        self._absence = Trouble(logger, "policy server")
        self.latest: ServerStats | None = None
        """Newest statistics; None before the first."""
        self.answered = False
        """Whether the server answered the last question."""

    @property
    def episodes_open(self) -> int | None:
        """Episodes that the server held at the last question; None: it did not answer."""
        return self.latest.episodes_open if self.latest and self.answered else None

    @property
    def server_restarts(self) -> int:
        """Serving processes that answered once, and that another has taken the place of."""
        return len(self._boots) - self._present

    @property
    def reward_sum(self) -> float:
        """Rewards received by all server processes of this run: the server's ledger."""
        return sum(stats.reward_sum for stats in self._boots.values())

    @property
    def steps_dropped(self) -> int:
        """Steps that the hand-off of all server processes dropped."""
        return sum(stats.steps_dropped for stats in self._boots.values())

    @property
    def staleness_mean(self) -> float | None:
        """Mean of (version trained from - version that acted) over the steps of the iterations seen, policy versions."""
        return self._staleness_sum / self._staleness_steps if self._staleness_steps else None

    def _process(self, batch: list[Any]) -> None:
        try:
            each = self._service.stats_by_endpoint().values()
        except PolicyServerError as error:
            self._absence.occurred(type(error).__name__, f"no statistics from it, asking on: {error}")
            self.answered = False
            return
        self.answered = True
        self._absence.is_over("it answers again")
        self._boots.update((stats.boot_id, stats) for stats in each)
        self._present = len(each)
        stats = self.latest = ServerStats.merge(each)
        self._note_iteration(stats.training)
        self._answers += 1
        if self._answers % _ANSWERS_PER_POINT == 1:
            for one in each:
                self._sink.write(serving_point(self._tags, known(one)))

    def _note_iteration(self, training: TrainingIteration | None) -> None:
        """Add a training iteration that was not seen before to the mean staleness."""
        if training is not None and training.iteration != self._iteration:
            self._iteration = training.iteration
            self._staleness_sum += training.staleness_mean * training.steps
            self._staleness_steps += training.steps
