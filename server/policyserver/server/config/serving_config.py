"""What a serving actor is told: where it listens, how many episodes it holds, how steps reach the learner, how the net runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from policyserver.common.endpoints import parse_address
from policyserver.common.settings import Config
from policyserver.server.config.link_address import LinkAddress
from policyserver.server.config.log_config import LogConfig
from policyserver.server.config.node_address import split_pattern
from policyserver.server.config.traffic_config import TrafficConfig


@dataclass(frozen=True)
class ListenConfig(Config):
    """Where the policy service listens and how it is protected."""

    address: str = "127.0.0.1:9900"
    """HOST:PORT, or unix:PATH without a cluster. Port 0 lets the system choose. With several serving actors, actor n listens on PORT + n -
    1. On a Ray cluster (`ray.address`) HOST may be what is another address on each node: "node", by which Ray knows it; an interface,
    such as "eth0"; or a network, such as "10.0.0.0/8". Then each actor takes the first port from PORT on that is free on its node."""
    tls_certificate_file: Path | None = None
    """PEM file with the server's certificate chain. Must be given when the address is neither loopback nor a unix socket."""
    tls_key_file: Path | None = None
    """PEM file with the certificate's private key."""
    token_file: Path | None = None
    """File with the secret that every client must send, readable by its owner alone. Must be given when the address is not local."""
    max_message_bytes: Annotated[int, Ge(1024)] = 16 * 2**20
    """Largest message that is read, bytes."""
    max_rows_per_message: Annotated[int, Ge(1)] = 16_384
    """Largest number of rows of one StepBatch."""
    max_clients: Annotated[int, Ge(1)] = 1000
    """Streams at once; one more is refused with RESOURCE_EXHAUSTED."""
    max_unanswered_bytes: Annotated[int, Ge(1)] = 8 * 2**20
    """Bytes held for one stream, of rows that wait for an answer and of answers that its client has not taken; it is read again once there
    are fewer."""
    reflection: bool = True
    """Whether gRPC server reflection is served, so that grpcurl works without the .proto files."""
    max_actors: Annotated[int, Interval(ge=1, le=1000)] = 8
    """Largest number of serving actors that `policy-server ctl scale` makes, unless the server began with more. The ports of those that may
    come are not kept free meanwhile."""
    advertise: str = ""
    """With `ray.address`: HOST:PORT that clients are told of a serving actor, with `{node_ip}` and `{port}` for those it has, where they
    reach it by others, as behind NAT. Empty: the address that it listens on."""

    def _check(self) -> None:
        if split_pattern(self.address) is None:
            parse_address(self.address)
        if self.advertise:
            parse_address(self.advertise.replace("{node_ip}", "10.0.0.1").replace("{port}", "9900"))
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError(
                "tls_key_file: expected together with tls_certificate_file or not at all, "
                f"received {self.tls_key_file} and {self.tls_certificate_file}"
            )


@dataclass(frozen=True)
class EpisodesConfig(Config):
    """How many episodes are held, and for how long."""

    max_open: Annotated[int, Ge(1)] = 100_000
    """Episodes held at once; a start beyond it is refused with RESOURCE_EXHAUSTED."""
    max_open_bytes: Annotated[int, Ge(1)] = 8 * 2**30
    """Bytes that open episodes may take, and as many again the steps that wait for the learner: fewer than `max_open` are held where so
    many would take more, as with images."""
    episode_idle_timeout_s: Annotated[float, Gt(0)] = 60.0
    """Seconds after the loss of a client's stream until its episodes end as truncated. A connected client may wait as long as it likes."""
    unary_idle_timeout_s: Annotated[float, Gt(0)] = 900.0
    """Seconds without a call until the episode of a unary caller, who has no stream, ends as truncated. They count from the end of the
    newest call; while one waits, for the learner too, the episode never ends so."""
    finished_remembered: Annotated[int, Ge(0)] = 100_000
    """Finished episode ids remembered, so that a late call is answered "finished" rather than "unknown"."""
    max_waiting_info_bytes: Annotated[int, Ge(0)] = 64 * 2**20
    """Bytes of the infos of steps that wait for the learner; what comes beyond is left out of its step, and counted."""


