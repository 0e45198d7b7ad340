"""Of a Ray cluster that lets anyone in is told before it is joined, with its token and its TLS: the probe meets a real gRPC server here."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_authentication import refuse_insecure
from tests.ports import DIRECT

pytestmark = [pytest.mark.process, pytest.mark.long]


class Head(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """What answers the probe as a head does: with a token, a call without one is refused."""

    def __init__(self, has_token: bool) -> None:
        self._has_token = has_token

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        assert handler_call_details.method == "/ray.rpc.NodeInfoGcsService/CheckAlive"

        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self._has_token:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is missing")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def head(*, has_token: bool, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Head(has_token)], options=DIRECT)
        where = "127.0.0.1:0"
        port = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


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
    with head(has_token=True) as address:
        refuse_insecure(address, insecure=False)


def test_neither_token_nor_tls_is_refused_unless_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with head(has_token=False) as address:
        with pytest.raises(SettingsError, match=rf"ray\.address: the Ray cluster at {address} lets anyone .* or set ray\.insecure = true"):
            refuse_insecure(address, insecure=False)
        refuse_insecure(address, insecure=True)
    assert "joined all the same (ray.insecure)" in caplog.text


def test_a_token_with_tls_is_authentication(certificate: grpc.ServerCredentials, caplog: pytest.LogCaptureFixture) -> None:
    with head(has_token=True, credentials=certificate) as address:
        refuse_insecure(address, insecure=False)
    assert caplog.text == ""


def test_tls_alone_is_refused_unless_it_is_wanted(certificate: grpc.ServerCredentials, caplog: pytest.LogCaptureFixture) -> None:
    with head(has_token=False, credentials=certificate) as address:
        with pytest.raises(SettingsError, match=r"takes requests of anyone who reaches it; give all .* or set ray\.insecure = true"):
            refuse_insecure(address, insecure=False)
        refuse_insecure(address, insecure=True)
    assert "joined all the same (ray.insecure)" in caplog.text


def test_tls_here_and_none_there_is_refused(certificate: grpc.ServerCredentials) -> None:
    with head(has_token=False) as address, pytest.raises(DaemonError, match="with Ray's TLS, for RAY_USE_TLS is set here, received UNAV"):
        refuse_insecure(address, insecure=True)


def test_tls_there_and_none_here_is_refused(certificate: grpc.ServerCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USE_TLS")
    with head(has_token=True, credentials=certificate) as address, pytest.raises(DaemonError, match="needs RAY_USE_TLS=1 here, too"):
        refuse_insecure(address, insecure=True)


@pytest.mark.parametrize(("value", "expected"), [("", "received none"), ("/is/not/there", "received /is/not/there: No such file")])
def test_a_missing_certificate_is_named_by_its_variable(
    certificate: grpc.ServerCredentials, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("RAY_TLS_SERVER_KEY", value)
    with pytest.raises(SettingsError, match=f"environment variable RAY_TLS_SERVER_KEY to name a file.* {expected}"):
        refuse_insecure("127.0.0.1:1", insecure=False)
