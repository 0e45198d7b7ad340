"""One stream to a serving runner, and what a connection tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from policyserver.client.messages import NegotiatedSession
from policyserver.client.server_info import EndpointLoad
from policyserver.client.wake_up_queue import CallPart

_Connection = TypeVar("_Connection", contravariant=True)


@dataclass(slots=True)
class Stream:
    """One stream, from its handshake to its end."""

    call: Any = None
    is_open: bool = False
    """The handshake is done and rows may go out."""
    has_ended: bool = False
    """Nothing more is to be sent."""
    in_flight: dict[int, list[CallPart]] = field(default_factory=dict)
    """The unanswered messages, by id, oldest first."""


class ConnectionListener(Protocol[_Connection]):
    """What a connection tells and asks: the client's balancer."""

    def check_handshake(self, connection: _Connection, session: NegotiatedSession) -> None:
        """Look at a handshake before rows may go out. Not under the lock.

        Raises:
            HandshakeError: they may not.
        """

    def on_endpoints(self, connection: _Connection, listed: Sequence[str], loads: Sequence[EndpointLoad]) -> None:
        """A serving process says where all of them are, and how busy. Not under the lock."""

    def on_reboot(self, connection: _Connection) -> None:
        """Another serving process has taken the place of the one before. Under the lock."""

    def on_absence(self, connection: _Connection) -> None:
        """An attempt to connect failed. Under the lock."""

    def on_vacant(self, connection: _Connection) -> None:
        """The last episode has left a runner that is listed no more. Under the lock."""
