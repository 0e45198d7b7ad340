"""What a stranger fills has a bound in bytes: ids, episodes of plain calls, infos, and what a client does not read."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
import numpy as np
import pytest

from policyserver.common.errors import from_rpc_error
from policyserver.common.flags import StepFlag
from policyserver.common.tensors import to_tensor
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig
from policyserver.v1 import policy_service_pb2 as pb
from tests.ports import DIRECT
from tests.server.anonymous_memory import anonymous_mb
from tests.server.core_harness import CoreHarness, Row, observation, start, table_of, timers_of
from tests.server.flood import ROWS, handshake, unknown_rows
from tests.server.serving_loop_harness import ServingLoopHarness, Unary, running_serving_loop

LONG = "x" * 10_000_000
WaitUntil = Callable[[Callable[[], bool]], None]


class Flood:
    """A stream on a connection of its own that sends messages as fast as they are taken, and reads no answer until it is told to."""

    def __init__(self, address: str, messages: int = 10_000) -> None:
        self.sent = 0
        self._requests: queue.SimpleQueue[pb.StepRequest] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *DIRECT])
        self._messages = messages
        self._over = threading.Event()
        call = self._channel.stream_stream(
            "/policyserver.v1.PolicyService/Step",
            request_serializer=pb.StepRequest.SerializeToString,
            response_deserializer=pb.StepResponse.FromString,
        )
        self.answers = call(self._make())

    def _make(self) -> Any:
        yield handshake("flood")
        for number in range(self._messages):
            if self._over.is_set():
                return
            self.sent = number + 1
            yield unknown_rows(number)

    def close(self) -> None:
        self._over.set()
        self.answers.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()


def failure(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[str, str]:
    """Make a call that must fail; return its status and text."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **options)
    error: Any = raised.value
    return error.code().name, str(from_rpc_error(error))


# Ids ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("episode_id", ["x" * 257, "ä" * 129, LONG], ids=["ascii", "umlauts", "10 MB"])
def test_a_long_id_of_an_episode_is_refused_alone_and_not_kept(harness: CoreHarness, episode_id: str) -> None:
    long, good = harness.send(start(episode_id), start("y" * 256))
    assert long.error is not None, "an id of any length is kept"
    assert (long.error.reason, long.error.field, len(long.error.message) < 200) == ("BAD_MESSAGE", "episode_ids", True)
    assert "at most 256 bytes" in long.error.message
    assert good.error is None
    harness.one(Row(good.handle, 1, StepFlag.TERMINATED))
    remembered = [table_of(harness.core).finished_by_id("client", name) is not None for name in (episode_id, "y" * 256)]
    assert remembered == [False, True]


def test_a_long_id_of_a_client_is_refused_by_every_way_in(serve: ServingLoopHarness) -> None:
    call = serve.stub().Step(iter([handshake("x" * 300)]))
    code, text = failure(next, call)
    assert (code, "client_id: expected at most 256 bytes" in text) == ("FAILED_PRECONDITION", True), text
    for caller, episode_id in ((Unary(serve.stub(), "x" * 300), "a"), (Unary(serve.stub()), "x" * 300)):
        code, text = failure(caller.start, episode_id)
        assert (code, "expected at most 256 bytes" in text) == ("INVALID_ARGUMENT", True), text
    assert not table_of(serve.serving_loop.core).clients()


@pytest.mark.long
def test_clients_without_episodes_are_forgotten_as_they_leave(serve: ServingLoopHarness) -> None:
    stub = serve.stub()
    for number in range(50):
        responses = stub.Step(iter([handshake(f"{number}")]))
        assert len(list(responses)) == 1
    assert len(table_of(serve.serving_loop.core).clients()) <= 1, "each is kept for a minute"
    assert timers_of(serve.serving_loop.core) <= 1


# Episodes of plain calls --------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_plain_calls_start_no_more_episodes_than_may_be_open() -> None:
    with running_serving_loop(episodes=EpisodesConfig(max_open=4)) as serve:
        caller = Unary(serve.stub())
        for number in range(4):
            caller.start(f"{number}")
        code, text = failure(caller.start, "one more")
        assert (code, "at most 4 open episodes" in text) == ("RESOURCE_EXHAUSTED", True)
        caller.start("0")  # again: it is there
        for number in range(4):
            caller.get_action(f"{number}", observation())
        assert failure(caller.start, "one more")[0] == "RESOURCE_EXHAUSTED"
        caller.end("0", observation())
        caller.get_action(caller.start("one more"), observation())
        stats = serve.stub().GetStats(pb.GetStatsRequest())
        assert (stats.episodes_open, stats.starts_refused) == (4, 2)


