"""The daemon's web servers: the live page, and /metrics beside it. Without them starlette and uvicorn aren't imported."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon_metrics import DaemonMetrics

if TYPE_CHECKING:
    from policyserver.monitoring.page.server import PageServer

logger = logging.getLogger(__name__)


def take_page_address(config: ServerConfig, ending: contextlib.ExitStack) -> PageServer | None:
    """Take the live page's address before Ray starts, so that a wrong one, or one in use, is refused at once."""
    if config.page_listen is None:
        return None
    from policyserver.monitoring.page.server import PageServer

    page = PageServer(config.page_listen, key="recording.page", prefix="listen.")
    ending.callback(page.close)
    return page


def serve_metrics(config: ServerConfig, metrics: DaemonMetrics, ending: contextlib.ExitStack) -> None:
    """Answer /metrics, /healthz and /readyz where that is wanted, from the start on."""
    if config.metrics_listen is None:
        return
    from policyserver.monitoring.page.web_server import WebServer

    server = WebServer(config.metrics_listen, key="recording.metrics", prefix="listen.")
    ending.callback(server.close)
    server.serve(metrics.routes(), "metrics")
    logger.info("metrics at %s/metrics", server.address)
