"""The configuration of a policy server: a tree of frozen dataclasses, read from one TOML file.

Every value is checked here, before Ray, torch or a socket is touched. The defaults are a complete set-up: PPO with a small LSTM on
`Box(-100, 100, (10,))` and `Discrete(3)`, served on 127.0.0.1:9900.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym

from policyserver.common.endpoints import is_local, parse_address
from policyserver.monitoring.page.listen import PageListen, check_page_address
from policyserver.monitoring.recording import SinkSettings
from policyserver.server.config.algorithm_defaults import DEFAULTS_BY_ALGORITHM
from policyserver.server.config.space_tables import space_from_config
from policyserver.server.config.standard_connectors import ConnectorsConfig
from policyserver.server.policies.module.action_form import ActionForm, UnsupportedSpaceError


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name}: expected a number of at least {least}, got {value!r}")


def _at_most(name: str, value: float, most: float) -> None:
    if not value <= most:
        raise ValueError(f"{name}: expected a number of at most {most}, got {value!r}")


def _above(name: str, value: float, bound: float) -> None:
    if not (math.isfinite(value) and value > bound):
        raise ValueError(f"{name}: expected a number above {bound}, got {value!r}")


@dataclass(frozen=True)
class ListenConfig:
    """Where the policy service listens and how it is protected."""

    address: str = "127.0.0.1:9900"
    """HOST:PORT or unix:PATH. Port 0 lets the system choose. With several serving actors, actor n listens on PORT + n - 1."""
    tls_certificate_file: Path | None = None
    """PEM file with the server's certificate chain. Must be given when the address is neither loopback nor a unix socket."""
    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""
    token_file: Path | None = None
    """File with the secret that every client must send, readable by its owner alone. Must be given when the address is not local."""
    max_message_bytes: int = 16 * 2**20
    """Largest message that is read, bytes."""
    max_rows_per_message: int = 16_384
    """Largest number of rows of one StepBatch."""
    max_clients: int = 1000
    """Streams at once; one more is refused with RESOURCE_EXHAUSTED."""
    max_unanswered_bytes: int = 8 * 2**20
    """Bytes held for one stream, of rows that wait for an answer and of answers that its client has not taken; it is read again once there
    are fewer."""
    reflection: bool = True
    """Whether gRPC server reflection is served, so that grpcurl works without the .proto files."""

    def __post_init__(self) -> None:
        parse_address(self.address)
        _at_least("max_message_bytes", self.max_message_bytes, 1024)
        _at_least("max_rows_per_message", self.max_rows_per_message, 1)
        _at_least("max_clients", self.max_clients, 1)
        _at_least("max_unanswered_bytes", self.max_unanswered_bytes, 1)
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError(
                "tls_key_file: expected together with tls_certificate_file or not at all, "
                f"got {self.tls_key_file} and {self.tls_certificate_file}"
            )


@dataclass(frozen=True)
class EpisodesConfig:
    """How many episodes are held, and for how long."""

    max_open: int = 100_000
    """Episodes held at once; a start beyond it is refused with RESOURCE_EXHAUSTED."""
    max_open_bytes: int = 8 * 2**30
    """Bytes that open episodes may take, and as many again the steps that wait for the learner: fewer than `max_open` are held where so
    many would take more, as with images."""
    episode_idle_timeout_s: float = 60.0
    """Seconds after the loss of a client's stream until its episodes end as truncated. A connected client may wait for ever."""
    unary_idle_timeout_s: float = 900.0
    """Seconds without a call until the episode of a unary caller, who has no stream, ends as truncated."""
    finished_remembered: int = 100_000
    """Finished episode ids remembered, so that a late call is answered "finished" rather than "unknown"."""
    max_waiting_info_bytes: int = 64 * 2**20
    """Bytes of the infos of steps that wait for the learner; what comes beyond is left out of its step, and counted."""

    def __post_init__(self) -> None:
        _at_least("max_open", self.max_open, 1)
        _at_least("max_open_bytes", self.max_open_bytes, 1)
        _above("episode_idle_timeout_s", self.episode_idle_timeout_s, 0.0)
        _above("unary_idle_timeout_s", self.unary_idle_timeout_s, 0.0)
        _at_least("finished_remembered", self.finished_remembered, 0)
        _at_least("max_waiting_info_bytes", self.max_waiting_info_bytes, 0)


