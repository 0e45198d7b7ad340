"""Where a daemon's training iterations go."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from policyserver.common.listening import InsecureListenError
from policyserver.common.settings import SettingsError
from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.server.config.daemon_config import ServerRecordingConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.daemon.daemon import Daemon
from policyserver.server.daemon.preflight import sinks_of
from tests.services import InfluxServer

TOKEN = "not-for-logs"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl")
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", TOKEN)
    return monkeypatch


@pytest.mark.process
def test_iterations_go_to_the_store_and_to_influxdb_and_the_token_nowhere(
    running_influx: InfluxServer, environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    environment.setenv("INFLUXDB_V2_URL", running_influx.url)
    config = ServerConfig(run_folder=tmp_path / "run")
    sink = sinks_of(config)()
    sink.write(Points.one("train", {"run": "run", "policy": "PPO"}, {"iteration": 3, "loss": 0.25}))
    assert sink.flush(90.0)
    sink.close(60.0)
    assert [(row["iteration"], row["loss"]) for row in running_influx.query("SELECT iteration, loss FROM train")] == [(3, 0.25)]
    assert (tmp_path / "run" / "store.sqlite").is_file()
    recorded = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not recorded
    assert TOKEN not in caplog.text


@pytest.mark.long
def test_it_can_be_switched_off(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sink = sinks_of(ServerConfig(run_folder=tmp_path, recording=ServerRecordingConfig(influx=False)))()
    assert isinstance(sink, MultiSink)
    assert [type(each) for each in sink.sinks] == [EmbeddedStore]
    sink.close(60.0)
    nowhere = sinks_of(ServerConfig(run_folder=tmp_path, recording=ServerRecordingConfig(enabled=False)))()
    assert isinstance(nowhere, MultiSink)
    assert not nowhere.sinks


def test_a_page_that_strangers_could_see_or_whose_port_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    def config(address: str) -> ServerConfig:
        return ServerConfig(run_folder=tmp_path / "run", listen=ListenConfig("127.0.0.1:0"), recording=ServerRecordingConfig(page=address))

    with pytest.raises(InsecureListenError, match=r"recording.page: 0.0.0.0:9980 .* so listen.tls_certificate_file and .* must be given"):
        Daemon(config("0.0.0.0:9980")).run()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"recording.page: {address} can't be taken: Address already in use"):
            Daemon(config(address)).run()
    assert not (tmp_path / "run").exists()


def test_a_wrong_environment_is_refused_before_anything_starts(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("INFLUXDB_V2_BUCKET")
    config = ServerConfig(run_folder=tmp_path / "run", listen=ListenConfig("127.0.0.1:0"))
    with pytest.raises(SettingsError, match="recording: INFLUXDB_V2_BUCKET: expected the bucket") as refused:
        Daemon(config).run()
    assert TOKEN not in str(refused.value)
    assert not (tmp_path / "run").exists()
