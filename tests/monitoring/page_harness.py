"""What the tests of the live page have in common."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.points import Points

TOKEN = "0123456789abcdef"
RUN = {"run": "run-1", "policy": "PPO", "worker": "w"}


def get(url: str, headers: dict[str, str] | None = None, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Ask for a page; its status and its body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30.0, context=tls) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def serve(store: Path, address: str = "127.0.0.1:0") -> PageServer:
    """Serve a store's page."""
    page = PageServer(PageConfig(address))
    page.start(store)
    return page


def step(bar: int, action: int | str = 2, reward: float = 0.5) -> Points:
    """A step of sell, hold and buy by its number, or of another action by its text."""
    asked = {"action_text" if isinstance(action, str) else "action": action}
    fields: dict[str, Any] = {"episode": f"episode-{bar // 10}", "bar": bar, "price": 101.25, "prediction": 0.001} | asked
    return Points.one("step", RUN | {"process": "ou", "symbol": "AAA"}, fields | {"position": 10.0, "equity": 1e4, "reward": reward})
