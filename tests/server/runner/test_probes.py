"""A client may look as often as each second whether its connection still lives, so that it soon acts elsewhere."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from policyserver.client import PolicyClient
from tests.ports import free_ports, listens
from tests.server.core_harness import observation
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness
from tests.services import NGINX_HEAD, MissingService, program, wait_until

PROBES = 5
"""More than gRPC takes of a client that looks more often than it may: it closes the connection at the third."""


_NGINX = (
    NGINX_HEAD
    + """  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ grpc_pass grpc://{server}; }}
  }}
}}
"""
)


@contextmanager
def nginx(server: str, folder: Path, missing_service: MissingService) -> Iterator[str]:
    """Run an nginx before a server; yields its address."""
    (port,) = free_ports(1)
    (folder / "nginx.conf").write_text(_NGINX.format(port=port, server=server))
    with subprocess.Popen([program("nginx", missing_service), "-p", str(folder), "-c", "nginx.conf"]) as process:
        try:
            wait_until(lambda: listens(process.pid, port), "nginx to listen")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def stays_open(address: str) -> None:
    config = replace(CLIENT, keepalive_time_s=1.0, spread_episodes=False)
    with PolicyClient(address, config=config) as client:
        episode = client.start_episode()
        client.get_action(episode, observation())
        time.sleep(PROBES + 0.5)
        client.log_returns(episode, 1.0)
        client.get_action(episode, observation())
        assert client.counters().connections == 1


@pytest.mark.slow  # it waits, for as long as so many probes take
def test_a_connection_that_is_probed_each_second_stays_open(serve: ServingLoopHarness) -> None:
    stays_open(serve.address)


@pytest.mark.slow
@pytest.mark.process
def test_it_stays_open_through_a_proxy_too(serve: ServingLoopHarness, tmp_path: Path, missing_service: MissingService) -> None:
    with nginx(serve.address, tmp_path, missing_service) as address:
        stays_open(address)
