"""A client's stream at the level of messages, where anything can be said."""

from __future__ import annotations

import queue
from typing import Any

from policyserver.common.flags import PROTOCOL_VERSION, StepFlag
from policyserver.common.tensors import to_tensor
from policyserver.v1 import policy_service_pb2 as pb
from tests.server.core_harness import observation
from tests.server.serving_loop_harness import ServingLoopHarness


class Stream:
    """A client's stream at the level of messages."""

    def __init__(self, serve: ServingLoopHarness, **handshake: Any) -> None:
        self._requests: queue.SimpleQueue[pb.StepRequest | None] = queue.SimpleQueue()
        self._call = serve.stub().Step(iter(self._requests.get, None), timeout=60.0)
        options = {"protocol_version": PROTOCOL_VERSION, "client_id": "test", **handshake}
        self.send(pb.StepRequest(handshake=pb.Handshake(**options)))

    def send(self, request: pb.StepRequest) -> None:
        self._requests.put(request)

    def receive(self) -> pb.StepResponse:
        return next(self._call)  # type: ignore[no-any-return]

    def ask(self, **batch: Any) -> pb.StepReply:
        self.send(pb.StepRequest(batch=pb.StepBatch(**batch)))
        return self.receive().batch

    def close(self) -> None:
        self._requests.put(None)
        assert list(self._call) == []


def one_start(**changes: Any) -> dict[str, Any]:
    columns = {
        "message_id": 7,
        "handles": bytes(8),
        "sequences": bytes(4),
        "flags": bytes([StepFlag.START]),
        "rewards": bytes(8),
        "observations": [to_tensor(observation()[None])],
        "episode_ids": ["a"],
    }
    return {**columns, **changes}
