"""Steps and token travel encrypted to the holder of the certificate alone, and a disagreement about encryption is told at once."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import grpc
import numpy as np
import pytest

from policyserver.client import PolicyClient, ServerUnavailableError
from tests.client.conftest import FAST
from tests.client.inner_parts import connection_of
from tests.client.reference_server import ReferenceServer
from tests.client.test_threads_share_a_stream import wait_until
from tests.proxies import NamedProxy

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Authority:
    """A key, and a certificate that it signs itself."""

    key: Path
    certificate: Path

    @property
    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])


@pytest.fixture
def authority(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Callable[..., Authority]:
    """Make authorities by name, for one address by default."""
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")

    def make(name: str, names: str = "IP:127.0.0.1", *, days: int = 2) -> Authority:
        made = Authority(tmp_path / f"{name}.key", tmp_path / f"{name}.pem")
        request = (
            f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -addext subjectAltName={names}"
        )
        sign = f"openssl x509 -req -days {days} -signkey {made.key} -copy_extensions copyall -out {made.certificate}"
        asked = subprocess.run([*request.split(), "-keyout", str(made.key)], check=True, capture_output=True)
        subprocess.run(sign.split(), input=asked.stdout, check=True, capture_output=True)
        return made

    return make


@pytest.fixture
def here(authority: Callable[..., Authority]) -> Authority:
    return authority("here")


def test_steps_and_token_travel_encrypted_to_the_holder_of_the_certificate_only(here: Authority, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    with ReferenceServer(credentials=here.credentials) as server:
        server.servicer.token = "s3cret"
        with PolicyClient(server.address, config=replace(FAST, tls_ca_file=here.certificate, token_file=token)) as client:
            assert client.get_action(client.start_episode(), np.zeros(10, np.float32)) == 0


MISMATCHES = {
    "plaintext at a TLS port": ("here", None, r"{target} speaks TLS and this client plaintext: set ClientConfig\(tls_ca_file=...\)"),
    "TLS at a plaintext port": (None, "here", r"{target} speaks plaintext and this client TLS: leave tls_ca_file out"),
    "another authority": ("here", "there", r"tls_ca_file: .*there.pem does not vouch for the certificate of {target}: self-signed"),
    "an authority of the past": ("past", "past", r"tls_ca_file: .*past.pem does not vouch for .* {target}: certificate has expired"),
    "another host": ("there", "there", r"the certificate of {target} is for DNS trader.example, IP Address 192.0.2.7, not for 127.0.0.1: "),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_who_does_not_agree_about_encryption_hears_what_is_wrong_at_once(authority: Callable[..., Authority], mismatch: str) -> None:
    made = {"here": authority("here"), "there": authority("there", "DNS:trader.example,IP:192.0.2.7"), "past": authority("past", days=-1)}
    serves, trusts, text = MISMATCHES[mismatch]
    config = replace(FAST, tls_ca_file=made[trusts].certificate if trusts else None)
    with (
        ReferenceServer(credentials=made[serves].credentials if serves else None) as server,
        PolicyClient(server.address, config=config) as client,
    ):
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError) as caught:
            client.start_episode()
        waited_s = time.monotonic() - began
        with pytest.raises(ServerUnavailableError) as asked:
            client.server_info()
    for error in (caught.value, asked.value):
        assert re.match(text.format(target=server.address), str(error)), str(error)
        assert "\n" not in str(error)
        assert (type(error).__name__, error.field) == ("EncryptionError", "tls_ca_file")
    assert waited_s < FAST.connect_timeout_s / 2


def test_a_client_that_was_refused_for_its_encryption_is_let_in_by_a_successor_that_agrees(here: Authority) -> None:
    with (
        ReferenceServer(credentials=here.credentials) as server,
        PolicyClient(server.address, config=FAST) as client,
    ):
        with pytest.raises(ServerUnavailableError, match="speaks TLS"):
            client.start_episode()
        server.stop()
        server._credentials = None
        server.start()
        wait_until(lambda: connection_of(client).is_open)
        assert client.get_action(client.start_episode(), np.zeros(10, np.float32)) == 0


def test_a_file_without_certificates_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate\n")
    with pytest.raises(ValueError, match=r"^tls_ca_file: expected certificates in PEM form in .*ca.pem, received none"):
        PolicyClient("127.0.0.1:9900", config=replace(FAST, tls_ca_file=file))
    with pytest.raises(ValueError, match=r"^tls_ca_file: expected a readable file, received .*absent"):
        PolicyClient("127.0.0.1:9900", config=replace(FAST, tls_ca_file=tmp_path / "absent"))


def test_every_runner_is_spoken_to_with_the_same_certificate_and_token(here: Authority, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    with ReferenceServer(credentials=here.credentials) as first, ReferenceServer(credentials=here.credentials) as second:
        for server in (first, second):
            server.servicer.token = "s3cret"
            server.servicer.endpoints = [first.address, second.address]
        with PolicyClient(first.address, config=replace(FAST, tls_ca_file=here.certificate, token_file=token)) as client:
            assert client.get_actions(client.start_episodes(4), np.zeros((4, 10))).tolist() == [0] * 4
        assert [len(server.servicer.episodes) for server in (first, second)] == [2, 2]


def test_a_client_of_another_machine_still_asks_the_proxy_and_tells_it_no_secret(
    here: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    with NamedProxy() as proxy:
        proxy.put_into_environment(monkeypatch, "https")
        config = replace(FAST, tls_ca_file=here.certificate, token_file=token, connect_timeout_s=1.0)
        with PolicyClient("trading.example:443", config=config) as client:
            with pytest.raises(ServerUnavailableError):
                client.start_episode()
            wait_until(lambda: bool(proxy.asked))
    assert proxy.asked[0].startswith(b"CONNECT trading.example:443 ")
    assert not [asked for asked in proxy.asked if b"s3cret" in asked]
