"""The page's web server: static files, and one stream of server-sent events for each viewer. Read-only, loopback only."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from monitoring.page.feed import Feed
from monitoring.reader import StoreReader

logger = logging.getLogger(__name__)

UPDATE_INTERVAL_S = 0.25
"""Time between looks for new points, for each viewer. SQLite tells nobody that another process wrote, so this is asked; a look is cheap."""

_KEEPALIVE_LOOKS = 40
"""Looks without news after which a comment is sent, so that a viewer who is gone is noticed."""

_STATIC = Path(__file__).parent / "static"

_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'self'"}


class PageServer:
    """Serves the page of one store from a thread of its own."""

    def __init__(self, store: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        """Open the store, bind the port (0: any free one) and serve.

        Raises:
            FileNotFoundError: there is no such store.
            ValueError: the host is not of the loopback.
            OSError: the port is in use.
        """
        if not _is_loopback(host):
            raise ValueError(f"host: expected an address of the loopback, for the page is open to all who reach it; received {host!r}")
        self._reader = StoreReader(store)
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError:
            self._reader.close()
            raise
        shown_host = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown_host}:{self._socket.getsockname()[1]}"
        """The page's address."""
        config = uvicorn.Config(
            _application(self._reader, lambda: self._server.should_exit),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Closing again does nothing."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._reader.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _application(reader: StoreReader, is_closing: Callable[[], bool]) -> Starlette:
    """Put the routes together."""

    async def index(request: Request) -> Response:
        return Response((_STATIC / "index.html").read_bytes(), media_type="text/html; charset=utf-8", headers=_HEADERS)

    async def snapshot(request: Request) -> Response:
        feed = Feed(reader, request.query_params.get("run"))
        return JSONResponse(await run_in_threadpool(lambda: dict(feed.news())), headers=_HEADERS)

    async def events(request: Request) -> Response:
        feed = Feed(reader, request.query_params.get("run"))
        return StreamingResponse(_stream(feed, is_closing), media_type="text/event-stream", headers=_HEADERS)

    routes = [
        Route("/", index),
        Route("/snapshot", snapshot),
        Route("/events", events),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    # Only the names of the loopback: else a foreign page whose name was made to resolve to 127.0.0.1 could read this one.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return Starlette(routes=routes, middleware=[hosts])


async def _stream(feed: Feed, is_closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Word the feed's news as server-sent events until the viewer leaves or the server closes."""
    looks_without_news = 0
    while not is_closing():
        try:
            news = await run_in_threadpool(lambda: [(name, _json(data)) for name, data in feed.news()])
        except sqlite3.Error as error:
            logger.error("the page cannot read the store: %s", error)
            return
        for name, data in news:
            yield f"event: {name}\ndata: {data}\n\n"
        looks_without_news = 0 if news else looks_without_news + 1
        if looks_without_news == _KEEPALIVE_LOOKS:
            looks_without_news = 0
            yield ": nothing new\n\n"
        await asyncio.sleep(UPDATE_INTERVAL_S)


def _json(data: object) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":"))
