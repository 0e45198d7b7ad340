"""Bounds on the page's connections: some for viewers, and some for peers that have asked nothing or may not see the page."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_VIEWERS = 64
"""Requests of viewers that are answered at a time; a further one is answered with 503."""

MAX_UNSERVED = 64
"""Connections on which no viewer is being answered. A further one shuts the oldest, so that a peer that waits silently, even in the TLS
handshake, can't keep viewers out."""

_Address = tuple[str, int]


class PageSocket(socket.socket):
    """The page's listening socket. Belongs to the thread that accepts from it."""

    def __init__(self, listening: socket.socket) -> None:
        """Take over a listening socket."""
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._unserved: dict[_Address, socket.socket] = {}  # the oldest first
        self._served: dict[_Address, socket.socket] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and shut the oldest unserved one if there are too many."""
        connection, address = super().accept()
        self._unserved = {key: held for key, held in self._unserved.items() if held.fileno() >= 0}
        while len(self._unserved) >= MAX_UNSERVED:
            oldest = self._unserved.pop(next(iter(self._unserved)))
            with contextlib.suppress(OSError):  # it is gone already
                oldest.shutdown(socket.SHUT_RDWR)
        self._unserved[address[:2]] = connection
        return connection, address

    @contextlib.contextmanager
    def serving(self, address: _Address) -> Iterator[None]:
        """Keep the connection from an address while a viewer is answered on it."""
        if (connection := self._unserved.pop(address, None)) is not None:
            self._served[address] = connection
        try:
            yield
        finally:
            if (connection := self._served.pop(address, None)) is not None:
                self._unserved[address] = connection

    @property
    def viewers(self) -> int:
        """Connections on which a viewer is being answered."""
        return len(self._served)


class ViewerLimit:
    """Answers a bounded number of viewers; stands behind what keeps strangers out."""

    def __init__(self, app: ASGIApp, connections: PageSocket) -> None:
        """Limit an application."""
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with 503 if there are too many viewers."""
        if self._connections.viewers >= MAX_VIEWERS:
            await PlainTextResponse(f"{MAX_VIEWERS} viewers are here already: try again later\n", 503)(scope, receive, send)
            return
        host, port = scope["client"]
        with self._connections.serving((host, port)):
            await self._app(scope, receive, send)
