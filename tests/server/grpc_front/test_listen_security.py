"""Plaintext is served on this machine alone; beyond it TLS and a token are required, and only callers with the token get through."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from policyserver.common.listening import InsecureListenError
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.grpc_front.listen_security import TokenInterceptor, check_listen, token
from tests.ports import DIRECT

pytestmark = pytest.mark.process

TOKEN = "0123456789abcdef"


@pytest.fixture
def secrets(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> ListenConfig:
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    certificate, key, token_file = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "token"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    key.chmod(0o600)
    token_file.touch(0o600)
    token_file.write_text(f"{TOKEN}\n")
    return ListenConfig("0.0.0.0:0", certificate, key, token_file)


@pytest.mark.parametrize("address", ["127.0.0.1:9900", "localhost:9900", "[::1]:9900", "unix:/run/policy.sock"])
def test_plaintext_is_allowed_on_this_machine(address: str) -> None:
    check_listen(ListenConfig(address))


def test_plaintext_is_refused_on_a_localhost_that_is_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("192.0.2.7", 0))])
    with pytest.raises(InsecureListenError, match="localhost:9900 can be reached from other machines"):
        check_listen(ListenConfig("localhost:9900"))


@pytest.mark.parametrize("address", ["0.0.0.0:9900", "[::]:9900", "192.0.2.1:9900", "trader.example:9900"])
def test_plaintext_is_refused_where_others_can_reach_it(address: str) -> None:
    with pytest.raises(InsecureListenError, match=r"listen.tls_certificate_file and listen.tls_key_file and listen.token_file"):
        check_listen(ListenConfig(address))


def test_with_certificate_key_and_token_any_address_is_allowed(secrets: ListenConfig) -> None:
    check_listen(secrets)
    assert token(secrets) == TOKEN


def test_a_token_alone_or_tls_alone_is_not_enough(secrets: ListenConfig) -> None:
    with pytest.raises(InsecureListenError, match=r"listen.token_file must"):
        check_listen(ListenConfig(secrets.address, secrets.tls_certificate_file, secrets.tls_key_file))
    with pytest.raises(InsecureListenError, match=r"listen.tls_certificate_file and listen.tls_key_file must"):
        check_listen(ListenConfig(secrets.address, token_file=secrets.token_file))


@pytest.mark.parametrize("name", ["tls_key_file", "token_file"])
def test_a_secret_that_others_can_read_is_refused(name: str, secrets: ListenConfig) -> None:
    getattr(secrets, name).chmod(0o640)
    with pytest.raises(InsecureListenError, match=rf"listen.{name}: .*mode 640"):
        check_listen(secrets)


@pytest.mark.parametrize("content", ["", "short", "seventeen chars \N{SNOWMAN}"])
def test_a_token_that_is_none_is_refused(content: str, secrets: ListenConfig) -> None:
    assert secrets.token_file is not None
    secrets.token_file.write_text(content)
    with pytest.raises(InsecureListenError, match=r"listen.token_file: expected at least 16"):
        check_listen(secrets)


def test_a_missing_certificate_is_refused_by_its_name(secrets: ListenConfig) -> None:
    assert secrets.tls_certificate_file is not None
    secrets.tls_certificate_file.unlink()
    with pytest.raises(InsecureListenError, match=r"listen.tls_certificate_file: expected a readable file"):
        check_listen(secrets)


def test_only_callers_with_the_token_get_through_and_health_needs_none() -> None:
    async def echo(request: bytes, _: object) -> bytes:
        return request

    async def scenario() -> list[object]:
        server = grpc.aio.server(interceptors=[TokenInterceptor(TOKEN)])
        echo_handler = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": echo_handler}),))
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)  # type: ignore[attr-defined]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        answers: list[object] = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", DIRECT) as channel:
            call = channel.unary_unary("/test.Echo/Echo", request_serializer=bytes, response_deserializer=bytes)
            for metadata in (None, [("authorization", f"Bearer {TOKEN}x")], [("authorization", f"Bearer {TOKEN}")]):
                try:
                    answers.append(await call(b"hello", metadata=metadata))
                except grpc.aio.AioRpcError as error:
                    answers.append(error.code())
            status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            answers.append(status.status)
        await server.stop(None)
        return answers

    refused = grpc.StatusCode.UNAUTHENTICATED
    assert asyncio.run(scenario()) == [refused, refused, b"hello", health_pb2.HealthCheckResponse.SERVING]
