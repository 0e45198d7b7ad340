"""Opens the sinks that a pipeline records to."""

from __future__ import annotations

from pathlib import Path

from monitoring.influx_config import InfluxConfig
from monitoring.sink import MultiSink, NullSink, Sink
from monitoring.store import EmbeddedStore, StoreConfig
from pipelines.config import RecordingSection


def open_sink(recording: RecordingSection, spool_folder: Path) -> Sink:
    """Return the sink that the settings and the environment describe.

    Args:
        recording: Settings.
        spool_folder: Where points wait for InfluxDB.

    Raises:
        ValueError: The environment or the file describes an InfluxDB incompletely.
        ImportError: It describes one, and influxdb-client is not installed.
        sqlite3.Error: The store can't be opened.
    """
    influx = _influx_config(recording, spool_folder)
    sinks: list[Sink] = []
    if recording.store is not None:
        sinks.append(EmbeddedStore(recording.store, StoreConfig(retention=recording.retention)))
    if influx is not None:
        from monitoring.influx import InfluxSink  # the only user of the optional influxdb-client

        sinks.append(InfluxSink(influx))
    return MultiSink(sinks) if sinks else NullSink()


def _influx_config(recording: RecordingSection, spool_folder: Path) -> InfluxConfig | None:
    """Read where InfluxDB is, if points go there."""
    if not recording.influx:
        return None
    if recording.influx_file is not None:
        return InfluxConfig.from_file(recording.influx_file, spool_folder)
    return InfluxConfig.from_environment(spool_folder)
