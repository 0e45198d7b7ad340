"""What answers at /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def metrics_routes(collect: Callable[[], Iterable[Metric]], trouble: Callable[[], str]) -> list[BaseRoute]:
    """Return the routes.

    Args:
        collect: Makes the families, at each scrape, on a thread of a pool.
        trouble: Says why the process isn't ready for its work; "" if it is.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(collect))

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await run_in_threadpool(encode, registry), media_type=None, headers={"Content-Type": content_type})

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = trouble()
        return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
