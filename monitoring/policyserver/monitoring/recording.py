"""Where a process records to: the embedded store, InfluxDB, both, or nowhere. A further sink is a setting and a row of `_SINKS`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policyserver.common.settings import Config
from policyserver.monitoring.background_sink import BackgroundSink
from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.page.listen import check_page_address
from policyserver.monitoring.sink import MultiSink, Sink
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from policyserver.monitoring.store.store import place_of as store_place

OpenSink = Callable[[], Sink]


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
    tensorboard: bool = False
    """Whether training, serving and results go to TensorBoard's event files, too, in `tensorboard` beside the store, at most 64 MiB. Off by
    default: tensorboardX, which ray[rllib] brings, imports torch; a pipeline has no torch else, and takes 200 MB more with it."""
    metrics: str | None = None
    """HOST:PORT where the process answers /metrics (OpenMetrics), /healthz and /readyz, e.g. "127.0.0.1:9981". Unset: nowhere else than
    beside a page that the process serves itself."""

    def _check(self) -> None:
        if self.metrics is not None:
            check_page_address("metrics", self.metrics)


def prepared(config: RecordingConfig, store: Path | None, folder: Path) -> OpenSink:
    """Check what the sinks need; return what opens them all as one, the store first.

    What opens them raises OSError or sqlite3.Error if a folder or the store can't be made.

    Args:
        config: What is wanted.
        store: File of the embedded store; None for no store.
        folder: For the files of other sinks. Processes that share it deliver what others left behind.

    Raises:
        ValueError: A setting or a variable of the environment is missing or wrong, or a client that a sink needs isn't installed.
    """
    opens = [open_one for prepare in _SINKS if (open_one := prepare(config, store, folder)) is not None]
    return lambda: MultiSink([open_one() for open_one in opens])


def places(config: RecordingConfig, store: Path | None) -> tuple[str, ...]:
    """Name where the points go that `prepared` opens sinks for; what a program that records its episodes tells the policy server.

    Raises:
        ValueError: As `prepared`.
    """
    influx = influx_config(config, Path())
    return (*(() if store is None else (store_place(store),)), *(() if influx is None else (influx.place,)))


def place_of(sink: Sink) -> str:
    """Name where a sink's points go; "" if it can't say."""
    return sink.place if isinstance(sink, BackgroundSink) else ""


def _store(config: RecordingConfig, store: Path | None, folder: Path) -> OpenSink | None:
    return None if store is None else lambda: EmbeddedStore(store, StoreConfig(retention=config.retention))


def _tensorboard(config: RecordingConfig, store: Path | None, folder: Path) -> OpenSink | None:
    if not config.tensorboard:
        return None
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("tensorboard: expected tensorboardX to be installed, as it is set; install it, or leave the setting out")

    def open_tensorboard() -> Sink:
        from policyserver.monitoring.tensorboard import TensorBoardSink  # as above

        return TensorBoardSink(folder / "tensorboard")

    return open_tensorboard


def _influx(config: RecordingConfig, store: Path | None, folder: Path) -> OpenSink | None:
    """Prepare InfluxDB's sink, whose points wait on disk. A configuration file of influxdb-client takes the environment's place."""
    influx = influx_config(config, folder / "influx-spool")
    if influx is None:
        return None
    if importlib.util.find_spec("influxdb_client") is None:
        named = config.influx_file or "INFLUXDB_V2_URL"
        raise ValueError(f"{named}: expected influxdb-client to be installed, as it is set; install the extra `influx`, or unset it")

    def open_influx() -> Sink:
        from policyserver.monitoring.influx.sink import InfluxSink  # the only user of the optional influxdb-client

        return InfluxSink(influx)

    return open_influx


def influx_config(config: RecordingConfig, spool: Path) -> InfluxConfig | None:
    """Read where InfluxDB is, with its spool in a folder; None without one.

    Raises:
        ValueError: A variable of the environment or the file's content is missing or wrong.
    """
    if not config.influx:
        return None
    file = config.influx_file
    return InfluxConfig.from_file(file, spool) if file else InfluxConfig.from_environment(spool)


_SINKS = (_store, _influx, _tensorboard)