@pytest.mark.long
def test_episodes_of_plain_calls_leave_no_timer_behind(serve: ServingLoopHarness) -> None:
    caller = Unary(serve.stub())
    caller.start("open")

    def timers() -> int:
        return len(serve.serving_loop._loop._scheduled)  # type: ignore[attr-defined]

    before = timers()
    for number in range(40):
        caller.start(f"{number}")
        caller.end(f"{number}", observation(), sequence=0)
    assert timers() < before + 20, "each episode's timer runs for a quarter of an hour after its end"


# Open episodes, in bytes ---------------------------------------------------------------------------------------------------------------


def test_large_observations_lower_the_number_of_open_episodes(
    make_harness: Callable[..., CoreHarness], caplog: pytest.LogCaptureFixture
) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=512, max_open_bytes=20_000))
    answers = harness.send(*[start(f"{number}") for number in range(10)])
    begun = [answer for answer in answers if answer.error is None]
    assert 1 <= len(begun) < 10
    assert answers[-1].error is not None
    assert f"at most {len(begun)} open episodes" in answers[-1].error.message
    assert "episodes.max_open_bytes" in caplog.text


# Infos --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_infos_beyond_the_bound_are_left_out_and_counted_and_their_steps_are_not(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=8), hand_off=HandOffConfig(segment_steps=4))
    note = {"note": "x" * 8 * 2**20}
    handle = harness.one(start("a")).handle
    for number in range(1, 12):
        harness.one(Row(handle, number, reward=1.0, info=note))
    segments = harness.segments_apart()
    assert [len(segment) for segment in segments] == [4] * 2
    held = [
        number
        for segment in segments
        for number, info in zip(range(segment.t_started + 1, 99), segment.get_infos()[1:], strict=False)
        if info
    ]
    assert held == [1, 2, 3, 4, 5, 6, 7], "64 MiB of them"
    assert harness.core.snapshot().infos_dropped == 4
    harness.one(Row(handle, 12, reward=1.0, info=note))
    harness.one(Row(handle, 13, StepFlag.TERMINATED, 1.0, info=note))
    (segment,) = harness.segments()
    assert [bool(info) for info in segment.get_infos()] == [False] * 4 + [True] * 2, "what was handed off makes room"
    gc.collect()
    assert (harness.core.snapshot().infos_dropped, harness.core.waiting_infos.held_bytes) == (4, 0)


@pytest.mark.long
def test_infos_of_dropped_steps_and_of_plain_calls_make_room_again() -> None:
    episodes = EpisodesConfig(max_open=8, max_waiting_info_bytes=90_000)
    with running_serving_loop(episodes=episodes, hand_off=HandOffConfig(segment_steps=2, capacity_steps=2)) as serve:
        caller = Unary(serve.stub())
        for number in range(12):
            episode = caller.start(f"{number}")
            caller.get_action(episode, observation(), no_wait=True)
            caller.log_returns(episode, 1.0, {"note": "x" * 20_000})
            caller.end(episode, observation())
        stats = serve.stub().GetStats(pb.GetStatsRequest())
        assert (stats.steps_dropped, stats.infos_dropped) == (10, 0)
        for number in range(8):
            episode = caller.start(f"waiting {number}")
            caller.get_action(episode, observation(), no_wait=True)
            caller.log_returns(episode, 1.0, {"note": "x" * 20_000})
        assert serve.stub().GetStats(pb.GetStatsRequest()).infos_dropped == 6


@pytest.mark.long
@pytest.mark.parametrize(
    ("info", "text"),
    [('{"a": "' + "x" * 300_000 + '"}', "at most 262144 bytes"), ('{"a": [' + "[]," * 80_000 + "1]}", "")],
    ids=["long", "many values"],
)
def test_the_info_of_a_step_has_a_length(serve: ServingLoopHarness, info: str, text: str) -> None:
    caller = Unary(serve.stub())
    episode = caller.start()
    caller.get_action(episode, observation())
    request = pb.LogReturnsRequest(episode_id=episode, reward=1.0, info_json=info)
    if not text:
        serve.stub().LogReturns(request)
        held = serve.serving_loop.core.waiting_infos.held_bytes
        assert held > 10 * len(info), "it counts for what it takes in memory"
        return
    code, said = failure(serve.stub().LogReturns, request)
    assert (code, text in said) == ("INVALID_ARGUMENT", True)