@dataclass(frozen=True)
class HandOffConfig:
    """How completed steps reach the learner, and what happens to those it can't absorb."""

    segment_steps: int = 64
    """Longest run of consecutive steps of one episode that is handed over, or dropped, as a whole. A recurrent net's is cut down to a
    multiple of `max_seq_len`, but to one at least; where updates are counted by steps, it is no more than the learner takes at a time."""
    batches_ahead: float | None = None
    """Batches that clients may play while the learner is busy with the one before, so that acting and learning overlap; each step is then
    so many policy versions older. Unset: 0 with PPO, whose batches come from one version as RLlib's own runner makes them, and 1 with the
    others."""
    room_wait_s: float = 120.0
    """Longest time that clients which can wait are told to wait for the learner. After it they go on, and the oldest steps are dropped."""
    max_segment_age_s: float = 60.0
    """With APPO and IMPALA: age at which steps are handed over though there are fewer than a fragment."""
    capacity_steps: int | None = None
    """Steps that may wait for the learner; of more the oldest are dropped. Unset: a fragment (with PPO a train batch), those that may be
    played ahead, and a segment for each open episode."""
    sample_wait_s: float = 2.0
    """Longest time one `sample()` of the env runner waits for steps; weights and health checks wait behind it."""

    def __post_init__(self) -> None:
        _at_least("segment_steps", self.segment_steps, 1)
        if self.batches_ahead is not None:
            _at_least("batches_ahead", self.batches_ahead, 0.0)
            _at_most("batches_ahead", self.batches_ahead, 100.0)
        _above("room_wait_s", self.room_wait_s, 0.0)
        _at_least("max_segment_age_s", self.max_segment_age_s, 0.0)
        if self.capacity_steps is not None:
            _at_least("capacity_steps", self.capacity_steps, self.segment_steps)
        _above("sample_wait_s", self.sample_wait_s, 0.0)


@dataclass(frozen=True)
class InferenceConfig:
    """How the net is run for an action."""

    backend: Literal["auto", "numpy", "torch"] = "auto"
    """What computes it. `auto` measures at the start which is the faster, for each size of a batch; nets other than RLlib's default ones
    always run in torch. The two differ in the last digits."""


@dataclass(frozen=True)
class SpacesConfig:
    """What an observation and an action are, as tables that `space_from_config` reads."""

    observation: dict[str, Any] = field(
        default_factory=lambda: {"type": "Box", "low": -100.0, "high": 100.0, "shape": [10], "dtype": "float32"}
    )
    """The observation space, e.g. `{type = "Box", low = -100, high = 100, shape = [10], dtype = "float32"}`."""
    action: dict[str, Any] = field(default_factory=lambda: {"type": "Discrete", "n": 3})
    """The action space, e.g. `{type = "Discrete", n = 3}`."""

    def __post_init__(self) -> None:
        space_from_config(self.observation, "observation")
        try:
            ActionForm(space_from_config(self.action, "action"), normalize=True, clip=False)
        except UnsupportedSpaceError as error:
            raise ValueError(f"action: {error}") from error

    @property
    def observation_space(self) -> gym.Space[Any]:
        """The observation space as a Gymnasium object."""
        return space_from_config(self.observation, "observation")

    @property
    def action_space(self) -> gym.Space[Any]:
        """The action space as a Gymnasium object."""
        return space_from_config(self.action, "action")


