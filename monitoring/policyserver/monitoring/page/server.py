"""The page's web server: static files, and one stream of server-sent events for each viewer. Read-only."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from policyserver.monitoring.page.connections import PageSocket, ViewerLimit
from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.listen import LOOPBACK_NAMES, PageConfig
from policyserver.monitoring.page.sections import module
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.page.token_gate import TokenGate
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.write_access import bring_up_to_date

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.1
"""Time between looks for new points, for each viewer: SQLite doesn't notify of another process's writes. A look is cheap, and a store
commits four times a second, so every commit is shown soon."""

_KEEPALIVE_LOOKS = 100
"""Looks without a change after which a comment is sent, to notice that a viewer is gone."""

_STATIC = Path(__file__).parent / "static"

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """Serves the page of one store from a thread of its own."""

    def __init__(self, listen: PageConfig | None = None, *, key: str = "address", prefix: str = "") -> None:
        """Take the address; connections wait until `start`.

        Args:
            listen: Where, and what protects it. Default: any free port of the loopback.
            key: As in `PageConfig.token`, like `prefix`.
            prefix: See there.

        Raises:
            InsecureListenError: Strangers could see the page.
            OSError: The address can't be taken, in most cases because another process has it.
        """
        self._listen = listen or PageConfig("127.0.0.1:0")
        self._token = self._listen.token(key, prefix)
        self._socket = PageSocket(self._listen.bind(key))
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._listen.tls_certificate_file is not None else "http"
        self.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        """The page's address."""
        self._reader: StoreReader | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, store: Path) -> None:
        """Serve the page of a store.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no database.
            sqlite3.Error: It is no store.
        """
        bring_up_to_date(store)
        self._reader = StoreReader(store)
        config = uvicorn.Config(
            _application(self._reader, self._socket, self._token, lambda: self._server is None or self._server.should_exit),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",  # which accepts by the socket's own method
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
            ssl_certfile=self._listen.tls_certificate_file,
            ssl_keyfile=self._listen.tls_key_file,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Closing again does nothing."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()
        if self._reader is not None:
            self._reader.close()


def _application(reader: StoreReader, connections: PageSocket, token: str | None, is_closing: Callable[[], bool]) -> Starlette:
    """Put the routes together."""

    async def index(request: Request) -> Response:
        return Response((_STATIC / "index.html").read_bytes(), media_type="text/html; charset=utf-8", headers=_HEADERS)

    async def panels(request: Request) -> Response:
        return Response(module(), media_type="text/javascript; charset=utf-8", headers=_HEADERS)

    async def snapshot(request: Request) -> Response:
        feed = Feed(reader, PageSelection.from_query(request.query_params))
        return JSONResponse(await run_in_threadpool(lambda: dict(feed.changes())), headers=_HEADERS)

    async def events(request: Request) -> Response:
        feed = Feed(reader, PageSelection.from_query(request.query_params))
        return StreamingResponse(_stream(feed, is_closing), media_type="text/event-stream", headers=_HEADERS)

    routes = [
        Route("/", index),
        Route("/snapshot", snapshot),
        Route("/events", events),
        Route("/static/panels.js", panels),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES) if token is None else Middleware(TokenGate, token=token)
    return Starlette(
        routes=routes,
        middleware=[guard, Middleware(ViewerLimit, connections=connections)],
        exception_handlers={
            ValueError: lambda _, error: PlainTextResponse(f"{error}\n", 400),
            sqlite3.Error: lambda _, error: PlainTextResponse(f"the store can't be read now: {error}\n", 503),
        },
    )


async def _stream(feed: Feed, is_closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Send the feed's changes as events, each as soon as it is read, until the viewer leaves or the server closes."""
    quiet_looks = 0
    while not is_closing():
        quiet_looks += 1
        try:
            async for event in iterate_in_threadpool(_worded(feed)):
                yield event
                quiet_looks = 0
        except sqlite3.Error as error:
            logger.error("the page can't read the store: %s", error)
            return
        if quiet_looks == _KEEPALIVE_LOOKS:
            quiet_looks = 0
            yield ": nothing new\n\n"
        await asyncio.sleep(LOOK_INTERVAL_S)


def _worded(feed: Feed) -> Iterator[str]:
    for section, data in feed.changes():
        yield f"event: {section}\ndata: {json.dumps(data, allow_nan=False, separators=(',', ':'))}\n\n"
