from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.client.reference_server import ReferenceServer

# Quick to try again. The limits end what hangs, for a machine may stand still for seconds.
FAST = ClientConfig(
    action_timeout_s=100.0,
    connect_timeout_s=100.0,
    reconnect_backoff_initial_s=0.02,
    reconnect_backoff_max_s=0.1,
    overload_backoff_initial_s=0.01,
)

Service = Sequence[ReferenceServer]


def addresses(runners: Service) -> list[str]:
    return [runner.address for runner in runners]


@pytest.fixture(autouse=True)
def _no_runner_and_no_thread_is_given_up_for_slowness() -> Iterator[None]:
    """Let a client wait for its other runners, and for its threads to end, for longer than a machine stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policyserver.client.balancing._OTHERS_TIMEOUT_S", 60.0)
        patch.setattr("policyserver.client.connection._JOIN_TIMEOUT_S", 60.0)
        yield


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


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Make services of so many runners, each of which lists them all."""
    with ExitStack() as stack:

        def make(count: int, sockets: Sequence[str] = ()) -> Service:
            runners = [stack.enter_context(ReferenceServer(socket=sockets[index] if sockets else "")) for index in range(count)]
            for runner in runners:
                runner.servicer.endpoints = addresses(runners)
            return runners

        yield make


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    """Two runners."""
    return serve(2)


@pytest.fixture
def connect_to() -> Iterator[Callable[..., PolicyClient]]:
    """Make clients of services that are closed before them."""
    with ExitStack() as stack:
        yield lambda service, config=FAST: stack.enter_context(PolicyClient(service[0].address, config=config))