@dataclass(frozen=True)
class AlgorithmSection:
    """The RLlib algorithm: each table is a method of its AlgorithmConfig, each key one of the method's arguments.

    A text "python:package.module.Name" stands for that Python object, for arguments that want a class or a function.
    """

    name: Literal["PPO", "APPO", "IMPALA", "DQN", "SAC"] = "PPO"
    """The algorithm, by RLlib's name."""
    training: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.training`, e.g. `lr`."""
    rl_module: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.rl_module`; its `model_config` takes the fields of RLlib's DefaultModelConfig.

    `module_class = "python:package.module.Class"` is an RLModule of your own instead, whose `model_config` takes any keys.
    """
    learners: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.learners`."""
    env_runners: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.env_runners`; `num_env_runners` is the number of serving actors."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.environment`, spaces apart."""
    fault_tolerance: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.fault_tolerance`."""
    reporting: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.reporting`."""
    checkpointing: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.checkpointing`."""
    framework: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.framework`."""
    resources: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.resources`."""
    debugging: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.debugging`."""
    experimental: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.experimental`."""

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The tables that have keys, this server's defaults for the algorithm included, by the name of their AlgorithmConfig method."""
        defaults = DEFAULTS_BY_ALGORITHM.get(self.name, {})
        tables = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "name"}
        return {name: {**defaults.get(name, {}), **table} for name, table in tables.items() if table or name in defaults}


@dataclass(frozen=True)
class CheckpointsConfig:
    """When the policy is saved, and how much of it is kept."""

    folder: Path | None = None
    """Where checkpoints lie. Unset: `checkpoints` in the run folder."""
    keep: int = 3
    """Newest checkpoints kept."""
    every_iterations: int = 10
    """Training iterations from one checkpoint to the next; one more is written when the server stops. 0: only then."""
    restore: bool = True
    """Whether to go on from the newest whole checkpoint, if there is one."""

    def __post_init__(self) -> None:
        _at_least("keep", self.keep, 1)
        _at_least("every_iterations", self.every_iterations, 0)


@dataclass(frozen=True)
class LearnerConfig:
    """The process that learns: its share of the machine, and what it does about errors and the end."""

    threads: int = 1
    """Threads of the learner's tensor operations."""
    niceness: int = 5
    """Niceness of the learning process, and of its session if that is its own; the serving actors run at 0, so that an update doesn't delay
    an action."""
    max_failures: int = 3
    """Training iterations that may fail in a row; then the server writes a checkpoint and exits with an error."""
    retry_backoff_s: float = 1.0
    """Seconds before a failed iteration is tried again, doubled with each failure in a row."""
    drain_timeout_s: float = 15.0
    """Seconds a stopping server gives the running iteration to finish before it saves and leaves."""

    def __post_init__(self) -> None:
        _at_least("threads", self.threads, 1)
        if not 0 <= self.niceness <= 19:
            raise ValueError(f"niceness: expected 0 to 19, got {self.niceness!r}")
        _at_least("max_failures", self.max_failures, 1)
        _at_least("retry_backoff_s", self.retry_backoff_s, 0.0)
        _at_least("drain_timeout_s", self.drain_timeout_s, 0.0)


@dataclass(frozen=True)
class MonitoringConfig(SinkSettings):
    """What the server records about its own training."""

    store: Path | None = None
    """File of the embedded store. Unset: `store.sqlite` in the run folder."""
    enabled: bool = True
    """Whether training iterations are recorded at all."""
    page: str | None = None
    """HOST:PORT of the live page of the store, e.g. "127.0.0.1:9980". Unset: it is not served, so that no port is taken that nobody asked
    for, and two servers on one machine do not meet at one. Beyond loopback it has `listen`'s certificate and key, and wants its token."""

    def __post_init__(self) -> None:
        if self.page is None:
            return
        check_page_address("page", self.page)
        if not self.enabled:
            raise ValueError("page: expected monitoring.enabled = true with it, for the page shows what is recorded")