@dataclass(frozen=True)
class HandOffConfig(Config):
    """How completed steps reach the learner, and what happens to those it can't absorb."""

    segment_steps: Annotated[int, Ge(1)] = 64
    """Longest run of consecutive steps of one episode that is handed off, or dropped, as a whole. A recurrent net's is cut down to a
    multiple of `max_seq_len`, but to one at least; where updates are counted by steps, it is no more than the learner takes at a time."""
    batches_ahead: Annotated[float, Interval(ge=0, le=100)] | None = None
    """Batches that clients may play while the learner is busy with the one before, so that acting and learning overlap; each step is then
    so many policy versions older. Unset: 0 with PPO, whose batches come from one version as RLlib's own runner makes them, and 1 with the
    others."""
    room_wait_s: Annotated[float, Gt(0)] = 120.0
    """Longest time that clients which can wait are told to wait for the learner. After it they go on, and the oldest steps are dropped."""
    max_segment_age_s: Annotated[float, Ge(0)] = 60.0
    """With APPO and IMPALA: age at which steps are handed off though there are fewer than a fragment."""
    capacity_steps: Annotated[int, Ge(1)] | None = None
    """Steps that may wait for the learner; of more the oldest are dropped. Unset: a fragment (with PPO a train batch), those that may be
    played ahead, and a segment for each open episode."""
    sample_wait_s: Annotated[float, Gt(0)] = 2.0
    """Longest time one `sample()` of the env runner waits for steps; weights and health checks wait behind it."""

    def _check(self) -> None:
        if self.capacity_steps is not None and self.capacity_steps < self.segment_steps:
            raise ValueError(f"capacity_steps: expected at least {self.segment_steps}, segment_steps, received {self.capacity_steps}")


@dataclass(frozen=True)
class InferenceConfig(Config):
    """How the net is run for an action."""

    backend: Literal["auto", "numpy", "torch"] = "auto"
    """What computes it. `auto` measures at the start which is the faster, for each size of a batch; nets other than RLlib's default ones
    always run in torch. The two differ in the last digits."""


@dataclass(frozen=True)
class ServingConfig(Config):
    """What a serving actor needs to know; travels to it inside RLlib's `env_config`."""

    listen: ListenConfig = field(default_factory=ListenConfig)
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    hand_off: HandOffConfig = field(default_factory=HandOffConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    driver_link: LinkAddress | None = None
    """Where the daemon is, see `policyserver.server.processes`. Unset: there is no daemon."""
    opens_itself: bool = True
    """Whether the actor listens as soon as it is made; else when its `open()` is called, which is after the trained weights came."""
    most_versions: Annotated[int, Ge(0)] = 4
    """As in `PoliciesConfig`."""
    traffic: TrafficConfig = field(default_factory=TrafficConfig)
    learns: bool = True
    """Whether a learner takes the steps; without one none are recorded."""
    log_level: str = "INFO"
    """Least severity that a serving actor logs; what it writes appears in the daemon's output."""
    log: LogConfig = field(default_factory=LogConfig)
    """The form of its log."""
    run: str = ""
    """Name of the run that the server records. Empty: none."""
    instance_id: str = ""
    """What the server calls itself in each handshake. Empty: nothing."""
    stop_timeout_s: Annotated[float, Ge(0)] = 0.0
    """Longest time an orderly stop of the daemon takes, seconds. 0: not known."""
    log_file: Path | None = None
    """File that it logs to as well, if the file's folder is on its machine."""

    @classmethod
    def from_env_config(cls, env_config: Mapping[str, Any]) -> ServingConfig:
        """Read what `to_env_config` wrote; a missing entry gives the defaults."""
        served = env_config.get(_ENV_CONFIG_KEY, cls())
        if not isinstance(served, cls):
            raise ValueError(f"env_config[{_ENV_CONFIG_KEY!r}]: expected a ServingConfig, received {served!r}")
        return served

    def to_env_config(self) -> dict[str, Any]:
        """Wrap it for `AlgorithmConfig.environment(env_config=...)`."""
        return {_ENV_CONFIG_KEY: self}


_ENV_CONFIG_KEY = "policy_server"
