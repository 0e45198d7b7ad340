"""The part of `[recording]` that server and pipelines have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from policyserver.common.settings import Config
from policyserver.monitoring.store.retention import RetentionConfig


@dataclass(frozen=True)
class RecordingConfig(Config):
    """Where points go."""

    store: Path | None = None
    """File of the embedded store."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """How long the store keeps points, and in how much detail; of several processes on one store, one sees to it."""
    influx: bool = True
    """Whether points go to InfluxDB too, when the environment names one (INFLUXDB_V2_URL) or `influx_file` does."""
    influx_file: Path | None = None
    """influxdb-client's configuration file with section [influx2], and `bucket` in it. Unset: the environment."""
