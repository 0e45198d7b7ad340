"""A real headless Chromium, driven over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_ports, listens
from tests.services import MissingService, program, wait_until

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1300",
)


TAB, ESCAPE, ARROW_LEFT = "\ue004", "\ue00c", "\ue012"
"""Keys, as WebDriver writes them."""


class Browser:
    """One browser window with a profile of its own. Whatever the page logs as an error is in `errors()`."""

    def __init__(self, folder: Path, missing_service: MissingService) -> None:
        """Start driver and browser."""
        chromium, chromedriver = program("chromium", missing_service), program("chromedriver", missing_service)
        (port,) = free_ports(1)
        self._driver = subprocess.Popen([chromedriver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._url = f"http://127.0.0.1:{port}"
        wait_until(lambda: listens(self._driver.pid, port) and self._is_ready(), "chromedriver to answer")
        options = {"binary": chromium, "args": [*_FLAGS, f"--user-data-dir={folder}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/session/{session['sessionId']}"

    @property
    def pid(self) -> int:
        """Process of the driver, whose children are the browser's."""
        return self._driver.pid

    def open(self, url: str) -> None:
        """Load a page."""
        self._call("POST", "/url", {"url": url})

    def script(self, body: str) -> Any:
        """Run a function's body in the page, and return what it returns."""
        return self._call("POST", "/execute/sync", {"script": body, "args": []})

    def set_system_colours(self, scheme: str) -> None:
        """Let pages see a system that is `light` or `dark`; without a word, the system's own."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def press(self, key: str) -> None:
        """Press and release a key, on whatever has the focus."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def errors(self) -> list[str]:
        """Read what the page logged as errors since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """Save what the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        """End browser and driver."""
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(60)

    def _is_ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except OSError:
            return False

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=200.0) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.read().decode()[:500]}") from error
