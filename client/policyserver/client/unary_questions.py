"""Unary calls to serving runners, beside their streams: what a server is, and what it has counted.

A runner may be left while it is asked, because the service has it no more: then another one answers in its place, or the others do.
"""

from __future__ import annotations

import copy
from typing import Any

import grpc

from policyserver.client.balancing import Balancer
from policyserver.client.connection import Connection
from policyserver.client.messages import to_info, to_stats
from policyserver.client.server_info import ServerInfo
from policyserver.common.errors import ServerUnavailableError, from_rpc_error
from policyserver.common.server_stats import ServerStats
from policyserver.v1 import policy_service_pb2 as pb


class _LeftRunnerError(ServerUnavailableError):
    """The client has left the runner that it asked."""


def ask_server_info(balancer: Balancer, timeout_s: float) -> ServerInfo:
    """Ask the server what it is. Raises as `_ask_one`."""
    return to_info(_ask_one(balancer, "GetServerInfo", pb.GetServerInfoRequest(), timeout_s))


def ask_stats(balancer: Balancer, timeout_s: float) -> dict[str, ServerStats]:
    """Ask each runner for its counters, by target. Raises as `_ask_all`."""
    return {target: to_stats(answer) for target, answer in _ask_all(balancer, "GetStats", pb.GetStatsRequest(), timeout_s).items()}


def _ask_one(balancer: Balancer, method: str, request: Any, timeout_s: float) -> Any:
    """Ask the given address, or another runner while only that one is there. Not under the lock.

    Raises:
        ClientClosedError: the client was closed.
        ServerUnavailableError: no answer in time.
        PolicyServerError: the runner refuses this client, or the question.
    """
    while True:
        with balancer.shared.lock:
            balancer.check()
            given = balancer.given
            open_ones = [connection for connection in balancer.connections if connection.is_open]
        try:
            return _ask(balancer, given if given in open_ones or not open_ones else open_ones[0], method, request, timeout_s)
        except _LeftRunnerError:
            continue  # the one that is asked next is another


def _ask_all(balancer: Balancer, method: str, request: Any, timeout_s: float) -> dict[str, Any]:
    """Ask all runners that are connected. Not under the lock. Returns the answers, by target; a runner without one is left out.

    Raises:
        PolicyServerError: as `Balancer.connect`, or none of them answered.
    """
    answers: dict[str, Any] = {}
    while not answers:
        balancer.connect(timeout_s)
        with balancer.shared.lock:
            asked = [connection for connection in balancer.connections if connection.is_open] or [balancer.given]
        trouble: ServerUnavailableError | None = None
        for connection in asked:
            try:
                answers[connection.target] = _ask(balancer, connection, method, request, timeout_s)
            except _LeftRunnerError:
                continue
            except ServerUnavailableError as error:
                trouble = error
        if trouble is not None and not answers:
            raise trouble
    return answers


def _ask(balancer: Balancer, connection: Connection, method: str, request: Any, timeout_s: float) -> Any:
    """Ask one runner.

    Raises:
        _LeftRunnerError: the client has left it.
        PolicyServerError: as `_ask_one`.
    """
    with balancer.shared.lock:
        if connection.refusal is not None:
            raise copy.copy(connection.refusal)
    try:
        return connection.channel.ask(method, request, timeout_s)
    except (grpc.RpcError, ValueError) as error:  # a ValueError says that the channel was closed meanwhile
        with balancer.shared.lock:
            balancer.check()
            if connection not in balancer.connections:
                raise _LeftRunnerError(f"{connection.target}: this client has left the serving runner") from error
            if connection.refusal is not None:
                raise copy.copy(connection.refusal) from error
            if isinstance(error, ValueError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise connection.unavailable(timeout_s) from error
        raise from_rpc_error(error) from error
