"""A whole pipeline's records in a real InfluxDB and in the embedded store, against what the policy service heard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.reader import StoreReader
from pipelines.config import EpisodesSection, PipelineConfig, RecordingSection
from pipelines.pipeline import Pipeline
from pipelines.recording import open_sink
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
