"""Of a Ray cluster that lets anyone in is told before it is joined, with its token and its TLS: the probe meets a real gRPC server here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_authentication import refuse_insecure
from tests.server.daemon.ray_head_harness import head

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> grpc.ServerCredentials:
    """A certificate of this machine's, which the environment names as Ray's; returns what a head with Ray's TLS listens with."""
    key, made = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=ray"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run([*command, *names], check=True, capture_output=True, timeout=60.0)
    for variable, value in {"USE_TLS": "1", "TLS_SERVER_CERT": made, "TLS_SERVER_KEY": key, "TLS_CA_CERT": made}.items():
        monkeypatch.setenv(f"RAY_{variable}", str(value))
    return grpc.ssl_server_credentials([(key.read_bytes(), made.read_bytes())], made.read_bytes(), require_client_auth=True)


def test_a_token_is_authentication() -> None:
    with head(token="right") as address:
        assert refuse_insecure(address, insecure=False), "it is asked for"


def test_neither_token_nor_tls_is_refused_unless_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with head() as address:
        with pytest.raises(SettingsError, match=rf"ray\.address: the Ray cluster at {address} lets anyone .* or set ray\.insecure = true"):
            refuse_insecure(address, insecure=False)
        assert not refuse_insecure(address, insecure=True), "no token is asked for"
    assert "joined all the same (ray.insecure)" in caplog.text


def test_a_token_with_tls_is_authentication(certificate: grpc.ServerCredentials, caplog: pytest.LogCaptureFixture) -> None:
    with head(token="right", credentials=certificate) as address:
        refuse_insecure(address, insecure=False)
    assert caplog.text == ""


def test_tls_alone_is_refused_unless_it_is_wanted(certificate: grpc.ServerCredentials, caplog: pytest.LogCaptureFixture) -> None:
    with head(credentials=certificate) as address:
        with pytest.raises(SettingsError, match=r"takes requests of anyone who reaches it; give all .* or set ray\.insecure = true"):
            refuse_insecure(address, insecure=False)
        refuse_insecure(address, insecure=True)
    assert "joined all the same (ray.insecure)" in caplog.text


def test_tls_here_and_none_there_is_refused(certificate: grpc.ServerCredentials) -> None:
    with head() as address, pytest.raises(DaemonError, match="with Ray's TLS, for RAY_USE_TLS is set here, received UNAV"):
        refuse_insecure(address, insecure=True)


def test_tls_there_and_none_here_is_refused(certificate: grpc.ServerCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USE_TLS")
    with head(token="right", credentials=certificate) as address, pytest.raises(DaemonError, match="needs RAY_USE_TLS=1 here, too"):
        refuse_insecure(address, insecure=True)


@pytest.mark.parametrize(("value", "expected"), [("", "received none"), ("/is/not/there", "received /is/not/there: No such file")])
def test_a_missing_certificate_is_named_by_its_variable(
    certificate: grpc.ServerCredentials, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("RAY_TLS_SERVER_KEY", value)
    with pytest.raises(SettingsError, match=f"environment variable RAY_TLS_SERVER_KEY to name a file.* {expected}"):
        refuse_insecure("127.0.0.1:1", insecure=False)
