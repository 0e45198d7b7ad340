"""Runners that a service has no more are left by any thread without a wait, as soon as this client has no episode there."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from policyserver.client import ClientClosedError, EpisodeLostError, PolicyClient, ServerEndedError
from policyserver.common.errors import to_metadata
from tests.client.conftest import FAST, Service, addresses
from tests.client.inner_parts import connection_of, connections_of, unlisted_of
from tests.client.reference_server import ReferenceServer, Servicer
from tests.services import wait_until

ZEROS = np.zeros(10, np.float32)
AT_ONCE_S = FAST.connect_timeout_s / 2
"""What waits for a runner takes that long, twice."""
pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [record.getMessage() for when in ("setup", "call") for record in caplog.get_records(when) if record.levelno >= logging.ERROR]
    assert [error for error in errors if "policyserver" in error or "reader" in error] == []


def batch(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.zeros((rows, 10), np.float32)


def readers() -> int:
    return sum(thread.name == "policy-client-reader" for thread in threading.enumerate())


def one_service(runners: Service) -> Service:
    """Have the runners say that they are of one service, whatever each lists."""
    for runner in runners:
        runner.servicer.identity = {"instance_id": "one"}
    return runners


def leaves(client: PolicyClient, stays: ReferenceServer, *gone: ReferenceServer) -> None:
    wait_until(lambda: [connection.target for connection in connections_of(client)] == [stays.address], "the others are left")
    wait_until(lambda: all(runner.servicer.streams == 0 for runner in gone), "the end of their streams")
    wait_until(lambda: readers() == 1, "the end of their readers")


def test_runners_are_left_that_one_of_them_says_are_gone(serve: Callable[..., Service], connect_to: Callable[..., PolicyClient]) -> None:
    service = one_service(serve(3))
    client = connect_to(service)
    ids = client.start_episodes(3)
    client.get_actions(ids, batch(3))
    client.end_episodes(ids, batch(3))
    service[1].tell([service[0].address])
    leaves(client, *service)
    client.get_action(client.start_episode(), ZEROS)


@pytest.mark.parametrize("together", [True, False])
def test_a_runner_is_left_with_its_last_episode(service: Service, connect_to: Callable[..., PolicyClient], together: bool) -> None:
    client = connect_to(service)
    ids = client.start_episodes(["a", "b", "c", "d"])
    client.get_actions(ids, batch(4))
    service[0].tell([service[0].address])
    wait_until(lambda: len(unlisted_of(client)) == 1, "the list")
    assert client.get_actions(ids, batch(4)).tolist() == [1] * 4
    began = time.monotonic()
    if together:
        client.end_episodes(ids, batch(4))
    else:
        for episode in ids:
            client.end_episode(episode, ZEROS)
    assert len(connections_of(client)) == 1, "by the thread that has ended it"
    assert time.monotonic() - began < AT_ONCE_S
    leaves(client, *service)
    assert client.counters().episodes_lost == 0


def test_a_runner_that_dies_unlisted_is_left_with_what_it_had(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    client.get_actions(client.start_episodes(["a", "b"]), batch(2))
    service[0].tell([service[0].address])
    wait_until(lambda: len(unlisted_of(client)) == 1, "the list")
    service[1].stop()
    leaves(client, service[0])
    with pytest.raises(EpisodeLostError):
        client.get_action("b", ZEROS)
    client.get_action("a", ZEROS)


def test_another_process_in_the_place_of_an_unlisted_runner_is_left(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(one_service(service))
    client.get_actions(client.start_episodes(["a", "b"]), batch(2))
    service[0].hold()
    service[0].tell([service[0].address])
    wait_until(lambda: len(unlisted_of(client)) == 1, "the list")
    successor = Servicer()
    successor.endpoints, successor.identity = [service[0].address], service[0].servicer.identity
    service[1].stop()
    service[1].start(successor)
    leaves(client, service[0], service[1])
    with pytest.raises(EpisodeLostError):
        client.get_action("b", ZEROS)
    service[0].release()


def test_the_end_for_good_is_said_although_an_unlisted_runner_has_died(
    service: Service, connect_to: Callable[..., PolicyClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both end before the client has given up the other one's episode."""
    client = connect_to(one_service(service))
    client.get_actions(client.start_episodes(["a", "b"]), batch(2))
    service[0].tell([service[0].address])
    wait_until(lambda: len(unlisted_of(client)) == 1, "the list")

    async def ended(self: Servicer, request_iterator: Any, context: Any) -> None:
        error = ServerEndedError("the server ended for good")
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error), to_metadata(error))

    monkeypatch.setattr(Servicer, "Step", ended)
    service[0].stop()
    service[0].start()
    wait_until(lambda: connection_of(client).refusal is not None, "the refusal")
    client.get_action("b", ZEROS)  # its runner is still there
    service[1].stop()
    wait_until(lambda: not connections_of(client)[-1].is_open, "the other one's end")
    began = time.monotonic()
    with pytest.raises(ServerEndedError):
        client.start_episode()
    assert time.monotonic() - began < AT_ONCE_S


def test_a_closed_client_has_ended_the_readers_of_runners_it_had_left(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    ids = client.start_episodes(2)
    client.get_actions(ids, batch(2))
    service[0].tell([service[0].address])
    wait_until(lambda: len(unlisted_of(client)) == 1, "the list")
    client.end_episodes(ids, batch(2))
    client.close()
    assert readers() == 0


@pytest.fixture
def slow_unary(monkeypatch: pytest.MonkeyPatch) -> Callable[[Servicer], threading.Event]:
    """Let a runner take its time for questions beside the stream. The event tells that it was asked one. Comes before the servers."""
    slow: list[Servicer] = []
    asked = threading.Event()
    for name in ("GetStats", "GetServerInfo"):
        answer = getattr(Servicer, name)

        async def late(self: Servicer, request: Any, context: Any, answer: Any = answer) -> Any:
            if self in slow:
                asked.set()
                await asyncio.sleep(10 * FAST.connect_timeout_s)
            return await answer(self, request, context)

        monkeypatch.setattr(Servicer, name, late)

    def use(servicer: Servicer) -> threading.Event:
        slow.append(servicer)
        return asked

    return use


def test_statistics_leave_out_a_runner_that_goes_meanwhile(
    slow_unary: Callable[[Servicer], threading.Event], service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    asked = slow_unary(service[1].servicer)
    client = connect_to(service)
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(client.stats_by_endpoint)
        assert asked.wait(60.0)
        service[0].tell([service[0].address])
        assert list(said.result(AT_ONCE_S)) == [service[0].address]


def test_another_runner_says_what_the_server_is_if_the_one_that_was_asked_goes(
    slow_unary: Callable[[Servicer], threading.Event], serve: Callable[..., Service], connect_to: Callable[..., PolicyClient]
) -> None:
    service = one_service(serve(3))
    asked = slow_unary(service[1].servicer)
    client = connect_to(service)
    client.connect()
    service[0].stop()
    wait_until(lambda: not connection_of(client).is_open, "the end of the given one")
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(client.server_info)
        assert asked.wait(60.0)
        service[2].tell(addresses([service[0], service[2]]))
        assert said.result(AT_ONCE_S).boot_id == service[2].servicer.boot_id


def test_a_question_of_a_client_that_is_closed_says_that(
    slow_unary: Callable[[Servicer], threading.Event], service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    asked = slow_unary(service[1].servicer)
    client = connect_to(service)
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(client.stats)
        assert asked.wait(60.0)
        client.close()
        with pytest.raises(ClientClosedError):
            said.result(AT_ONCE_S)
