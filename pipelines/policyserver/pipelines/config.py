"""Settings of a pipeline process: what it trades, on which prices, against which server, and where it records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from policyserver.monitoring.recording import SinkSettings
from policyserver.pipelines.account import AccountConfig
from policyserver.pipelines.fallback import Fallback
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.regressor import RegressorConfig
from policyserver.pipelines.runtime.node import NodeOptions

UNNAMED_RUN = "pipeline"
"""Name of a run that neither the settings nor the server name."""


@dataclass(frozen=True, slots=True)
class ServerSection:
    """Where the policy server is."""

    address: str = "127.0.0.1:9900"
    """host:port or unix:path of the policy server."""
    tls_ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate; needed off this machine."""
    token_file: Path | None = None
    """File with the token that the server wants; needed off this machine."""
    instance_id: str | None = None
    """What the server calls itself; another one at the address is refused. None: any server will do."""
    connect_timeout_s: float = 5.0
    """Longest wait for a connection when episodes begin, seconds; the pipeline then tries again."""

    def __post_init__(self) -> None:
        _positive("connect_timeout_s", self.connect_timeout_s)


@dataclass(frozen=True, slots=True)
class EpisodesSection:
    """How many episodes are played, and for what."""

    concurrent: int = 64
    """Episodes that are played at the same time; the n-th of all episodes trades symbol n modulo the number of symbols."""
    steps: int | None = None
    """Steps after which the run ends; none: only when it is asked to."""
    training_enabled: bool = True
    """Whether the server may learn from the episodes."""
    show_prediction: bool = True
    """Whether observations have the regressor's forecast in them, or zeros in its place."""
    first_round: int = 0
    """Episodes that an earlier run played in each slot; this run goes on with the prices after them."""

    def __post_init__(self) -> None:
        _at_least("concurrent", self.concurrent, 1)
        _at_least("first_round", self.first_round, 0)
        if self.steps is not None:
            _at_least("steps", self.steps, 1)


@dataclass(frozen=True, slots=True)
class PolicySection:
    """When an action is too late, and what is done then."""

    action_deadline_s: float = 2.0
    """Longest wait for the actions of a batch, seconds."""
    waits_for_learner: bool = True
    """Whether bars wait while the learner has all the steps it wants, as those that are simulated or read from a file can; that wait is no
    part of `action_deadline_s`. False: of what comes faster than it is learned from, the oldest steps are dropped."""
    fallback: Fallback = "hold"
    """Without an action in time: keep the position (hold), or close it at the next open (flatten)."""

    def __post_init__(self) -> None:
        _positive("action_deadline_s", self.action_deadline_s)
        if self.fallback not in ("hold", "flatten"):
            raise ValueError(f'fallback: expected "hold" or "flatten", received {self.fallback!r}')


@dataclass(frozen=True, slots=True)
class NodesSection:
    """Threads of each node, their inboxes and their restarts."""

    market_threads: int = 1
    """Threads that drip bars; episodes are shared among them."""
    signal_threads: int = 2
    """Threads that forecast; symbols are shared among them."""
    policy_threads: int = 2
    """Threads that ask for actions, and so the number of calls in flight."""
    portfolio_threads: int = 1
    """Threads that size orders."""
    execution_threads: int = 1
    """Threads that fill orders."""
    reward_threads: int = 2
    """Threads that mark accounts and log rewards."""
    inbox: NodeOptions = field(default_factory=NodeOptions)
    """Every node's inbox and restarts."""

    def __post_init__(self) -> None:
        for name in ("market", "signal", "policy", "portfolio", "execution", "reward"):
            _at_least(f"{name}_threads", getattr(self, f"{name}_threads"), 1)


@dataclass(frozen=True, slots=True)
class RecordingSection(SinkSettings):
    """Where every step is recorded."""

    run: str | None = None
    """Name of the run, a tag of every point; a server that records another run is refused. None: the server's, or "pipeline" if it has
    none."""
    policy: str = "default"
    """Name of the policy, a tag of every point."""
    store: Path | None = Path("runs/pipeline.sqlite")
    """File of the embedded store; none: not recorded there."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """A pipeline process."""

    seed: int = 0
    """Seed of the prices and of the random baseline."""
    worker_number: int | None = None
    """Which of the pipelines with this seed it is: each number plays episodes of its own, and 0 those of the seed alone. None: the number
    that the server gives it, the first of its clients 0, and none twice."""
    server: ServerSection = field(default_factory=ServerSection)
    """Where the policy server is."""
    episodes: EpisodesSection = field(default_factory=EpisodesSection)
    """How many episodes are played."""
    prices: PricesConfig = field(default_factory=PricesConfig)
    """What is traded."""
    account: AccountConfig = field(default_factory=AccountConfig)
    """Money and costs."""
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    """What forecasts."""
    policy: PolicySection = field(default_factory=PolicySection)
    """Deadline and fallback."""
    nodes: NodesSection = field(default_factory=NodesSection)
    """Threads and inboxes."""
    recording: RecordingSection = field(default_factory=RecordingSection)
    """Where points go."""
    stop_timeout_s: float = 20.0
    """Longest time the episodes get to end when the process is asked to stop, seconds."""

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        if self.worker_number is not None:
            _at_least("worker_number", self.worker_number, 0)
        _positive("stop_timeout_s", self.stop_timeout_s)
        if self.nodes.inbox.capacity < self.episodes.concurrent:
            raise ValueError(
                f"nodes.inbox.capacity: expected room for all {self.episodes.concurrent} concurrent episodes, "
                f"received {self.nodes.inbox.capacity}"
            )

    @property
    def episodes_seed(self) -> int:
        """Seed of this pipeline's own episodes: `seed` and the worker number in one, recorded with each of them."""
        if not self.worker_number:
            return self.seed
        mixed = np.random.SeedSequence(self.seed, spawn_key=(self.worker_number,)).generate_state(1, np.uint64)
        return int(mixed[0]) >> 1  # a signed 64-bit integer in every store


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, received {value}")


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, received {value}")