@dataclass(frozen=True)
class ServerConfig:
    """Everything a policy server needs to know."""

    run_folder: Path = Path("runs/server")
    """Folder of this run: checkpoints, the embedded store and the log lie in it. Made if absent."""
    instance_id: str | None = None
    """What the server calls itself in each handshake, so that whoever started it knows it again. Unset: made anew at each start."""
    seed: int = 0
    """Seed of the initial weights and of the drawing of actions, which also depends on each episode's id and step."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    stop_is_final: bool = False
    """Whether callers are told, when a signal stops the server, that nobody comes back, so that they hear at once instead of waiting for
    a successor. A service manager stops by the same signal what it starts again, so it is not said unless this is set. The end of standard
    input, with --until_input_ends, is always final."""
    listen: ListenConfig = field(default_factory=ListenConfig)
    """Where the policy service listens and how it is protected."""
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    """How many episodes are held, and for how long."""
    hand_off: HandOffConfig = field(default_factory=HandOffConfig)
    """How completed steps reach the learner."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the net is run for an action."""
    spaces: SpacesConfig = field(default_factory=SpacesConfig)
    """What an observation and an action are."""
    connectors: ConnectorsConfig = field(default_factory=ConnectorsConfig)
    """What happens to an observation before the net sees it."""
    algorithm: AlgorithmSection = field(default_factory=AlgorithmSection)
    """The RLlib algorithm and its settings."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """The process that learns."""
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    """When the policy is saved."""
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    """What is recorded."""

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)

    @property
    def run(self) -> str:
        """Name of the run: a tag of what is recorded, and what clients are told."""
        return self.run_folder.resolve().name

    @property
    def checkpoints_folder(self) -> Path:
        """Where checkpoints lie."""
        return self.checkpoints.folder or self.run_folder / "checkpoints"

    @property
    def page_listen(self) -> PageListen | None:
        """Where the live page is served; None if it is not."""
        page, listen = self.monitoring.page, self.listen
        if page is None or is_local(parse_address(page)):
            return PageListen(page) if page is not None else None
        return PageListen(page, listen.tls_certificate_file, listen.tls_key_file, listen.token_file)

    @property
    def log_file(self) -> Path:
        """Where the daemon and its serving actors log."""
        return self.run_folder / "server.log"

    @property
    def store_file(self) -> Path:
        """File of the embedded store."""
        return self.monitoring.store or self.run_folder / "store.sqlite"


@dataclass(frozen=True)
class ServingConfig:
    """What a serving actor needs to know; travels to it inside RLlib's `env_config`."""

    listen: ListenConfig = field(default_factory=ListenConfig)
    """Where the policy service listens and how it is protected."""
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    """How many episodes are held, and for how long."""
    hand_off: HandOffConfig = field(default_factory=HandOffConfig)
    """How completed steps reach the learner."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the net is run for an action."""
    driver_link: Path | None = None
    """The daemon's unix socket, see `policyserver.server.driver_link`. Unset: there is no daemon."""
    opens_itself: bool = True
    """Whether the actor listens as soon as it is made; else when its `open()` is called, which is after the trained weights came."""
    log_level: str = "INFO"
    """Least severity that a serving actor logs; what it writes appears in the daemon's output."""
    run: str = ""
    """Name of the run that the server records. Empty: none."""
    instance_id: str = ""
    """What the server calls itself in each handshake. Empty: nothing."""
    stop_timeout_s: float = 0.0
    """Longest time an orderly stop of the daemon takes, seconds. 0: not known."""
    log_file: Path | None = None
    """File that it logs to as well, if the file's folder is on its machine."""

    @classmethod
    def from_env_config(cls, env_config: Mapping[str, Any]) -> ServingConfig:
        """Read what `to_env_config` wrote; a missing entry gives the defaults."""
        served = env_config.get(_ENV_CONFIG_KEY, cls())
        if not isinstance(served, cls):
            raise ValueError(f"env_config[{_ENV_CONFIG_KEY!r}]: expected a ServingConfig, got {served!r}")
        return served

    def to_env_config(self) -> dict[str, Any]:
        """Wrap it for `AlgorithmConfig.environment(env_config=...)`."""
        return {_ENV_CONFIG_KEY: self}


_ENV_CONFIG_KEY = "policy_server"
