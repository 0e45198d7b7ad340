"""The configuration of a policy server: a tree of frozen dataclasses, read from one TOML file.

Every value is checked here, before Ray, torch or a socket is touched. The defaults are a complete set-up: PPO with a small LSTM on
`Box(-100, 100, (10,))` and `Discrete(3)`, served on 127.0.0.1:9900.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from policyserver.common.endpoints import is_local, parse_address
from policyserver.common.settings import Config
from policyserver.monitoring.page.listen import PageConfig
from policyserver.server.config.admin_config import AdminConfig
from policyserver.server.config.daemon_config import CheckpointsConfig, LearnerConfig, RollbackConfig, ServerRecordingConfig
from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.config.log_config import LogConfig
from policyserver.server.config.node_address import NODE, host_of, is_loopback, split_pattern
from policyserver.server.config.policies_config import LIVE_NAMES, PoliciesConfig
from policyserver.server.config.ray_config import RayConfig
from policyserver.server.config.rllib_config import RLlibConfig, SpacesConfig
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, InferenceConfig, ListenConfig
from policyserver.server.config.standard_connectors import ConnectorsConfig
from policyserver.server.config.traffic_config import TrafficConfig


@dataclass(frozen=True)
class ServerConfig(Config):
    """Everything a policy server needs to know."""

    run_folder: Path = Path("runs/server")
    """Folder of this run: checkpoints, the embedded store and the log lie in it. Made if absent."""
    instance_id: str | None = None
    """What the server calls itself in each handshake, so that the starting program recognizes it. Unset: made anew at each start."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the initial weights and of the drawing of actions, which also depends on each episode's id and step."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    log: LogConfig = field(default_factory=LogConfig)
    stop_is_final: bool = False
    """Whether callers are told, when a signal stops the server, that it does not come back, so that they stop waiting for a successor. A
    service manager stops by the same signal what it starts again, so this is off by default. The end of standard input, with
    --until_input_ends, is always final."""
    listen: ListenConfig = field(default_factory=ListenConfig)
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    hand_off: HandOffConfig = field(default_factory=HandOffConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    spaces: SpacesConfig = field(default_factory=SpacesConfig)
    """What an observation and an action are."""
    connectors: ConnectorsConfig = field(default_factory=ConnectorsConfig)
    algorithm: RLlibConfig = field(default_factory=RLlibConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    rollback: RollbackConfig = field(default_factory=RollbackConfig)
    policies: PoliciesConfig = field(default_factory=PoliciesConfig)
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    recording: ServerRecordingConfig = field(default_factory=ServerRecordingConfig)

    def _check(self) -> None:
        if not self.ray.joins and split_pattern(self.listen.address) is not None:
            raise ValueError(f"listen.address: expected HOST:PORT without ray.address, received {self.listen.address!r}, a network")
        if not self.ray.joins and host_of(self.listen.address) == NODE:
            raise ValueError(f"listen.address: expected ray.address with {NODE!r}, which stands for a node of a Ray cluster; received none")
        if self.listen.advertise and not self.ray.joins:
            raise ValueError("listen.advertise: expected none without ray.address, for it is about serving actors on other machines")
        if self.ray.joins and not self.learner.enabled:
            raise ValueError("ray.address: expected none with learner.enabled = false, for a server that does not learn runs without Ray")
        if self.ray.joins and not self.listen.advertise and is_loopback(self.listen.address):
            raise ValueError(
                f"listen.address: expected an address of each node's own, such as {NODE}:9900, with ray.address, or listen.advertise, "
                f"which says where clients find an actor; received {self.listen.address!r}, at which only its own machine does"
            )
        if self.ray.joins and self.listen.address.startswith("unix:"):
            raise ValueError(
                f"listen.address: expected HOST:PORT with ray.address, such as {NODE}:9900, received {self.listen.address!r}, which has no "
                "meaning on another machine"
            )
        there = (*LIVE_NAMES, *self.policies.load)
        for name in self.traffic.shares:
            if name not in there:
                raise ValueError(f"traffic.shares.{name}: expected one of {', '.join(there)} (policies.load), received {name!r}")
        if self.traffic.shadow is not None and self.traffic.shadow not in self.policies.load:
            expected = ", ".join(self.policies.load) or "no shadow, for policies.load names no policy"
            raise ValueError(f"traffic.shadow: expected one of {expected}; received {self.traffic.shadow!r}")

    def with_instance_id(self) -> ServerConfig:
        """Return it with an `instance_id`: a new one if none is set."""
        return dataclasses.replace(self, instance_id=self.instance_id or uuid.uuid4().hex)

    @property
    def run(self) -> str:
        """Name of the run: a tag of what is recorded, and what clients are told."""
        return self.run_folder.resolve().name

    @property
    def checkpoints_folder(self) -> Path:
        """Where checkpoints lie."""
        return self.checkpoints.folder or self.run_folder / "checkpoints"

    @property
    def quarantine_folder(self) -> Path:
        """Where the batches of refused updates lie."""
        return self.run_folder / "quarantine"

    @property
    def page_listen(self) -> PageConfig | None:
        """Where the live page is served; None if it is not."""
        return self._web_listen(self.recording.page)

    @property
    def metrics_listen(self) -> PageConfig | None:
        """Where /metrics is served beside the page; None if it is not."""
        return self._web_listen(self.recording.metrics)

    def _web_listen(self, address: str | None) -> PageConfig | None:
        listen = self.listen
        if address is None or is_local(parse_address(address)):
            return PageConfig(address) if address is not None else None
        return PageConfig(address, listen.tls_certificate_file, listen.tls_key_file, listen.token_file)

    @property
    def log_file(self) -> Path:
        """Where the daemon and its serving actors log."""
        return self.run_folder / "server.log"

    @property
    def store_file(self) -> Path:
        """File of the embedded store."""
        return self.recording.store or self.run_folder / "store.sqlite"
