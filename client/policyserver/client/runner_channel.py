"""What goes to one serving runner: its stream of steps, which begins again as often as it breaks, and unary calls beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policyserver.client.channel import authorization, check_security, make_channel
from policyserver.client.config import ClientConfig
from policyserver.common.streaming_calls import StreamChannel
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc


class RunnerChannel:
    """The channel to one serving runner."""

    def __init__(self, target: str, config: ClientConfig) -> None:
        """Prepare it; gRPC connects when the first call asks it to.

        Raises:
            ValueError: plaintext off the machine, or a file that cannot be read.
        """
        check_security(target, config)
        self._target, self._config, self._metadata = target, config, authorization(config)
        self._open()

    def step(self, requests: Iterator[pb.StepRequest]) -> Any:
        """Begin a stream. By the reader, which leaves no name of what is returned behind; see `common.streaming_calls`.

        Raises:
            RuntimeError: a thread can't be started.
            ValueError: that was so at the last try, and a file cannot be read now.
        """
        if self._streams.is_spoilt:
            self._open()
        return self._streams.begin(self._stub.Step, requests, metadata=self._metadata)

    def ask(self, method: str, request: Any, timeout_s: float) -> Any:
        """Make a unary call. Raises grpc.RpcError, or a ValueError if the channel is closed."""
        return getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=True)

    def close(self) -> None:
        """End all calls. Idempotent."""
        self._streams.close()

    def _open(self) -> None:
        self._streams = StreamChannel(make_channel(self._target, self._config))
        self._stub: Any = pb_grpc.PolicyServiceStub(self._streams.channel)
