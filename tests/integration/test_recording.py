"""A whole pipeline's records in a real InfluxDB and in the embedded store, against what the policy service heard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.influx import InfluxSink
from monitoring.reader import StoreReader
from monitoring.retention import RetentionConfig
from monitoring.sink import MultiSink
from monitoring.store import EmbeddedStore
from pipelines.config import EpisodesSection, PipelineConfig, RecordingSection
from pipelines.pipeline import Pipeline
from pipelines.recording import open_sink
from policyserver.settings import load
from tests.pipelines.policy_double import PolicyDouble
from tests.services import InfluxServer, MissingService

STEPS = 20_000
WAIT_S = 60.0


@pytest.fixture
def influx(tmp_path: Path, missing_service: MissingService) -> Iterator[InfluxServer]:
    server = InfluxServer(tmp_path / "influx", missing_service)
    server.start()
    yield server
    server.kill()


def test_twenty_thousand_steps_of_a_pipeline_arrive_once_each(
    influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", influx.url)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl")
    recording = RecordingSection(run="whole", store=tmp_path / "store.sqlite")
    config = PipelineConfig(episodes=EpisodesSection(steps=STEPS), recording=recording)
    service = PolicyDouble()
    sink = open_sink(recording, tmp_path / "spool")
    try:
        with Pipeline(config, service, sink).running() as pipeline:
            assert pipeline.wait(WAIT_S)
        assert sink.flush(WAIT_S)
    finally:
        sink.close(WAIT_S)
    told = [reward for heard in service.episodes.values() for reward in heard.rewards]
    assert pipeline.run.steps == len(told) >= STEPS
    assert pipeline.reward_sum == pytest.approx(math.fsum(told), abs=1e-6)
    reader = StoreReader(tmp_path / "store.sqlite")
    ledger = reader.ledger("whole")
    reader.close()
    assert ledger.steps == len(told)
    assert ledger.reward_sum == pytest.approx(pipeline.reward_sum, abs=1e-6)
    (row,) = influx.query("SELECT COUNT(reward), SUM(reward) FROM step")
    assert row["count"] == len(told)
    assert row["sum"] == pytest.approx(pipeline.reward_sum, abs=1e-6)
    symbols = {row["symbol"] for row in influx.query("SELECT COUNT(reward) FROM step GROUP BY symbol")}
    assert symbols == set(pipeline.symbols)


def test_a_configuration_file_names_the_influxdb_and_how_long_the_store_keeps_points(tmp_path: Path) -> None:
    influx_file, config_file = tmp_path / "influx.ini", tmp_path / "pipeline.toml"
    influx_file.write_text("[influx2]\nurl=http://127.0.0.1:9\nbucket=rl\n")
    config_file.write_text(
        f'[recording]\nstore = "{tmp_path}/store.sqlite"\ninflux_file = "{influx_file}"\n'
        '[recording.retention]\nraw_s = 60.0\nraw_points = "none"\n'
    )
    recording = load(PipelineConfig, config_file).recording
    assert recording.retention == RetentionConfig(raw_s=60.0, raw_points=None)
    sink = open_sink(recording, tmp_path / "spool")
    assert isinstance(sink, MultiSink)
    store, influx = sink.sinks
    assert isinstance(store, EmbeddedStore)
    assert isinstance(influx, InfluxSink)
    assert influx.config.bucket == "rl"
    sink.close(0.2)
