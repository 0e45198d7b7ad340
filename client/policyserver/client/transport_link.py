"""One stream to a serving runner, and those with whom a transport deals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from policyserver.client.calls import Part
from policyserver.client.transport_messages import Agreement
from policyserver.v1 import policy_service_pb2 as pb

if TYPE_CHECKING:
    from policyserver.client.transport import Transport

__all__ = ["Link", "Owner", "Stub"]


class Link:
    """One stream, from its handshake to its end."""

    __slots__ = ("call", "in_flight", "is_open", "is_over")

    def __init__(self) -> None:
        self.call: Any = None
        self.is_open = False
        """The handshake is done and rows may go out."""
        self.is_over = False
        """Nothing more is to be sent."""
        self.in_flight: dict[int, list[Part]] = {}
        """The unanswered messages, by id, oldest first."""


class Stub(Protocol):
    """The generated stub, whose own types say nothing."""

    Step: Callable[..., Any]
    GetServerInfo: Callable[..., pb.GetServerInfoResponse]
    GetStats: Callable[..., pb.GetStatsResponse]


class Owner(Protocol):
    """What a transport tells of, and asks: the client's router."""

    def admit(self, transport: Transport, agreement: Agreement) -> None:
        """Look at a handshake before rows may go out. Not under the lock.

        Raises:
            HandshakeError: they may not.
        """

    def on_reboot(self, transport: Transport) -> None:
        """Another serving process has taken the place of the one before. Under the lock."""

    def on_absence(self, transport: Transport) -> None:
        """An attempt to connect failed. Under the lock."""
