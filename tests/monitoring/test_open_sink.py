"""Points go to the store and to the InfluxDB that the environment names; one whose client is not installed is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.recording import RecordingConfig, prepared
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.reader import StoreReader
from tests.services import InfluxServer


@pytest.fixture(autouse=True)
def no_influx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUXDB_V2_URL", raising=False)


@pytest.mark.process
def test_points_go_to_the_store_and_to_the_influxdb_that_the_environment_names(
    influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx.start()
    monkeypatch.setenv("INFLUXDB_V2_URL", influx.url)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", influx.bucket)
    store = tmp_path / "run" / "store.sqlite"
    sink = prepared(RecordingConfig(), store, store.parent)()
    sink.write(Points.one("train", {"run": "r"}, {"iteration": 7, "loss": 0.5}))
    assert sink.flush(60.0)
    sink.close(60.0)
    assert (store.parent / "influx-spool").is_dir()
    assert [row["iteration"] for row in influx.query("SELECT iteration, loss FROM train")] == [7]
    reader = StoreReader(store)
    assert [row["loss"] for row in reader.newest("train", "r")] == [0.5]
    reader.close()


def test_without_an_address_there_is_no_influxdb(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    nowhere = prepared(RecordingConfig(), None, tmp_path)()
    assert isinstance(nowhere, MultiSink)
    assert not nowhere.sinks
    sink = prepared(RecordingConfig(), store, tmp_path)()
    sink.close(60.0)
    assert [path.name for path in tmp_path.glob("*spool*")] == []


def test_an_influxdb_without_its_client_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "b")
    prepared(RecordingConfig(), None, tmp_path)
    monkeypatch.setitem(sys.modules, "influxdb_client", None)
    with pytest.raises(ValueError, match=r"INFLUXDB_V2_URL: expected influxdb-client to be installed.*install the extra `influx`"):
        prepared(RecordingConfig(), None, tmp_path)
