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
from policyserver.pipelines.baselines import Baselines
from policyserver.pipelines.comparison.comparison import Comparison, compare
from policyserver.pipelines.comparison.kept_episodes import EpisodeSample, KeptEpisodes
from policyserver.pipelines.config import UNNAMED_RUN, PipelineConfig
from policyserver.pipelines.events import EndEvent, Event, OpenEvent
from policyserver.pipelines.forecast.block_forecaster import STATISTICS
from policyserver.pipelines.forecast.forecasts import Forecasts, window_bars
from policyserver.pipelines.forecast.state_file import ForecastState, read_state
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.split import Reach
from policyserver.pipelines.nodes.episode_node import EpisodeNode
from policyserver.pipelines.nodes.execution_node import ExecutionNode
from policyserver.pipelines.nodes.market_node import MarketNode
from policyserver.pipelines.nodes.pipeline_node import Wiring
from policyserver.pipelines.nodes.policy_node import PolicyNode
from policyserver.pipelines.nodes.portfolio_node import PortfolioNode
from policyserver.pipelines.nodes.reward_node import RewardNode
from policyserver.pipelines.nodes.signal_node import SignalNode, ended_episodes
from policyserver.pipelines.played_block import PlayedBlock, shares_of
from policyserver.pipelines.price_records import PriceRecords
from policyserver.pipelines.prices import PriceSource, make_source
from policyserver.pipelines.replay.turn import NoTurns, Turns
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

    def __init__(
        self,
        config: PipelineConfig,
        policy: PolicyService,
        sink: Sink,
        *,
        source: PriceSource | None = None,
        turns: Turns | None = None,
        start: ForecastState | None = None,
    ) -> None:
        """Wire the nodes; nothing runs yet.

        Args:
            config: Settings.
            policy: The client; it stays the caller's.
            sink: Takes every point; it stays the caller's.
            source: Prices; default: those that `config.prices` describes.
            turns: Takes what happened to each block; it stays the caller's. None: it is not kept.
            start: What the forecaster begins with; default: the state that `config.regressor` names, as it is.

        Raises:
            SettingsError: That state can't be read.
            ValueError, OSError: The prices cannot be made; see `make_source`.
        """
        self.config = config
        nodes = config.nodes
        rules = Rules.of(config.rules)
        source = source or make_source(config.prices, config.episodes_seed, reach=reach_of(rules))
        self.symbols = source.symbols
        self.annualisations = source.annualisations
        """By what an episode trades, the bars of a year."""
        self.price_notes = source.notes
        """How many windows there are of each symbol, and how many are left out and why."""
        self.tags = {
            "run": config.recording.run or UNNAMED_RUN,
            "policy": config.recording.policy,
            "process": config.prices.name,
            "worker": f"{socket.gethostname()}-{os.getpid()}",
        }
        self._recorder = recorder = Recorder(sink, self.tags)
        self._rules = rules
        self._source = source
        self.run = RunState(config.episodes.concurrent, config.episodes.steps, of_test=config.measures_all)
        self._kept = KeptEpisodes(of_test=config.measures_all)
        start = start or read_state(config.regressor)
        self._forecasts = Forecasts(config.regressor, is_recorded=source.is_recorded, stopping=self.run.stopping.is_set, start=start)
        self.blocks = self._make_blocks()
        """The blocks that are played, by their numbers."""
        self._routes = routes = Routes()
        self._turns = turns or NoTurns()
        wiring = Wiring(config, self, routes, self.run, recorder, policy, source, self._turns)
        self._rewards = _replicas(RewardNode, "reward", nodes.reward_threads, wiring)
        self._policies = _replicas(PolicyNode, "policy", nodes.policy_threads, wiring)
        self._episode_node = EpisodeNode(
            "episode", wiring, Baselines(rules, source.slots, config.episodes_seed, source.columns), self._kept
        )
        self._reporters = [*(node.reporter for node in self._policies), self._episode_node.reporter]
        signals = _replicas(
            lambda name, wiring: SignalNode(name, wiring, lambda: self._forecasts.skipped), "signal", nodes.signal_threads, wiring
        )
        prices = PriceRecords(self.run, recorder, trained_on=config.training_enabled)
        markets = _replicas(lambda name, wiring: MarketNode(name, wiring, prices), "market", nodes.market_threads, wiring)
        routes.market = NodeGroup("market", markets, _block_number)
        routes.execution = NodeGroup("execution", _replicas(ExecutionNode, "execution", nodes.execution_threads, wiring), _block_number)
        routes.reward = NodeGroup("reward", self._rewards, _block_number)
        routes.signal = NodeGroup("signal", signals, _block_number)
        routes.policy = NodeGroup("policy", self._policies, _block_number)
        routes.portfolio = NodeGroup("portfolio", _replicas(PortfolioNode, "portfolio", nodes.portfolio_threads, wiring), _block_number)
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
        self._routes.market.push_many([OpenEvent(played) for played in self.blocks])

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
        self._recorder.flush()
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

    @property
    def kept_episodes(self) -> EpisodeSample:
        """The whole episodes that can be played again. To be read after the stop."""
        return self._kept.sample()

    def compare(self, kept: EpisodeSample | None = None) -> Comparison | None:
        """Return the measures of episodes, by default the run's own, beside those of other policies; None without one.

        To follow the stop.
        """
        return compare(self._rules, self._source, kept or self.kept_episodes, self.config.episodes_seed)

    def forecast_state(self) -> ForecastState:
        """Return what the forecaster has learnt so far. Raises what a model does that can't be pickled."""
        return self._forecasts.state(window_bars(self._source), self._source.bar_intervals_ns, self.config.episodes_seed)

    def statistics(self) -> list[NodeStatistics]:
        """Return the counters of each node, in the order of a step."""
        return [group.statistics() for group in self._groups]

    @property
    def nodes(self) -> dict[str, Node[Any]]:
        """The nodes by name, of several replicas the first."""
        return {group.name: group.replicas[0] for group in self._groups}

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
        """End the episodes of events that will never be handled, and let other blocks play in their slots."""
        for event in events:
            try:
                if isinstance(event, EndEvent):
                    self._forget(event)
                else:
                    self._replace(event.played)
            except NodeError as error:
                self.run.fail(error)

    def _forget(self, event: EndEvent) -> None:
        """Count the episodes of an end that failed; the server ends them by itself."""
        self.run.add_ending("abandoned", len(event.ended))
        if event.retired_rows:
            self.run.give_back_slots(event.retired_rows)

    def _replace(self, played: PlayedBlock) -> None:
        """Abandon a block, and open another one in its place: what a failure has left of its arrays is not to be relied on."""
        if played.abandoned:
            return
        played.abandoned = True
        if played.turn.marked and not played.turn.wall_ns:
            played.turn.is_abandoned = True
            self._turns.add(played.turn)
        ended = ended_episodes(played, played.playing, "abandoned", "abandoned")
        new = self.make_block(played.number, played.first_slot, played.block.shape.n_rows)
        new.rounds[:] = played.rounds
        self.blocks[played.number] = new
        self._routes.episode.push_many([EndEvent(tuple(ended))])
        self._routes.market.push_many([OpenEvent(new)])

    # Blocks --------------------------------------------------------------------------------------------------------------------------

    def _make_blocks(self) -> list[PlayedBlock]:
        """Share the concurrent episodes among blocks of nearly one size."""
        blocks: list[PlayedBlock] = []
        first_slot = 0
        for n_rows in shares_of(self.config.episodes.concurrent, self.config.nodes.blocks):
            blocks.append(self.make_block(len(blocks), first_slot, n_rows))
            first_slot += n_rows
        return blocks

    def make_block(self, number: int, first_slot: int, n_rows: int) -> PlayedBlock:
        """Make a block whose rows are vacant."""
        config = self.config
        block = EpisodeBlock(n_rows, self._source.slots, self._rules, STATISTICS, self._source.columns)
        block.broker.log.with_market_orders = config.recording.market_order_events
        forecaster = self._forecasts.make(block.view, number)
        begins = config.episodes.begins[first_slot : first_slot + n_rows]
        return PlayedBlock(number, first_slot, block, forecaster, begins, config.episodes.count)


def reach_of(rules: Rules) -> Reach:
    """Return how far a decision looks back, by the rules and the forecaster, and ahead."""
    return Reach(max(rules.memory_bars(), *(statistic.memory_bars() for statistic in STATISTICS)))


def _block_number(event: Any) -> int:
    played: PlayedBlock = event.played
    return played.number


def _replicas(make: Callable[[str, Wiring], NodeT], name: str, threads: int, wiring: Wiring) -> list[NodeT]:
    """Make as many nodes as there are to be threads."""
    names = [name] if threads == 1 else [f"{name}-{index}" for index in range(1, threads + 1)]
    return [make(replica, wiring) for replica in names]
