"""One stream to a serving runner, and those with whom a connection deals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from policyserver.client.messages import NegotiatedSession
from policyserver.client.wake_up_queue import CallPart
from policyserver.v1 import policy_service_pb2 as pb

_Connection = TypeVar("_Connection", contravariant=True)


class Stream:
    """One stream, from its handshake to its end."""

    __slots__ = ("call", "in_flight", "is_open", "is_over")

    def __init__(self) -> None:
        self.call: Any = None
        self.is_open = False
        """The handshake is done and rows may go out."""
        self.is_over = False
        """Nothing more is to be sent."""
        self.in_flight: dict[int, list[CallPart]] = {}
        """The unanswered messages, by id, oldest first."""


class Stub(Protocol):
    """The generated stub, whose own types say nothing."""

    Step: Callable[..., Any]
    GetServerInfo: Callable[..., pb.GetServerInfoResponse]
    GetStats: Callable[..., pb.GetStatsResponse]


class ConnectionListener(Protocol[_Connection]):
    """What a connection tells of, and asks: the client's balancer."""

    def check_handshake(self, connection: _Connection, session: NegotiatedSession) -> None:
        """Look at a handshake before rows may go out. Not under the lock.

        Raises:
            HandshakeError: they may not.
        """

    def on_reboot(self, connection: _Connection) -> None:
        """Another serving process has taken the place of the one before. Under the lock."""

    def on_absence(self, connection: _Connection) -> None:
        """An attempt to connect failed. Under the lock."""
