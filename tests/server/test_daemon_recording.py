"""Where a daemon's training iterations go."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from monitoring.points import Points
from monitoring.sink import NullSink
from policyserver.settings import SettingsError
from server.config import MonitoringConfig, ServerConfig
from server.daemon import Daemon
from tests.services import InfluxServer

TOKEN = "not-for-logs"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl")
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", TOKEN)
    return monkeypatch


def test_iterations_go_to_the_store_and_to_influxdb_and_the_token_nowhere(
    running_influx: InfluxServer, environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    environment.setenv("INFLUXDB_V2_URL", running_influx.url)
    daemon = Daemon(ServerConfig(run_folder=tmp_path / "run"))
    sink = daemon._open_sink(daemon._influx())
    sink.write(Points.one("train", {"run": "run", "policy": "PPO"}, {"iteration": 3, "loss": 0.25}))
    assert sink.flush(30.0)
    sink.close(10.0)
    assert [(row["iteration"], row["loss"]) for row in running_influx.query("SELECT iteration, loss FROM train")] == [(3, 0.25)]
    assert (tmp_path / "run" / "store.sqlite").is_file()
    recorded = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not recorded
    assert TOKEN not in caplog.text


def test_it_can_be_switched_off(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for monitoring in (MonitoringConfig(influx=False), MonitoringConfig(enabled=False)):
        assert Daemon(ServerConfig(run_folder=tmp_path, monitoring=monitoring))._influx() is None
    off = Daemon(ServerConfig(run_folder=tmp_path, monitoring=MonitoringConfig(enabled=False)))
    assert isinstance(off._open_sink(None), NullSink)


def test_a_wrong_environment_is_refused_before_anything_starts(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("INFLUXDB_V2_BUCKET")
    config = ServerConfig(run_folder=tmp_path / "run")
    with pytest.raises(SettingsError, match="monitoring: INFLUXDB_V2_BUCKET: expected the bucket") as refused:
        Daemon(config).run()
    assert TOKEN not in str(refused.value)
    assert not (tmp_path / "run").exists()
