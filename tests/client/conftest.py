from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.client.reference_server import ReferenceServer

FAST = ClientConfig(
    action_timeout_s=10.0,
    connect_timeout_s=5.0,
    reconnect_backoff_initial_s=0.02,
    reconnect_backoff_max_s=0.1,
    overload_backoff_initial_s=0.01,
)


@pytest.fixture
def server() -> Iterator[ReferenceServer]:
    with ReferenceServer() as running:
        yield running


@pytest.fixture
def connect(server: ReferenceServer) -> Iterator[Callable[..., PolicyClient]]:
    """Make clients of the server that are closed before it."""
    with ExitStack() as stack:
        yield lambda config=FAST, **options: stack.enter_context(PolicyClient(server.address, config=config, **options))


@pytest.fixture
def client(connect: Callable[..., PolicyClient]) -> PolicyClient:
    return connect()
