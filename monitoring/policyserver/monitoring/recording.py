"""Opens the sinks that a process records to: the embedded store, InfluxDB, both, or none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.sink import MultiSink, NullSink, Sink
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig


def influx_beside(store: Path, file: Path | None = None) -> InfluxConfig | None:
    """Read which InfluxDB the environment names; None without one. Points for it wait on disk in a folder beside `store`.

    A configuration file of influxdb-client takes the environment's place.

    Processes that record into the same store share that folder, so each delivers what another left behind.

    Raises:
        ValueError: a variable is missing or wrong, or influxdb-client is not installed.
    """
    spool_folder = store.with_name("influx-spool")
    config = InfluxConfig.from_file(file, spool_folder) if file else InfluxConfig.from_environment(spool_folder)
    if config is not None and importlib.util.find_spec("influxdb_client") is None:
        named = file or "INFLUXDB_V2_URL"
        raise ValueError(f"{named}: expected influxdb-client to be installed, as it is set; install the extra `influx`, or unset it")
    return config


def open_sink(store: Path | None, influx: InfluxConfig | None, retention: RetentionConfig) -> Sink:
    """Open a sink into the store and InfluxDB, as far as they are given; the store comes first.

    Raises:
        OSError: the spool folder can't be made.
        sqlite3.Error: the store can't be opened.
    """
    sinks: list[Sink] = []
    if store is not None:
        sinks.append(EmbeddedStore(store, StoreConfig(retention=retention)))
    if influx is not None:
        from policyserver.monitoring.influx.sink import InfluxSink  # the only user of the optional influxdb-client

        sinks.append(InfluxSink(influx))
    return MultiSink(sinks) if sinks else NullSink()
