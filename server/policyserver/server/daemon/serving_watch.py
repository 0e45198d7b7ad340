"""Records how serving goes, once a second, so that the page shows it whatever the clients are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from policyserver.monitoring.reports import serving_point
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.trouble import Trouble

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Seconds from one point to the next."""
_JOIN_TIMEOUT_S = 5.0


class ServingWatch:
    """Asks the serving actors for their counters on a thread of its own, until it is closed."""

    def __init__(self, ask: Callable[[float], list[Any]], sink: Sink, tags: Mapping[str, str]) -> None:
        """Begin.

        Args:
            ask: Returns the counters of each serving process, within so many seconds. Called by the thread alone.
            sink: Where each process has a point of its own.
            tags: Of the run and its policy.
        """
        self._ask = ask
        self._sink = sink
        self._tags = dict(tags)
        self._trouble = Trouble(logger, "how serving goes")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serving-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. A second call does nothing."""
        self._closing.set()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            try:
                for counters in self._ask(INTERVAL_S):
                    self._sink.write(serving_point(self._tags, counters))
                self._trouble.is_over("written down again")
            except Exception as error:  # no reason to stop learning, nor to stop asking
                self._trouble.occurred(type(error).__name__, f"not written down, asking on: {error!r}")
                logger.debug("how serving goes could not be written down", exc_info=True)
