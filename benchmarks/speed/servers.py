"""The servers of a run: one for each configuration, started when a case first needs it and shared by those that come after."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.live_server import Serving, serving


class Servers:
    """Starts servers as they are needed. A context: leaving it stops them all."""

    def __init__(self, *, keep: bool = False) -> None:
        """Prepare. With `keep`, `let_go` keeps the servers running, for the cases that come after."""
        self._keep = keep
        self._stack = ExitStack()
        self._running: dict[tuple[str, bool], Serving] = {}

    def running(self, config: str, *, unix: bool = False) -> Serving:
        """Return a server with this configuration in TOML, on a unix socket or on a port."""
        if (config, unix) not in self._running:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self._running[config, unix] = self._stack.enter_context(serving(config, folder, unix=unix))
        return self._running[config, unix]

    def let_go(self) -> None:
        """Stop the servers, so that the next case gets a fresh one, unless they are to be kept."""
        if not self._keep:
            self._stop()

    def _stop(self) -> None:
        self._running.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
