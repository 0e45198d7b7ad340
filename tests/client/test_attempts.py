"""An attempt to connect to a machine that answers nothing ends: episodes there are given up after one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from policyserver.client.channel import make_channel
from policyserver.client.config import ClientConfig

WAIT_S = 18.0


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that drops what reaches it, as the kernel does once a listener's queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        yield f"127.0.0.1:{port}"


@pytest.mark.long
def test_an_attempt_to_connect_takes_as_long_as_an_answer_to_a_probe_may(silent_address: str) -> None:
    failed = threading.Event()

    def look(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            failed.set()

    channel = make_channel(silent_address, ClientConfig(keepalive_timeout_s=1.0))
    try:
        begun_s = time.monotonic()
        channel.subscribe(look, try_to_connect=True)
        assert failed.wait(WAIT_S), "gRPC's own limit is 20 s"
        assert time.monotonic() - begun_s >= 0.9
    finally:
        channel.unsubscribe(look)
        channel.close()
