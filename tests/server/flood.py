"""A client that sends rows of episodes that nobody knows, as fast as they are taken, and throws the answers away.

python -m tests.server.flood ADDRESS
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from policyserver.common.flags import PROTOCOL_VERSION
from policyserver.common.tensors import to_tensor
from policyserver.v1 import policy_service_pb2 as pb
from tests.ports import DIRECT

ROWS = 16_384


def unknown_rows(message_id: int, rows: int = ROWS) -> pb.StepRequest:
    """A message of rows of episodes that nobody knows."""
    handles = np.arange(1, rows + 1, dtype=np.uint64) << np.uint64(40)
    columns: dict[str, Any] = {"sequences": bytes(4 * rows), "flags": bytes(rows), "rewards": bytes(8 * rows)}
    observations = [to_tensor(np.zeros((rows, 10), np.float32))]
    return pb.StepRequest(batch=pb.StepBatch(message_id=message_id, handles=handles.tobytes(), observations=observations, **columns))


def handshake(client_id: str = "test") -> pb.StepRequest:
    return pb.StepRequest(handshake=pb.Handshake(protocol_version=PROTOCOL_VERSION, client_id=client_id))


def messages(message_id: int = 7) -> Iterator[bytes]:
    """Make the stream's messages, encoded once."""
    yield handshake("flood").SerializeToString()
    yield from itertools.repeat(unknown_rows(message_id).SerializeToString())


def _stream(channel: grpc.Channel) -> Iterator[bytes]:
    """Send and receive bytes as they are."""
    call = channel.stream_stream("/policyserver.v1.PolicyService/Step", request_serializer=bytes, response_deserializer=bytes)
    return iter(call(messages()))


def main(address: str) -> None:
    """Flood a server until this process is ended."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), *DIRECT]) as channel:
        for count, _ in enumerate(_stream(channel)):
            if count == 1:
                print("flooding", flush=True)  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    main(sys.argv[1])
