"""Where a process records to: the embedded store, InfluxDB, both, or nowhere. Another sink is a setting and a row of `_SINKS` here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.sink import MultiSink, NullSink, Sink
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig

OpenSink = Callable[[], Sink]


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What a server and a pipeline can say about their sinks."""

    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """How long the store keeps points, and in how much detail; of several processes on one store, one sees to it."""
    influx: bool = True
    """Whether points go to InfluxDB too, when the environment names one (INFLUXDB_V2_URL) or `influx_file` does."""
    influx_file: Path | None = None
    """influxdb-client's configuration file with section [influx2], and `bucket` in it. Unset: the environment."""


def prepared(settings: SinkSettings, store: Path | None, folder: Path) -> OpenSink:
    """Check what the sinks need; return what opens them all as one, the store first.

    Args:
        settings: What is wanted.
        store: File of the embedded store; None: there is none.
        folder: For the files of other sinks; processes that share it each deliver what another left behind.

    Returns:
        What opens the sink. It raises OSError or sqlite3.Error where a folder or the store can't be made.

    Raises:
        ValueError: A setting or a variable of the environment is missing or wrong, or a client that a sink needs is not installed.
    """
    opens = [open_one for prepare in _SINKS if (open_one := prepare(settings, store, folder)) is not None]
    return lambda: MultiSink([open_one() for open_one in opens]) if opens else NullSink()


def _store(settings: SinkSettings, store: Path | None, folder: Path) -> OpenSink | None:
    return None if store is None else lambda: EmbeddedStore(store, StoreConfig(retention=settings.retention))


def _influx(settings: SinkSettings, store: Path | None, folder: Path) -> OpenSink | None:
    """Points for InfluxDB wait on disk. A configuration file of influxdb-client takes the environment's place."""
    if not settings.influx:
        return None
    spool, file = folder / "influx-spool", settings.influx_file
    config = InfluxConfig.from_file(file, spool) if file else InfluxConfig.from_environment(spool)
    if config is None:
        return None
    if importlib.util.find_spec("influxdb_client") is None:
        named = file or "INFLUXDB_V2_URL"
        raise ValueError(f"{named}: expected influxdb-client to be installed, as it is set; install the extra `influx`, or unset it")

    def open_influx() -> Sink:
        from policyserver.monitoring.influx.sink import InfluxSink  # the only user of the optional influxdb-client

        return InfluxSink(config)

    return open_influx


_SINKS = (_store, _influx)
