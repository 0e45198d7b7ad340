"""The pipeline: nodes wired into a circle, started together, stopped in order, watched."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from policyserver.monitoring.sink import Sink
from policyserver.pipelines.config import UNNAMED_RUN, PipelineConfig
from policyserver.pipelines.events import EndEvent, Episode, Event, OpenEvent
from policyserver.pipelines.nodes.episode_node import EpisodeNode
from policyserver.pipelines.nodes.execution_node import ExecutionNode
from policyserver.pipelines.nodes.market_node import MarketNode
from policyserver.pipelines.nodes.pipeline_node import Wiring
from policyserver.pipelines.nodes.policy_node import PolicyNode
from policyserver.pipelines.nodes.portfolio_node import PortfolioNode
from policyserver.pipelines.nodes.reward_node import RewardNode
from policyserver.pipelines.nodes.signal_node import SignalNode
from policyserver.pipelines.prices import PriceSource, make_source
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.inbox import NodeError
from policyserver.pipelines.runtime.latency import LatencyHistogram
from policyserver.pipelines.runtime.node import Node, NodeStatistics
from policyserver.pipelines.runtime.node_group import NodeGroup
from policyserver.pipelines.runtime.node_watch import NodeWatch
from policyserver.pipelines.runtime.routes import Recorder, Routes
from policyserver.pipelines.serving import PolicyService

logger = logging.getLogger(__name__)
NodeT = TypeVar("NodeT", bound=Node[Any])


class Pipeline:
    """Concurrent trading episodes against one policy service.

        with Pipeline(config, client, sink).running() as pipeline:
            pipeline.wait()

    The pipeline supervises its nodes: a failed node's episodes end as truncated and are counted, the node starts again; one that fails
    too often ends the run, and `stop` raises its error.
    """

    def __init__(self, config: PipelineConfig, policy: PolicyService, sink: Sink, *, source: PriceSource | None = None) -> None:
        """Wire the nodes; nothing runs yet.

        Args:
            config: Settings.
            policy: The client; it stays the caller's.
            sink: Takes every point; it stays the caller's.
            source: Prices; default: those that `config.prices` describes.

        Raises:
            ValueError, OSError: The prices cannot be made; see `make_source`.
        """
        self.config = config
        nodes = config.nodes
        source = source or make_source(config.prices, config.episodes_seed)
        self.symbols = source.symbols
        place = {symbol: number for number, symbol in enumerate(source.symbols)}
        self.tags = {
            "run": config.recording.run or UNNAMED_RUN,
            "policy": config.recording.policy,
            "process": config.prices.process,
            "worker": f"{socket.gethostname()}-{os.getpid()}",
        }
        recorder = Recorder(sink, self.tags)
        self.run = RunState(config.episodes.concurrent, config.episodes.steps)
        self._routes = routes = Routes()
        wiring = Wiring(config, self, routes, self.run, recorder, policy, source)
        self._rewards = _replicas(RewardNode, "reward", nodes.reward_threads, wiring)
        self._policies = _replicas(PolicyNode, "policy", nodes.policy_threads, wiring)
        self._episode_node = EpisodeNode("episode", wiring)
        self._reporters = [*(node.reporter for node in self._policies), self._episode_node.reporter]
        signals = _replicas(SignalNode, "signal", nodes.signal_threads, wiring)
        routes.market = NodeGroup("market", _replicas(MarketNode, "market", nodes.market_threads, wiring), _slot)
        routes.execution = NodeGroup("execution", _replicas(ExecutionNode, "execution", nodes.execution_threads, wiring), _slot)
        routes.reward = NodeGroup("reward", self._rewards, _slot)
        routes.signal = NodeGroup("signal", signals, lambda event: place[event.episode.symbol])
        routes.policy = NodeGroup("policy", self._policies, _slot)
        routes.portfolio = NodeGroup("portfolio", _replicas(PortfolioNode, "portfolio", nodes.portfolio_threads, wiring), _slot)
        routes.episode = NodeGroup("episode", [self._episode_node], lambda event: 0)
        circle = (routes.market, routes.execution, routes.reward, routes.signal, routes.policy, routes.portfolio)
        self._groups: tuple[NodeGroup[Any], ...] = (*circle, routes.episode)
        self._watch = NodeWatch(self._groups, self._policies, self.run, recorder)
        self._started_at: float | None = None
        self._stopped_at: float | None = None

    # Life cycle ----------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the nodes and open every slot. Starting again does nothing."""
        if self._started_at is not None:
            return
        self._started_at = time.monotonic()
        for group in self._groups:
            group.start()
        self._watch.start()
        self._routes.episode.push_many([OpenEvent(slot) for slot in range(self.config.episodes.concurrent)])

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the run: enough steps, or a failure. Returns whether it has come."""
        return self.run.ended.wait(timeout_s)

    def stop(self) -> None:
        """End every episode at the bar it has reached, then stop the nodes. Stopping again does nothing.

        Raises:
            BaseException: Whatever made a node fail for good.
        """
        if self._started_at is None or self._stopped_at is not None:
            return
        deadline = time.monotonic() + self.config.stop_timeout_s
        self.run.stopping.set()
        if not self.run.ended.wait(self.config.stop_timeout_s):
            logger.warning("pipeline: not every episode ended within %g s; the server ends the others", self.config.stop_timeout_s)
        for group in self._groups:
            if not group.stop(max(1.0, deadline - time.monotonic())):
                logger.warning("pipeline: node %s did not stop in time", group.name)
        self._watch.stop()
        self._stopped_at = time.monotonic()
        if self.run.failure is not None:
            raise self.run.failure

    @contextmanager
    def running(self) -> Iterator[Pipeline]:
        """Start the pipeline, and stop it when the block is left. Raises the failure of a node, unless the block raised itself."""
        self.start()
        try:
            yield self
        except BaseException:
            try:
                self.stop()
            except Exception:
                logger.exception("pipeline: failed while another error was on its way")
            raise
        self.stop()

    # What is known -------------------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds from the start to the stop, or to now."""
        if self._started_at is None:
            return 0.0
        return (self._stopped_at or time.monotonic()) - self._started_at

    @property
    def reward_sum(self) -> float:
        """Sum of all rewards that were logged with the server: the client's ledger."""
        ledgers = [node.ledger for node in self._rewards] + [reporter.ledger for reporter in self._reporters]
        return math.fsum(ledger.value for ledger in ledgers)

    @property
    def latency(self) -> LatencyHistogram:
        """Durations of the calls for actions."""
        return LatencyHistogram.merged(node.latency for node in self._policies)

    @property
    def fallbacks(self) -> int:
        """Fallback actions taken."""
        return sum(node.fallbacks for node in self._policies)

    @property
    def fallbacks_reported(self) -> int:
        """Fallback actions that the server has been told of."""
        return sum(reporter.reported for reporter in self._reporters)

    def statistics(self) -> list[NodeStatistics]:
        """Return the counters of each node, in the order of a step."""
        return [group.statistics() for group in self._groups]

    # Supervision ---------------------------------------------------------------------------------------------------------------------

    def node_failed(self, node: Node[Any], error: BaseException, in_hand: Sequence[Event], *, restarts: bool) -> None:
        """Give up the episodes that a failed node held, so that their slots go on with others; see `Supervisor`."""
        if not restarts:
            self.run.fail(error)
            return
        self._give_up(node, in_hand)

    def events_dropped(self, node: Node[Any], events: Sequence[Event]) -> None:
        """Give up the episodes that a full inbox dropped; see `Supervisor`."""
        logger.warning("pipeline: the inbox of node %s dropped %d events", node.name, len(events))
        self._give_up(node, events)

    def _give_up(self, node: Node[Any], events: Sequence[Event]) -> None:
        """End the episodes of events that will never be handled."""
        ends: list[EndEvent | OpenEvent] = []
        for event in events:
            if isinstance(event, OpenEvent):
                ends.append(event)
            elif node is self._episode_node and event.episode.ended:
                ends.append(OpenEvent(event.episode.slot))
            else:
                event.episode.abandoned = True
                ends.append(EndEvent(event.episode, "abandoned"))
        try:
            self._routes.episode.push_many(ends)
        except NodeError as error:
            self.run.fail(error)


def _slot(event: Any) -> int:
    episode: Episode = event.episode
    return episode.slot


def _replicas(make: Callable[[str, Wiring], NodeT], name: str, threads: int, wiring: Wiring) -> list[NodeT]:
    """Make as many nodes as there are to be threads."""
    names = [name] if threads == 1 else [f"{name}-{index}" for index in range(1, threads + 1)]
    return [make(replica, wiring) for replica in names]
