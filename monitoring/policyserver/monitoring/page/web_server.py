"""A small web server on a thread of its own: one address, what protects it, and bounds on its connections."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute

from policyserver.monitoring.page.connections import PageSocket, ViewerLimit
from policyserver.monitoring.page.listen import LOOPBACK_NAMES, PageConfig
from policyserver.monitoring.page.token_gate import TokenGate

_GRACE_S = 2.0
"""How long, at the end, an answer under way may take."""


class WebServer:
    """Answers requests by routes; at first it only holds the address."""

    def __init__(self, listen: PageConfig | None = None, *, key: str = "address", prefix: str = "") -> None:
        """Take the address; connections wait until `serve`.

        Args:
            listen: Where, and what protects it. Default: any free port of the loopback.
            key: As in `PageConfig.token`, like `prefix`.
            prefix: See there.

        Raises:
            InsecureListenError: Strangers could see what is served.
            OSError: The address can't be taken, in most cases because another process has it.
        """
        self._listen = listen or PageConfig("127.0.0.1:0")
        self._token = self._listen.token(key, prefix)
        self._socket = PageSocket(self._listen.bind(key))
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._listen.tls_certificate_file is not None else "http"
        self.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        """Where it is found."""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_closing(self) -> bool:
        """Whether requests that last should end."""
        return self._server is None or self._server.should_exit

    def serve(self, routes: Sequence[BaseRoute], thread_name: str) -> None:
        """Answer by these routes from now on."""
        token = self._token
        guard = Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES) if token is None else Middleware(TokenGate, token=token)
        application = Starlette(
            routes=routes,
            middleware=[guard, Middleware(ViewerLimit, connections=self._socket)],
            exception_handlers={
                ValueError: lambda _, error: PlainTextResponse(f"{error}\n", 400),
                sqlite3.Error: lambda _, error: PlainTextResponse(f"the store can't be read now: {error}\n", 503),
            },
        )
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",  # which accepts by the socket's own method
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2 * round(_GRACE_S),  # for what still computes once no client is connected
            ssl_certfile=self._listen.tls_certificate_file,
            ssl_keyfile=self._listen.tls_key_file,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name=thread_name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Closing again does nothing."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()


class _Server(uvicorn.Server):
    """Ends connections that outlast the end, as that of a viewer who does not read; uvicorn would leave their sockets open."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        giving_up = asyncio.get_running_loop().call_later(_GRACE_S, self._abort)
        try:
            await super().shutdown(sockets)
        finally:
            giving_up.cancel()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
