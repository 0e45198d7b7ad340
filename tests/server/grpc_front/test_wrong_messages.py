"""Messages that are wrong as a whole: one answer that says why, whatever they claim to hold, and the stream goes on."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from policyserver.common.flags import PROTOCOL_VERSION, StepFlag
from policyserver.common.tensors import to_tensor
from policyserver.server.config.serving_config import ListenConfig
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2
from tests.server.core_harness import observation
from tests.server.message_stream import Stream, one_start
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
GARBAGE = b"\xff\xff\xff"


def refusal_of(reply: pb.StepReply) -> pb.RowError:
    assert (len(reply.errors), len(reply.codes), len(reply.handles)) == (0, 0, 0), "expected one error for the whole message"
    assert reply.ByteSize() > 2, "expected an answer, received an empty one"
    assert "refusal" in reply.DESCRIPTOR.fields_by_name
    assert reply.HasField("refusal")
    return reply.refusal


def ask(stream: Stream, request: pb.StepRequest) -> pb.StepReply:
    try:
        stream.send(request)
        return stream.receive().batch
    except grpc.RpcError as error:
        pytest.fail(f"expected an answer, the stream ended: {error}")


def tensor(*shape: int, data: bytes = b"") -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=FLOAT32, shape=shape, data=data)


def rows_refused(serve: ServingLoopHarness) -> int:
    return int(serve.stub().GetStats(pb.GetStatsRequest()).rows_refused)


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"handles": bytes(7)}, "handles"),
        ({"handles": bytes(8 * 10_000)}, "sequences"),
        ({"sequences": bytes(3)}, "sequences"),
        ({"flags": b""}, "flags"),
        ({"rewards": bytes(16)}, "rewards"),
        ({"observations": []}, "observations"),
        ({"observations": [to_tensor(observation()[None])] * 1000}, "observations"),
        ({"observations": [to_tensor(np.array(1.0, np.float32))]}, "observations[0]"),
        ({"observations": [to_tensor(np.zeros((1, 9), np.float32))]}, "observations[0]"),
        ({"observations": [to_tensor(np.zeros((2, 10), np.float32))]}, "observations[0]"),
        ({"observations": [tensor(*[1] * 65, data=bytes(4))]}, "observations[0]"),
        ({"observations": [tensor(*[2**32 - 1] * 200_000)]}, "observations[0]"),
        ({"observations": [tensor(2**32 - 1, 2**32 - 1, 0)]}, "observations[0]"),
        ({"actions": [tensor(*[1] * 65, data=bytes(4))]}, "actions[0]"),
        ({"actions": [to_tensor(np.zeros(0, np.int64))] * 2}, "actions"),
        ({"episode_ids": []}, "episode_ids"),
        ({"episode_ids": ["a", "b"]}, "episode_ids"),
        ({"infos": [pb.RowInfo(row=1, json="{}")]}, "infos"),
        ({"infos": [pb.RowInfo(row=0, json="{}")] * 1000}, "infos"),
        ({"infos": [pb.RowInfo(row=0, json="nonsense")]}, "infos[0].json"),
        ({"infos": [pb.RowInfo(row=0, json="3")]}, "infos[0].json"),
        ({"infos": [pb.RowInfo(row=0, json="[" * 100_000)]}, "infos[0].json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_error_answers_a_message_that_is_wrong_as_a_whole(
    serve: ServingLoopHarness, stream: Stream, changes: dict[str, Any], field: str
) -> None:
    batch = pb.StepBatch(**one_start(**changes))
    reply = ask(stream, pb.StepRequest(batch=batch))
    error = refusal_of(reply)
    assert (reply.message_id, error.code, error.field) == (7, grpc.StatusCode.INVALID_ARGUMENT.value[0], field)
    assert "expected" in error.message
    assert rows_refused(serve) == len(batch.handles) // 8
    good = stream.ask(**one_start())
    assert (list(good.codes), len(good.errors), len(good.handles)) == ([0], 0, 8)


def test_two_infos_of_one_row_are_refused(stream: Stream) -> None:
    two = one_start(
        handles=bytes(16), sequences=bytes(8), flags=bytes([1, 1]), rewards=bytes(16), episode_ids=["a", "b"],
        observations=[to_tensor(np.zeros((2, 10), np.float32))], infos=[pb.RowInfo(row=1, json="{}")] * 2,
    )  # fmt: skip
    assert refusal_of(stream.ask(**two)).field == "infos"


@pytest.mark.long
def test_a_message_that_claims_rows_without_end_is_answered_in_a_few_bytes() -> None:
    with running_serving_loop(listen=ListenConfig(max_message_bytes=32 * 2**20)) as serve:
        stream = Stream(serve)
        stream.receive()
        reply = stream.ask(message_id=3, handles=bytes(8 * 2_000_000))
        assert reply.ByteSize() < 1000
        assert "handles: expected at most" in refusal_of(reply).message
        stream.close()


@pytest.mark.parametrize(
    "request_",
    [
        pb.StepRequest(handshake=pb.Handshake(protocol_version=PROTOCOL_VERSION, client_id="other")),
        pb.StepRequest(),
        pb.StepRequest(batch=pb.StepBatch(observations=[to_tensor(observation()[None])])),
        pb.StepRequest(batch=pb.StepBatch(episode_ids=["a"])),
    ],
    ids=["second handshake", "nothing", "observations without rows", "ids without rows"],
)
def test_a_request_that_is_no_steps_is_refused_and_the_stream_goes_on(stream: Stream, request_: pb.StepRequest) -> None:
    assert "expected" in refusal_of(ask(stream, request_)).message
    assert list(stream.ask(**one_start()).codes) == [0]


@pytest.mark.long
def test_a_message_without_rows_is_answered_by_one_without(stream: Stream) -> None:
    reply = stream.ask(message_id=5)
    assert (reply.message_id, reply.HasField("refusal") if "refusal" in reply.DESCRIPTOR.fields_by_name else False) == (5, False)


def test_more_rows_than_allowed_are_refused() -> None:
    with running_serving_loop(listen=ListenConfig(max_rows_per_message=1)) as serve:
        stream = Stream(serve)
        assert stream.receive().handshake.info.max_rows_per_message == 1
        two = one_start(
            handles=bytes(16), sequences=bytes(8), flags=bytes([1, 1]), rewards=bytes(16),
            observations=[to_tensor(np.zeros((2, 10), np.float32))], episode_ids=["a", "b"],
        )  # fmt: skip
        assert "at most 1 rows" in refusal_of(stream.ask(**two)).message
        stream.close()


@pytest.mark.long
def test_a_bad_row_names_the_field_of_the_message(stream: Stream) -> None:
    (error,) = stream.ask(**one_start(observations=[to_tensor(observation(0.0, np.nan)[None])])).errors
    assert (error.row, error.field) == (0, "observations[0]")
    given = {"flags": bytes([StepFlag.START | StepFlag.ACTION_GIVEN]), "actions": [to_tensor(np.array([9]))]}
    (error,) = stream.ask(**one_start(**given)).errors
    assert error.field == "actions[0]"


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "method", "sent"),
    [
        ("unary_unary", "/policyserver.v1.PolicyService/GetAction", GARBAGE),
        ("unary_unary", "/policyserver.v1.PolicyService/GetStats", GARBAGE),
        ("unary_unary", "/grpc.health.v1.Health/Check", GARBAGE),
        ("unary_stream", "/grpc.health.v1.Health/Watch", GARBAGE),
        ("stream_stream", "/policyserver.v1.PolicyService/Step", [GARBAGE]),
        (
            "stream_stream",
            "/policyserver.v1.PolicyService/Step",
            [pb.StepRequest(handshake=pb.Handshake(protocol_version=1, client_id="a")).SerializeToString(), GARBAGE],
        ),
        ("stream_stream", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [GARBAGE]),
    ],
)
def test_bytes_that_are_no_message_are_a_bad_argument_and_leave_no_traceback(
    serve: ServingLoopHarness, caplog: pytest.LogCaptureFixture, kind: str, method: str, sent: Any
) -> None:
    def call() -> None:
        list(getattr(serve.channel(), kind)(method)(iter(sent) if isinstance(sent, list) else sent, timeout=60.0))

    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("policyserver-reason", "BAD_MESSAGE") in error.trailing_metadata()
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []
    assert serve.client().stats().clients_connected <= 1
