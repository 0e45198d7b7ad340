"""Grafana's data source, provisioned as docs/guides/monitoring.md says: its database exists, its dashboards find what was recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.services import InfluxServer, MissingService

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "monitoring.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "influxdb.yaml").read_text(encoding="utf-8")


@pytest.fixture
def influx(tmp_path: Path, missing_service: MissingService) -> Iterator[InfluxServer]:
    server = InfluxServer(tmp_path / "influx", missing_service)
    server.start()
    yield server
    server.kill()


def documented_environment() -> dict[str, str]:
    """Return the variables that the page gives for InfluxDB 1.8: those of recording, and Grafana's own of the table."""
    (exports,) = re.findall(r"^\$ export (.*INFLUXDB_V2_BUCKET=\w+)$", PAGE, re.MULTILINE)
    ((bucket, database),) = re.findall(r"\| InfluxDB 1\.8, bucket `(\w+/\w+)` \| `(\w+)` \|", PAGE)
    return dict(re.findall(r"(\w+)=(\S+)", exports)) | {"INFLUXDB_V2_BUCKET": bucket, "INFLUXDB_DATABASE": database}


def provisioned(environment: dict[str, str]) -> dict[str, Any]:
    """Return the data source as Grafana reads it, which fills in variables as they are."""
    text = re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], SOURCE)
    (source,) = yaml.safe_load(text)["datasources"]
    return dict(source["jsonData"])


def test_with_a_bucket_of_a_database_and_its_retention_policy_grafana_asks_that_database(influx: InfluxServer, tmp_path: Path) -> None:
    environment = documented_environment()
    database, policy = environment["INFLUXDB_V2_BUCKET"].split("/")
    influx.query(f'CREATE DATABASE "{database}" WITH NAME "standard"')
    influx.query(f'CREATE RETENTION POLICY "{policy}" ON "{database}" DURATION INF REPLICATION 1')
    sink = InfluxSink(InfluxConfig(influx.url, environment["INFLUXDB_V2_BUCKET"], tmp_path / "spool"))
    sink.write(Points.one("train", {"run": "r"}, {"iteration": 7}))
    assert sink.flush(90.0)
    sink.close(30.0)
    influx.bucket = provisioned(environment)["dbName"]
    assert influx.bucket in [row["name"] for row in influx.query("SHOW DATABASES")]
    (once,) = re.findall(r"`(ALTER RETENTION POLICY [^`]+)`", PAGE)
    influx.query(once)
    assert [row["iteration"] for row in influx.query('SELECT iteration FROM "train"')] == [7]
