"""influxdb-client's file and variables: each setting is obeyed or refused, none is ignored in silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.monitoring.answering_server import AnsweringServer, answering
from tests.services import InfluxServer


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with answering() as server:
        yield server


def read(tmp_path: Path, text: str) -> InfluxConfig:
    file = tmp_path / "influx.ini"
    file.write_text(f"[influx2]\nbucket=rl\n{text}")
    return InfluxConfig.from_file(file, tmp_path / "spool")


def deliver(config: InfluxConfig) -> None:
    sink = InfluxSink(config)
    sink.write(Points("step", {"run": "r"}, {"reward": [1.0, 2.0]}))
    sink.write(Points.one("train", {"run": "r"}, {"loss": 0.5}))
    assert sink.flush(60.0)
    sink.close(60.0)


def test_points_go_through_the_proxy_of_the_file(server: AnsweringServer, tmp_path: Path) -> None:
    config = read(tmp_path, f"url=http://influx.invalid:8086\nproxy={server.url.replace('//', '//user:s3cret%20word@')}\n")
    deliver(config)
    assert server.paths[:1] == ["http://influx.invalid:8086/api/v2/write?org=-&bucket=rl&precision=ns"]
    assert server.headers[0]["Proxy-Authorization"] == "Basic dXNlcjpzM2NyZXQgd29yZA=="
    assert "s3cret" not in repr(config)


def test_requests_are_compressed_if_the_file_says_so(server: AnsweringServer, tmp_path: Path) -> None:
    deliver(read(tmp_path, f"url={server.url}\nenable_gzip=true\nconnection_pool_maxsize=2\nprofilers=query,operator\n"))
    assert server.headers[0].get("Content-Encoding") == "gzip"
    assert len(server.lines) == 3


@pytest.mark.process
def test_the_tags_of_the_file_are_on_every_point(influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    influx.start()
    monkeypatch.setenv("DATA_CENTRE", "west, 100 %")
    deliver(read(tmp_path, f"url={influx.url}\n[tags]\nhost = a\nsite = ${{env.DATA_CENTRE}}\n"))
    assert influx.query("SELECT reward FROM step WHERE host = 'a' GROUP BY \"site\"")[1]["reward"] == 2.0
    assert {row["site"] for row in influx.query('SELECT loss FROM train GROUP BY "site"')} == {"west, 100 %"}


def test_the_tags_of_the_environment_are_on_every_point(server: AnsweringServer, tmp_path: Path) -> None:
    variables = {"INFLUXDB_V2_URL": server.url, "INFLUXDB_V2_BUCKET": "rl", "INFLUXDB_V2_TAG_HOST": "a"}
    config = InfluxConfig.from_environment(tmp_path / "spool", variables)
    assert config is not None
    deliver(config)
    assert [line.split(",", 2)[1] for line in server.lines] == ["host=a"] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokn=s3cret\n", r"tokn: unknown key of \[influx2\]; did you mean token\?"),
        ("colour=s3cret\n", r"colour: unknown key of \[influx2\]; known are url, bucket, org"),
        ("verify_ssl=flase\n", "VERIFY_SSL: expected true or false, received 'flase'"),
        ("connection_pool_maxsize=inf\n", "CONNECTION_POOL_MAXSIZE: expected a whole number of connections, received 'inf'"),
        ("proxy=user:s3cret@proxy:80\n", "proxy: expected http://host:port, received 'proxy:80'"),
        ("[tags]\nrun=mine\n", "tags: expected names that no recorded tag or field has .* received 'run'"),
        ("[tags]\nreward=mine\n", "tags: expected names that no recorded tag or field has .* received 'reward'"),
        ("[tags]\nsite=${env.NOBODY_SET_THIS}\n", r"\[tags\] site: expected the variable NOBODY_SET_THIS to be set"),
        ("token=abc\nS3CRET42==\n", "a key that is no word: unknown key"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read(tmp_path, f"url=http://127.0.0.1:9\n{text}")
    assert "s3cret" not in str(refused.value).lower()


def test_a_variable_that_nothing_is_known_of_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    variables = {"INFLUXDB_V2_URL": "http://127.0.0.1:9", "INFLUXDB_V2_BUCKET": "b", "INFLUXDB_V2_TOKN": "s3cret"}
    assert InfluxConfig.from_environment(tmp_path, variables) is not None
    assert "INFLUXDB_V2_TOKN is ignored, because there is no such variable; did you mean INFLUXDB_V2_TOKEN?" in caplog.text
    assert "s3cret" not in caplog.text
