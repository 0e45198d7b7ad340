"""Feeds the service manager's watchdog for as long as the server works, and tells it in one line how that goes."""

from __future__ import annotations

from collections.abc import Callable

from policyserver.common.service_manager import ServiceManager


class SignsOfLife:
    """Says that the server is alive while serving processes answer, or the main thread comes by its safe point.

    Either is enough: actors that serve are not ended because the learner stands still, which metrics tell; and while RLlib starts actors
    again, the main thread goes on. A process in which neither happens, or whose watching thread stands still, is one to replace.
    """

    def __init__(self, manager: ServiceManager, passes: Callable[[], int] = lambda: 0, describe: Callable[[], str] = lambda: "") -> None:
        """Take what says how often the main thread came by, and what describes the run; both from any thread."""
        self._manager = manager
        self._passes, self._describe = passes, describe
        self._passed = 0

    def look(self, answered: int) -> None:
        """Look once: so many serving processes have answered just now."""
        passed = self._passes()
        if answered or passed != self._passed:
            self._manager.alive()
        self._passed = passed
        described = self._describe()
        self._manager.status(f"{answered} serving{', ' if described else ''}{described}")
