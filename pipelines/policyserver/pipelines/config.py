"""Settings of a pipeline process: what it trades, on which prices, against which server, and where it records."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from policyserver.common.settings import Config
from policyserver.monitoring.recording import RecordingConfig
from policyserver.pipelines.fallback import Fallback
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.played_block import shares_of
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.runtime.inbox import NodeConfig

UNNAMED_RUN = "pipeline"
"""Name of a run that neither the settings nor the server name."""


@dataclass(frozen=True, slots=True)
class ServerConnectionConfig(Config):
    """Where the policy server is."""

    address: str = "127.0.0.1:9900"
    """host:port or unix:path of the policy server."""
    tls_ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate; needed off this machine."""
    token_file: Path | None = None
    """File with the token that the server wants; needed off this machine."""
    instance_id: str | None = None
    """What the server calls itself; another one at the address is refused. None: any server will do."""
    connect_timeout_s: Annotated[float, Gt(0)] = 5.0
    """Longest wait for a connection when episodes begin, seconds; the pipeline then tries again."""


@dataclass(frozen=True, slots=True)
class PlayedEpisodesConfig(Config):
    """How many episodes are played, and for what."""

    concurrent: Annotated[int, Ge(1)] = 64
    """Episodes that are played at the same time; the n-th of all episodes trades symbol n modulo the number of symbols, unless
    `prices.windows.order` says otherwise."""
    steps: Annotated[int, Ge(1)] | None = None
    """Steps after which the run ends; none: only when it is asked to."""
    count: Annotated[int, Ge(1)] | None = None
    """Episodes after which the run ends, each played to its end; none: any number."""
    training_enabled: bool | None = None
    """Whether the server may learn from the episodes; none: unless the test part of `[prices.split]` is played."""
    first_round: Annotated[int, Ge(0)] = 0
    """Episodes that an earlier run played in each slot; this run goes on with the prices after them."""
    first_rounds: tuple[int, ...] = ()
    """The same by slot, where an earlier run played more episodes in some than in others, one number for each of `concurrent`; none:
    `first_round` in each."""

    def _check(self) -> None:
        if self.first_rounds and min(self.first_rounds) < 0:
            raise ValueError(f"first_rounds: expected numbers of at least 0, received {min(self.first_rounds)}")
        if self.first_rounds and len(self.first_rounds) != self.concurrent:
            raise ValueError(f"first_rounds: expected {self.concurrent} numbers, one for each slot, received {len(self.first_rounds)}")
        if self.first_rounds and self.first_round:
            raise ValueError(
                f"first_rounds: expected none beside first_round = {self.first_round}, received {len(self.first_rounds)} numbers"
            )

    @property
    def begins(self) -> IntArray:
        """Of each slot the episodes that were played before, int64 (concurrent,)."""
        return np.array(self.first_rounds or [self.first_round] * self.concurrent, dtype=np.int64)

    def after(self, rounds: IntArray) -> PlayedEpisodesConfig:
        """Return the settings of a run that goes on after that many episodes of each slot, int64 (concurrent,)."""
        if (rounds == rounds[0]).all():
            return replace(self, first_round=int(rounds[0]), first_rounds=())
        return replace(self, first_round=0, first_rounds=tuple(rounds.tolist()))


@dataclass(frozen=True, slots=True)
class PolicyCallsConfig(Config):
    """When an action is too late, and what is done then."""

    action_timeout_s: Annotated[float, Gt(0)] = 2.0
    """Longest wait for the actions of a batch, seconds."""
    waits_for_learner: bool = True
    """Whether bars wait while the learner has all the steps it wants, as simulated or recorded bars can; that wait is not part of
    `action_timeout_s`. False: if steps come faster than the learner takes them, the oldest are dropped."""
    fallback: Fallback = "hold"
    """Without an action in time: give no order and cancel none, so that positions, limits and stops stay (hold); or cancel all orders and
    close the positions at the next open (flatten)."""


@dataclass(frozen=True, slots=True)
class NodesConfig(Config):
    """Threads of each node, their inboxes and their restarts."""

    market_threads: Annotated[int, Ge(1)] = 1
    """Threads that drip bars; blocks of episodes are shared among them."""
    signal_threads: Annotated[int, Ge(1)] = 2
    """Threads that forecast; blocks are shared among them, as among all threads."""
    policy_threads: Annotated[int, Ge(1)] = 2
    """Threads that ask for actions, and so the number of calls in flight."""
    portfolio_threads: Annotated[int, Ge(1)] = 1
    """Threads that size orders."""
    execution_threads: Annotated[int, Ge(1)] = 1
    """Threads that fill orders."""
    reward_threads: Annotated[int, Ge(1)] = 2
    """Threads that mark accounts and log rewards."""
    inbox: NodeConfig = field(default_factory=NodeConfig)
    """Every node's inbox and restarts."""
    blocks: Annotated[int, Ge(1)] | None = None
    """Blocks that the episodes are shared among, each of which one thread of a node has at a time; none: one, and up to four where each has
    1,024 episodes."""


