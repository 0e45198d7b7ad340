from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import grpc
import numpy as np
import pytest

from client import PolicyClient, ServerUnavailableError
from tests.client.conftest import FAST
from tests.client.reference_server import ReferenceServer
from tests.proxies import NamedProxy


@pytest.fixture
def certificate(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> tuple[Path, Path]:
    """Make a key and a certificate of 127.0.0.1 that signs itself."""
    if shutil.which("openssl") is None:
        missing_service("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=policy-server"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


def test_steps_and_token_travel_encrypted_to_the_holder_of_the_certificate_only(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    key, chain = (path.read_bytes() for path in certificate)
    token = tmp_path / "token"
    token.write_text("s3cret")
    with ReferenceServer(credentials=grpc.ssl_server_credentials([(key, chain)])) as server:
        server.servicer.token = "s3cret"
        with PolicyClient(server.address, config=replace(FAST, tls_ca_file=certificate[1], token_file=token)) as client:
            assert client.get_action(client.start_episode(), np.zeros(10, np.float32)) == 0
        plain = replace(FAST, connect_timeout_s=1.0)
        with PolicyClient(server.address, config=plain) as client, pytest.raises(ServerUnavailableError):
            client.start_episode()


def test_every_runner_is_spoken_to_with_the_same_certificate_and_token(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    key, chain = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    token = tmp_path / "token"
    token.write_text("s3cret")
    with ReferenceServer(credentials=credentials) as first, ReferenceServer(credentials=credentials) as second:
        for server in (first, second):
            server.servicer.token = "s3cret"
            server.servicer.endpoints = [first.address, second.address]
        with PolicyClient(first.address, config=replace(FAST, tls_ca_file=certificate[1], token_file=token)) as client:
            assert client.get_actions(client.start_episodes(4), np.zeros((4, 10))).tolist() == [0] * 4
        assert [len(server.servicer.episodes) for server in (first, second)] == [2, 2]


def test_a_client_of_another_machine_still_asks_the_proxy_and_tells_it_no_secret(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    with NamedProxy() as proxy:
        proxy.put_into_environment(monkeypatch, "https")
        config = replace(FAST, tls_ca_file=certificate[1], token_file=token, connect_timeout_s=1.0)
        with PolicyClient("trading.example:443", config=config) as client, pytest.raises(ServerUnavailableError):
            client.start_episode()
    assert proxy.asked[0].startswith(b"CONNECT trading.example:443 ")
    assert not [asked for asked in proxy.asked if b"s3cret" in asked]
