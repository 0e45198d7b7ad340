"""A whole run in a real InfluxDB and in the embedded store, against what the policy service heard and what docs/metrics.md says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import load
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.reports import control_point
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig
from policyserver.pipelines.run import closing_sink
from policyserver.server.daemon.served_episodes import ServedEpisodes
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.processes.shadow_actions import ShadowActions
from tests.recorded_run import record_run
from tests.services import InfluxServer

STEPS = 20_000
WAIT_S = 90.0


def test_twenty_thousand_steps_of_a_run_arrive_once_each_with_every_documented_field(
    running_influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", running_influx.url)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl")
    recording = PipelineRecordingConfig(run="whole", store=tmp_path / "store.sqlite")
    with closing_sink(PipelineConfig(recording=recording)) as sink:
        pipeline, service = record_run(sink, "whole", STEPS)
        tags = {"run": "of another client", "policy": "PPO", "worker": "server-1"}
        served = ServedEpisodes(sink, tags)
        served.write(ended_episodes())
        served.write_shadow(ended_episodes())
        for refusal in (None, "expected the number of a checkpoint that is there, 1, 2, received 7"):
            sink.write(control_point(tags, "RollBack", "local", "checkpoint: 7", refusal, 2))
        assert sink.flush(WAIT_S)
    told = [reward for heard in service.episodes.values() for reward in heard.rewards]
    assert pipeline.run.steps == len(told) >= STEPS
    assert pipeline.reward_sum == pytest.approx(math.fsum(told), abs=1e-6)
    reader = StoreReader(tmp_path / "store.sqlite")
    ledger = reader.ledger("whole")
    reader.close()
    assert ledger.steps == len(told)
    assert ledger.reward_sum == pytest.approx(pipeline.reward_sum, abs=1e-6)
    (row,) = running_influx.query("SELECT COUNT(reward), SUM(reward) FROM step")
    assert row["count"] == len(told)
    assert row["sum"] == pytest.approx(pipeline.reward_sum, abs=1e-6)
    symbols = {row["symbol"] for row in running_influx.query("SELECT COUNT(reward) FROM step GROUP BY symbol")}
    assert symbols == set(pipeline.symbols)
    check_that_the_documented_is_written(running_influx)


def ended_episodes() -> ServingReport:
    """Make what a serving process reports of an episode."""
    ended: dict[str, list[Any]] = {
        "client": ["stream:one"], "records_in": [()], "episode": ["a"], "return": [1.5], "length": [3], "seconds": [0.5],
        "weights_seq_no": [2], "trained": [True], "given": [0], "overridden": [0], "ended": ["terminated"], "explored": [True],
        "decided_by": ["live"], "greedy": [False],
    }  # fmt: skip
    action = np.zeros(1, np.int64)
    shadow = [ShadowActions(np.ones(1, np.uint64), [("stream:one", "a")], action, action, action, 2)]
    return ServingReport({"boot_id": "0123456789abcdef"}, ended, shadow="candidate", shadow_actions=shadow)


def check_that_the_documented_is_written(influx: InfluxServer) -> None:
    """Each measurement has its tags and fields and no others; a field that is not said to be unset anywhere is in every point."""
    assert {row["name"] for row in influx.query("SHOW MEASUREMENTS")} == set(MEASUREMENTS)
    for measurement in MEASUREMENTS.values():
        name = measurement.name
        kinds = {row["fieldKey"]: row["fieldType"] for row in influx.query(f'SHOW FIELD KEYS FROM "{name}"')}
        # These prices are not split, so no point has a span; sell, hold and buy need no text.
        written = {field: kind.value for field, kind in measurement.types.items() if field not in ("span", "action_text")}
        assert kinds == written, name
        assert {row["tagKey"] for row in influx.query(f'SHOW TAG KEYS FROM "{name}"')} == set(measurement.tags), name
        (row,) = influx.query(f'SELECT COUNT(*) FROM "{name}"')
        counts = {key.removeprefix("count_"): count for key, count in row.items() if key != "time"}
        always = {field.name for field in measurement.fields if not field.unset}
        assert {counts[field] for field in always} == {max(counts.values())}, f"{name}: some points lack a field"


def test_a_configuration_file_names_the_influxdb_and_how_long_the_store_keeps_points(tmp_path: Path) -> None:
    influx_file, config_file = tmp_path / "influx.ini", tmp_path / "pipeline.toml"
    influx_file.write_text("[influx2]\nurl=http://127.0.0.1:9\nbucket=rl\n")
    config_file.write_text(
        f'[recording]\nstore = "{tmp_path}/store.sqlite"\ninflux_file = "{influx_file}"\n'
        '[recording.retention]\nraw_s = 60.0\nraw_points = "none"\n'
    )
    config = load(PipelineConfig, config_file)
    assert config.recording.retention == RetentionConfig(raw_s=60.0, raw_points=None)
    with closing_sink(config) as sink:
        assert isinstance(sink, MultiSink)
        store, influx = sink.sinks
        assert isinstance(store, EmbeddedStore)
        assert isinstance(influx, InfluxSink)
        assert influx.config.bucket == "rl"
