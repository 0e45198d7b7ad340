"""Clients are told of serving processes that come and go at once, and how busy they are now and then; an older client is told nothing."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policyserver.common.flags import PROTOCOL_VERSION
from policyserver.server.grpc_front import endpoints as module
from policyserver.server.grpc_front.endpoints import Endpoints
from policyserver.v1 import policy_service_pb2 as pb
from tests.client.inner_parts import connections_of
from tests.server.core_harness import SkippingLoop, observation
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop
from tests.services import wait_until

A, B = "host:1", "host:2"


class Told:
    """What two streams are told of a service whose addresses and loads a test sets."""

    def __init__(self) -> None:
        self.listed = [A]
        self.loads: dict[str, int] = {}
        self.endpoints = Endpoints(lambda: list(self.listed), lambda: self.loads)
        self.messages: list[list[pb.Endpoints]] = [[], []]
        for stream in self.messages:
            turn = self.endpoints.turn()
            self.endpoints.follow(self._into(stream), turn, self.endpoints.addresses(turn))

    @staticmethod
    def _into(stream: list[pb.Endpoints]) -> Callable[[pb.StepResponse], None]:
        return lambda message: stream.append(message.endpoints)

    def counts(self) -> list[int]:
        self.endpoints.look()
        return [len(stream) for stream in self.messages]


async def run_an_address_is_told_at_once() -> None:
    told = Told()
    assert told.counts() == [0, 0]
    told.listed, told.loads = [A, B], {A: 5, B: 0}
    assert told.counts() == told.counts() == [1, 1]
    assert [list(stream[0].addresses) for stream in told.messages] == [[A, B], [B, A]], "each begins with another one"
    assert [(load.address, load.episodes_open) for load in told.messages[0][0].loads] == [(A, 5), (B, 0)]
    told.listed = [A]
    assert told.counts() == [2, 2]
    assert list(told.messages[0][1].loads) == [], "one alone has nothing to choose from"


async def run_loads_are_told_now_and_then() -> None:
    told = Told()
    told.listed, told.loads = [A, B], {A: 100, B: 100}
    assert told.counts() == [1, 1]
    for load in range(101, 180):
        told.loads = {A: load, B: 100}
        assert told.counts() == [1, 1]
    await asyncio.sleep(1.1 * module.LOADS_S)
    assert [len(stream) for stream in told.messages] == [2, 2], "the newest, once the time is over"
    assert told.messages[0][1].loads[0].episodes_open == 179
    told.loads = {A: 190, B: 100}
    assert told.counts() == [2, 2]
    await asyncio.sleep(1.1 * module.LOADS_S)
    assert told.counts() == [2, 2], "little has changed"


@pytest.mark.long
@pytest.mark.parametrize("run", [run_an_address_is_told_at_once, run_loads_are_told_now_and_then])
def test_what_is_told(run: Callable[[], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    loop = SkippingLoop()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
    loop.run_until_complete(run())
    loop.close()


def test_a_client_that_came_while_something_changed_is_told_at_once() -> None:
    told = Told()
    late: list[pb.Endpoints] = []
    told.listed = [A, B]
    told.endpoints.follow(lambda message: late.append(message.endpoints), 2, [A])
    assert [list(message.addresses) for message in late] == [[A, B]]


def listing(harness: ServingLoopHarness, *addresses: str) -> None:
    harness.serving_loop.endpoints = lambda: list(addresses)
    harness.serving_loop.tell_endpoints()


@pytest.mark.long
def test_a_client_of_a_server_uses_the_process_that_came_without_connecting_anew() -> None:
    with running_serving_loop() as first, running_serving_loop() as second:
        client = first.client()
        client.get_actions(client.start_episodes(["a", "b"]), np.stack([observation(), observation()]))
        connections = client.counters().connections
        for harness in (first, second):
            listing(harness, first.address, second.address)
        first.serving_loop.loads = second.serving_loop.loads = lambda: {first.address: 2, second.address: 0}
        wait_until(lambda: len(connections_of(client)) == 2 and connections_of(client)[1].is_open, "the second one")
        client.get_actions(client.start_episodes(["c", "d"]), np.stack([observation(), observation()]))
        assert {harness.serving_loop.episodes_open for harness in (first, second)} == {2}
        assert client.counters().connections == connections + 1
        assert [(load.address, load.episodes_open) for load in client.server_info().endpoint_loads] == [
            (first.address, 2),
            (second.address, 0),
        ]
        listing(first, first.address)
        client.end_episodes(["c", "d"], np.stack([observation(), observation()]))
        assert client.counters().episodes_lost == 0


@pytest.mark.long
def test_a_client_of_an_older_version_is_told_nothing() -> None:
    with running_serving_loop() as harness:
        sent: list[queue.SimpleQueue[pb.StepRequest | None]] = [queue.SimpleQueue(), queue.SimpleQueue()]
        answers = [harness.stub().Step(iter(each.get, None)) for each in sent]
        for each, takes in zip(sent, (False, True), strict=True):
            each.put(pb.StepRequest(handshake=pb.Handshake(protocol_version=PROTOCOL_VERSION, client_id=f"{takes}", takes_endpoints=takes)))
        assert [next(each).WhichOneof("kind") for each in answers] == ["handshake"] * 2
        listing(harness, harness.address, "127.0.0.1:9")
        assert set(next(answers[1]).endpoints.addresses) == {"127.0.0.1:9", harness.address}
        for each in sent:
            each.put(pb.StepRequest(batch=pb.StepBatch(message_id=7)))
        assert [next(each).batch.message_id for each in answers] == [7, 7], "nothing came before it"
        for each in sent:
            each.put(None)
