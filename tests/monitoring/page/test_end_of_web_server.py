"""A web server ends beside clients that do not: it closes their connections, and its log has no error of that."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from policyserver.monitoring.page.web_server import WebServer
from tests.descriptors import open_descriptors

MORE_THAN_BUFFERS_TAKE = 8_000_000


async def endless(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)
            await asyncio.sleep(0.001)

    return StreamingResponse(pieces())


async def large(request: Request) -> Response:
    return Response(bytes(MORE_THAN_BUFFERS_TAKE))


@pytest.mark.long
@pytest.mark.parametrize("asked", ["GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_connection_whose_client_reads_nothing_is_closed(asked: str, caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what garbage of earlier tests has to say goes into the log now
    caplog.clear()
    before = open_descriptors()
    server = WebServer()
    server.serve([Route("/endless", endless), Route("/large", large)], "web")
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10.0) as client:
        client.sendall(asked.encode())
        assert client.recv(100), "it is being answered"
        server.close()
        assert [number for number, _ in open_descriptors() - before] == [client.fileno()]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
