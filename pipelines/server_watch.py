"""Asks the policy server once a second how serving and learning go, and records the answer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from client import ServerStats
from monitoring.points import Points
from monitoring.schema import SERVER
from monitoring.sink import Sink
from pipelines.node import Node
from policyserver.errors import PolicyServerError

logger = logging.getLogger(__name__)


class StatsService(Protocol):
    """What can be asked for statistics; `client.PolicyClient` can."""

    def stats(self) -> ServerStats:
        """Ask the server for its counters."""


class ServerWatch(Node[Any]):
    """Keeps the newest statistics, those of a server that died meanwhile included in the sums."""

    def __init__(self, service: StatsService, sink: Sink, tags: Mapping[str, str], *, interval_s: float = 1.0) -> None:
        """Watch `service`; points go to `sink` with `tags` (run, policy, worker)."""
        super().__init__("server-watch", interval_s=interval_s)
        self._service = service
        self._sink = sink
        self._tags = dict(tags)
        self._boots: dict[str, ServerStats] = {}
        self._staleness_sum = 0.0
        self._staleness_steps = 0
        self._iteration = 0
        self.latest: ServerStats | None = None
        """Newest statistics; None before the first."""

    def ask(self) -> ServerStats | None:
        """Ask once, now, on the calling thread; return None when the server does not answer."""
        try:
            stats = self._service.stats()
        except PolicyServerError as error:
            logger.info("no statistics from the policy server: %s", error)
            return None
        self.latest = stats
        self._boots[stats.boot_id] = stats
        iteration = stats.training
        if iteration is not None and iteration.iteration > self._iteration:
            self._iteration = iteration.iteration
            self._staleness_sum += iteration.staleness_mean * iteration.steps
            self._staleness_steps += iteration.steps
        return stats

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
        stats = self.ask()
        if stats is None:
            return
        fields = {name: value for name, value in dataclasses.asdict(stats).items() if name in SERVER.types and value is not None}
        self._sink.write(Points.one("server", self._tags, fields))
