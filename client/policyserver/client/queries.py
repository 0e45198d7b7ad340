"""What is asked beside the stream: what the server is, and how it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from policyserver.client.messages import to_info, to_stats
from policyserver.client.server_stats import ServerInfo, ServerStats
from policyserver.client.stream import Stub
from policyserver.common.errors import from_rpc_error
from policyserver.v1 import policy_service_pb2 as pb

if TYPE_CHECKING:
    from policyserver.client.connection import Connection

__all__ = ["Queries"]


class Queries:
    """Unary calls of one connection, from any thread."""

    def __init__(
        self, connection: Connection, lock: threading.Lock, stub: Stub, metadata: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        """Prepare.

        Args:
            connection: knows whether asking makes sense.
            lock: the client's.
            stub: the service.
            metadata: of each call.
            timeout_s: longest time to wait for an answer, connecting included, seconds.
        """
        self._connection = connection
        self._lock = lock
        self._stub = stub
        self._metadata = metadata
        self._timeout_s = timeout_s

    def info(self) -> ServerInfo:
        """Ask what the server is.

        Raises:
            ServerUnavailableError: no answer within the connect timeout.
        """
        return to_info(self._ask(self._stub.GetServerInfo, pb.GetServerInfoRequest()))

    def stats(self) -> ServerStats:
        """Ask how serving and learning go.

        Raises:
            ServerUnavailableError: no answer within the connect timeout.
        """
        return to_stats(self._ask(self._stub.GetStats, pb.GetStatsRequest()))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        connection = self._connection
        with self._lock:
            connection.check()
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata, wait_for_ready=True)
        except (grpc.RpcError, ValueError) as error:
            with self._lock:
                connection.check()
                if isinstance(error, ValueError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise connection.unavailable(self._timeout_s) from error
            raise from_rpc_error(error) from error