@dataclass(frozen=True, slots=True)
class PipelineRecordingConfig(RecordingConfig):
    """Where every step is recorded."""

    store: Path | None = Path("runs/pipeline.sqlite")
    """File of the embedded store; none: not recorded there."""
    run: str | None = None
    """Name of the run, a tag of every point; a server that records another run is refused. None: the server's, or "pipeline" if it has
    none."""
    policy: str = "default"
    """Name of the policy, a tag of every point."""
    run_folder: Path | None = Path("runs/{time}-seed{seed}")
    """Folder for what is needed to repeat the run: settings, versions, hashes of the data, summary and event log. {time} and {seed} are
    filled in; without {time} an earlier run's is put aside in it. None: not kept."""
    keep_runs: Annotated[int, Ge(1)] | None = 50
    """Newest runs that are kept. When a run begins, older folders of runs beside its own are removed, and the oldest parts in `earlier`; a
    folder in use stays, and so does one with another name or without a run's files. None: all are kept."""
    max_event_bytes: Annotated[int, Ge(1_000_000)] = 1_073_741_824
    """Most bytes of the event log, of which a step takes about 40."""
    when_events_full: Literal["stop_recording", "end_run"] = "stop_recording"
    """When the event log is full: the run goes on without it, what isn't recorded is counted, and a replay gets no further
    (stop_recording); or the run ends (end_run)."""
    market_order_events: bool = False
    """Whether it is recorded, too, that market orders were accepted and filled: nearly as many points as steps, of what the points of
    `order` say already. What becomes of other orders, and every refusal, is recorded in any case."""


@dataclass(frozen=True, slots=True)
class PipelineConfig(Config):
    """A pipeline process."""

    seed: Annotated[int, Ge(0)] = 0
    """Seed of the prices and of the random baseline."""
    worker_number: Annotated[int, Ge(0)] | None = None
    """Number of this pipeline among those with the same seed: each number plays its own episodes, and 0 plays those of the seed alone.
    None: the number that the server gives it; its first client gets 0, and no number comes twice."""
    server: ServerConnectionConfig = field(default_factory=ServerConnectionConfig)
    """Where the policy server is."""
    episodes: PlayedEpisodesConfig = field(default_factory=PlayedEpisodesConfig)
    """How many episodes are played."""
    prices: PricesConfig = field(default_factory=PricesConfig)
    """What is traded."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    """Actions, observations, rewards, ends, money and costs."""
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    """What forecasts."""
    policy: PolicyCallsConfig = field(default_factory=PolicyCallsConfig)
    """Deadline and fallback."""
    nodes: NodesConfig = field(default_factory=NodesConfig)
    """Threads and inboxes."""
    recording: PipelineRecordingConfig = field(default_factory=PipelineRecordingConfig)
    """Where points go."""
    stop_timeout_s: Annotated[float, Gt(0)] = 20.0
    """Longest time the episodes get to end when the process is asked to stop, seconds."""

    def _check(self) -> None:
        split = self.prices.split
        if self.episodes.training_enabled and split is not None and split.play != "train" and not split.learns_on_test:
            expected = "expected false, or prices.split.learns_on_test = true, while the test part is played"
            raise ValueError(f"episodes.training_enabled: {expected}, received true")
        if split is not None and split.play == "both":
            for name in ("steps", "count"):
                if (given := getattr(self.episodes, name)) is not None:
                    expected = 'expected none with prices.split.play = "both", which windows.fold_episodes and the windows end'
                    raise ValueError(f"episodes.{name}: {expected}, received {given}")
        if split is None and self.regressor.in_test != "continue":
            raise ValueError(f"regressor.in_test: expected it to be left out without [prices.split], received {self.regressor.in_test!r}")
        if split is not None and split.learns_on_test and not self.episodes.training_enabled:
            expected = "expected it to be left out without episodes.training_enabled = true"
            raise ValueError(f"prices.split.learns_on_test: {expected}, received true")
        blocks = len(shares_of(self.episodes.concurrent, self.nodes.blocks))
        if self.nodes.inbox.capacity < blocks:
            raise ValueError(
                f"nodes.inbox.capacity: expected room for all {blocks} blocks of episodes, received {self.nodes.inbox.capacity}"
            )

    @property
    def training_enabled(self) -> bool:
        """Whether the server may learn from the episodes, once that is decided."""
        return not self.prices.plays_test if self.episodes.training_enabled is None else self.episodes.training_enabled

    @property
    def measures_all(self) -> bool:
        """Whether figures are of all whole episodes, and not of the newest: the policy does not learn, or is tested."""
        return self.prices.plays_test or not self.training_enabled

    @property
    def episodes_seed(self) -> int:
        """Seed of this pipeline's own episodes: `seed` and the worker number in one, recorded with each of them."""
        if not self.worker_number:
            return self.seed
        mixed = np.random.SeedSequence(self.seed, spawn_key=(self.worker_number,)).generate_state(1, np.uint64)
        return int(mixed[0]) >> 1  # a signed 64-bit integer in every store
