"""What the process that learns is told: its share of the machine, when it saves, and what it records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from policyserver.monitoring.page.listen import check_page_address
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.server.config.bounds import at_least


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
        at_least("keep", self.keep, 1)
        at_least("every_iterations", self.every_iterations, 0)


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
        at_least("threads", self.threads, 1)
        if not 0 <= self.niceness <= 19:
            raise ValueError(f"niceness: expected 0 to 19, got {self.niceness!r}")
        at_least("max_failures", self.max_failures, 1)
        at_least("retry_backoff_s", self.retry_backoff_s, 0.0)
        at_least("drain_timeout_s", self.drain_timeout_s, 0.0)


@dataclass(frozen=True)
class MonitoringConfig:
    """What the server records about its own training."""

    store: Path | None = None
    """File of the embedded store. Unset: `store.sqlite` in the run folder."""
    enabled: bool = True
    """Whether training iterations are recorded at all."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """How long the store keeps points, and in how much detail; of several processes on one store, one sees to it."""
    influx: bool = True
    """Whether they go to InfluxDB too, when the environment names one (INFLUXDB_V2_URL) or `influx_file` does."""
    influx_file: Path | None = None
    """influxdb-client's configuration file with section [influx2], and `bucket` in it. Unset: the environment."""
    page: str | None = None
    """HOST:PORT of the live page of the store, e.g. "127.0.0.1:9980". Unset: it is not served, so that no port is taken that nobody asked
    for, and two servers on one machine do not meet at one. Beyond loopback it has `listen`'s certificate and key, and wants its token."""

    def __post_init__(self) -> None:
        if self.page is None:
            return
        check_page_address("page", self.page)
        if not self.enabled:
            raise ValueError("page: expected monitoring.enabled = true with it, for the page shows what is recorded")
