"""The InfluxDB sink against a server that lets in only those it knows: who is not let in keeps every point, whatever the reason."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.proxies import NamedProxy
from tests.services import InfluxServer, MissingService, wait_until

pytestmark = pytest.mark.process

USER, PASSWORD = "recorder", "s3cret-word"
ODD_PASSWORD = "s3cret: of & 100 %"


@pytest.fixture
def certificate(tmp_path: Path, missing_service: MissingService) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=influx -addext"
    names = "subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), names, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key


@pytest.fixture
def with_certificates(tmp_path: Path, missing_service: MissingService, certificate: tuple[Path, Path]) -> Iterator[InfluxServer]:
    server = InfluxServer(tmp_path / "influx", missing_service, certificate_and_key=certificate)
    yield server
    server.kill()


def patient(config: InfluxConfig) -> InfluxConfig:
    return replace(config, gather_s=0.02, retry_min_s=0.02, retry_max_s=0.1)


def refused(config: InfluxConfig, points: int) -> str:
    """Write points, which have to wait on disk; why."""
    sink = InfluxSink(patient(config))
    sink.write(Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(points)}))
    error: str = wait_until(lambda: sink.statistics().last_error, "the refusal")
    sink.close(0.2)
    counted = sink.statistics()
    assert counted.accepted >= points  # those that an earlier sink left are among them
    assert (counted.accepted - counted.backlog, counted.dead_lettered, counted.dropped) == (0, 0, 0)
    return error


def deliver(config: InfluxConfig) -> None:
    """Deliver what other sinks have left."""
    sink = InfluxSink(patient(config))
    wait_until(lambda: sink.statistics().stored, "the points to be delivered")
    sink.close(60.0)


def stored(server: InfluxServer) -> int:
    rows = server.query("SELECT COUNT(reward) FROM step")
    return int(rows[0]["count"]) if rows else 0


@pytest.mark.parametrize(("basic", "password"), [("false", PASSWORD), ("true", ODD_PASSWORD)])
def test_a_server_with_a_password_takes_points_with_it_alone_and_nobody_else_learns_it(
    tmp_path: Path, missing_service: MissingService, caplog: pytest.LogCaptureFixture, basic: str, password: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server = InfluxServer(tmp_path / "influx", missing_service, (USER, password))
    try:
        server.start()
        environment = {"URL": server.url, "BUCKET": server.bucket, "AUTH_BASIC": basic, "TOKEN": f"{USER}:{password}"}
        known = InfluxConfig.from_environment(tmp_path / "spool", {f"INFLUXDB_V2_{name}": value for name, value in environment.items()})
        assert known is not None
        for wrong in (f"{USER}:{password}x", f"nobody:{password}"):
            assert "401" in refused(replace(known, token=wrong), points=10)
        assert stored(server) == 0
        deliver(known)
        assert stored(server) == 20
    finally:
        server.kill()
    said = caplog.text + repr(known) + "".join(path.read_text() for path in (tmp_path / "spool").rglob("*") if path.is_file())
    assert "127.0.0.1" in said
    assert password not in said


def test_a_server_that_asks_for_a_certificate_takes_points_from_its_holder_alone(
    with_certificates: InfluxServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    with_certificates.start()
    made, key = certificate
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", f"pass:{PASSWORD}", "-out", str(encrypted)]
    subprocess.run(command, check=True, capture_output=True)
    file = tmp_path / "influx.ini"
    file.write_text(
        f"[influx2]\nurl={with_certificates.url}\nbucket={with_certificates.bucket}\nssl_ca_cert={made}\n"
        f"cert_file={made}\ncert_key_file={encrypted}\ncert_key_password={PASSWORD}\n"
    )
    known = InfluxConfig.from_file(file, tmp_path / "spool")
    assert PASSWORD not in repr(known)
    assert "certificate verify failed" in refused(replace(known, ca_file=None), points=10)
    assert "No required SSL certificate" in refused(replace(known, client_certificate_file=None, client_key_file=None), points=10)
    assert "HTTPS port" in refused(replace(known, url=known.url.replace("https", "http")), points=10)
    assert stored(with_certificates) == 0
    assert not known.dead_letter_file.exists()
    deliver(known)
    assert stored(with_certificates) == 30


def test_points_wait_until_their_bucket_is_made(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    known = InfluxConfig(influx.url, "later", tmp_path / "spool")
    assert "404" in refused(known, points=10)
    influx.query('CREATE DATABASE "later"')
    deliver(known)
    influx.bucket = "later"
    assert stored(influx) == 10


def test_a_database_of_this_machine_is_written_to_without_the_proxy_that_the_environment_names(
    influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx.start()
    with NamedProxy() as proxy, monkeypatch.context() as environment:
        proxy.put_into_environment(environment, "http")
        sink = InfluxSink(patient(InfluxConfig(influx.url, influx.bucket, tmp_path / "spool")))
        sink.write(Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(10)}))
        assert sink.flush(60.0)
        sink.close(1.0)
    assert proxy.asked == []
    assert stored(influx) == 10
