"""Connections to the live page: those that are silent keep nobody out, and viewers are as many as may be."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.page.server import PageServer
from tests.descriptors import open_descriptors
from tests.monitoring.filled_store import FilledRun, fill
from tests.monitoring.page_harness import RUN, TOKEN, get, serve
from tests.services import wait_until

CROWD = 150
VIEWERS = 64


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    """The page of a run that has just begun."""
    fill(tmp_path / "store.sqlite", FilledRun(RUN["run"]), steps=64)
    page = serve(tmp_path / "store.sqlite")
    yield page
    page.close()


@contextlib.contextmanager
def crowd(port: int, count: int, first_bytes: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that send at most the beginning of a request, and then nothing."""
    with contextlib.ExitStack() as open_ones:
        held = []
        for _ in range(count):
            held.append(open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60.0)))
            held[-1].sendall(first_bytes)
        yield held


@pytest.mark.long
@pytest.mark.parametrize("first_bytes", [b"", b"GET / HTTP/1.1\r\nHost: localh", b"GET /events HTTP/1.1\r\nHost: evil.example\r\n\r\n"])
def test_silent_and_slow_connections_and_strangers_keep_no_viewer_out(page: PageServer, first_bytes: bytes) -> None:
    with crowd(int(page.address.rpartition(":")[2]), CROWD, first_bytes):
        time.sleep(0.2)
        assert get(f"{page.address}/snapshot")[0] == 200
        assert get(f"{page.address}/static/page.js")[0] == 200


@pytest.mark.process
def test_silence_in_the_handshake_of_tls_keeps_no_viewer_out_and_takes_no_descriptors(open_page: PageServer, protected: PageConfig) -> None:
    port = int(open_page.address.rpartition(":")[2])
    trusting = ssl.create_default_context(cafile=str(protected.tls_certificate_file))
    before = open_descriptors()
    with crowd(port, CROWD) as silent:
        assert get(f"https://127.0.0.1:{port}/snapshot", {"Authorization": f"Bearer {TOKEN}"}, trusting)[0] == 200
        wait_until(lambda: len(open_descriptors() - before) - len(silent) < VIEWERS + 10, "the oldest to be shut")


@pytest.mark.long
def test_a_viewer_too_many_is_told_so_until_one_leaves(page: PageServer) -> None:
    with contextlib.ExitStack() as viewers:
        streams = [urllib.request.urlopen(f"{page.address}/events", timeout=30.0) for _ in range(VIEWERS)]
        for stream in streams:
            viewers.enter_context(stream)
            assert stream.readline() == b"event: choices\n"
        status, said = get(f"{page.address}/snapshot")
        assert (status, said) == (503, b"64 viewers are here already: try again later\n")
        with crowd(int(page.address.rpartition(":")[2]), CROWD):
            assert streams[0].readline().startswith(b"data: "), "who is answered is not shut out by the silent"
        streams[0].close()
        wait_until(lambda: get(f"{page.address}/snapshot")[0] == 200, "room for another")
