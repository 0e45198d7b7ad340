"""The page's web server: static files, and one stream of server-sent events for each viewer. Read-only."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.sections import module
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.page.web_server import WebServer
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


class PageServer(WebServer):
    """Serves the page of one store, and beside it whatever routes come along."""

    _reader: StoreReader | None = None

    def start(self, store: Path, beside: Sequence[BaseRoute] = ()) -> None:
        """Serve the page of a store.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no database.
            sqlite3.Error: It is no store.
        """
        bring_up_to_date(store)
        self._reader = StoreReader(store)
        self.serve([*beside, *_routes(self._reader, lambda: self.is_closing)], "page")

    def close(self) -> None:
        """Stop serving. Closing again does nothing."""
        super().close()
        if self._reader is not None:
            self._reader.close()


def _routes(reader: StoreReader, is_closing: Callable[[], bool]) -> list[BaseRoute]:
    """Return what answers for the page."""

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

    return [
        Route("/", index),
        Route("/snapshot", snapshot),
        Route("/events", events),
        Route("/static/panels.js", panels),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]


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
