"""Pauses learning: the actors let steps by-pass the learner, and the main thread stays at its safe point."""

from __future__ import annotations

import threading

from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.processes.link import PAUSE, Link


class LearningPause:
    """The pause of one server. From any thread."""

    def __init__(self, link: Link, safe_point: SafePoint, metrics: DaemonMetrics) -> None:
        """Begin with nothing paused."""
        self._link = link
        self._safe_point = safe_point
        self._metrics = metrics
        self._changing = threading.Lock()  # two at once would leave the actors and the learner in opposite states

    def set(self, paused: bool, *, by_guard: bool = False) -> None:
        """Have steps by-pass the learner and the learner pause at the safe point, or let both go on."""
        with self._changing:
            self._link.order(PAUSE, paused, stays=True)
            self._safe_point.pause(paused)
            self._metrics.is_paused_by_guard = paused and by_guard