@pytest.mark.long
def test_infos_of_a_message_that_would_fill_the_memory_are_refused_before_they_are_decoded(serve: ServingLoopHarness) -> None:
    rows = 60
    batch: dict[str, Any] = {"sequences": bytes(4 * rows), "flags": bytes([StepFlag.START] * rows), "rewards": bytes(8 * rows)}
    batch |= {"handles": bytes(8 * rows), "observations": [to_tensor(np.zeros((rows, 10), np.float32))]}
    batch["episode_ids"] = [f"{row}" for row in range(rows)]
    infos = [pb.RowInfo(row=row, json='{"a": [' + "[]," * 80_000 + "1]}") for row in range(rows)]
    responses = serve.stub().Step(iter([handshake(), pb.StepRequest(batch=pb.StepBatch(infos=infos, **batch))]))
    next(responses)
    error = next(responses).batch.refusal
    assert (error.field, "when they are decoded" in error.message) == ("infos", True)


# Clients that do not read -------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_client_that_does_not_read_its_refusals_is_not_read_any_more_and_slows_nobody_else(
    serve: ServingLoopHarness, wait_until: WaitUntil
) -> None:
    stub = serve.stub()

    def refused() -> int:
        return int(stub.GetStats(pb.GetStatsRequest()).rows_refused)

    def settled() -> int:
        """Wait until the server reads no more and all threads had time to do what is left: in small parts, for all may stand still."""
        wait_until(lambda: stub.GetStats(pb.GetStatsRequest()).messages_withheld > 0)
        before = -1
        while before != (before := refused()):
            for _ in range(35):
                time.sleep(0.02)
        return before

    before_mb = anonymous_mb()
    flood = Flood(serve.address)
    try:
        held = settled()
        assert 0 < held <= 9 * ROWS, "the server goes on to refuse, and keeps what it refused"
        assert anonymous_mb() - before_mb < 250
        neighbour = serve.client()
        episode = neighbour.start_episode()
        for step in range(20):
            neighbour.get_action(episode, observation(step))
        neighbour.end_episode(episode, observation())
        assert refused() == held
        answered = sum(len(response.batch.errors) for response, _ in zip(flood.answers, range(10), strict=False))
        assert answered == 9 * ROWS, "once it reads, it is read again"
    finally:
        flood.close()


@pytest.mark.long
def test_there_is_room_for_so_many_clients_and_no_more(wait_until: WaitUntil) -> None:
    with running_serving_loop(listen=ListenConfig(max_clients=2)) as serve:
        requests: list[queue.SimpleQueue[pb.StepRequest | None]] = [queue.SimpleQueue() for _ in range(2)]
        streams = [serve.stub().Step(iter(request.get, None)) for request in requests]
        requests[0].put(handshake("first"))
        next(streams[0])
        wait_until(lambda: len(cast(Any, serve.serving_loop)._servicer._streams) == 2)  # the second has a place, though it has said nothing
        code, text = failure(next, serve.stub().Step(iter([handshake("third")])))
        assert (code, "at most 2 clients" in text) == ("RESOURCE_EXHAUSTED", True)
        assert serve.stub().GetStats(pb.GetStatsRequest()).clients_refused == 1
        requests[0].put(None)
        assert list(streams[0]) == []
        assert len(list(serve.stub().Step(iter([handshake("third")])))) == 1
        requests[1].put(None)
        assert list(streams[1]) == []


@pytest.mark.long
def test_what_is_remembered_of_a_finished_episode_is_little(make_harness: Callable[..., CoreHarness]) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=8, finished_remembered=20_000))
    table = table_of(harness.core)
    before_mb = anonymous_mb()
    for number in range(20_000):
        client = table.client(f"{number:0256d}")
        table.close_episode(table.open_episode(client, f"{number:0256d}", training=True, now_s=0.0), idle=False)
        table.forget_client(client)
    assert (anonymous_mb() - before_mb) * 1e6 / 20_000 < 1_300
