"""How busy each serving actor of this machine is, told to all of them for their clients; on a cluster the link tells it."""

from __future__ import annotations

from policyserver.server.processes.link import ENDPOINTS, Link
from policyserver.server.processes.serving_report import ServingReport


class ActorLoads:
    """Takes the reports of the actors and tells what is new of them, once a second. Owned by the thread that watches serving."""

    def __init__(self, link: Link) -> None:
        """Begin without reports."""
        self._link = link
        self._found: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def note(self, report: ServingReport) -> None:
        """Take a report."""
        self._found.update(dict.fromkeys(report.addresses, int(report.counters["episodes_open"])))

    def look(self) -> None:
        """Tell what was reported since the last call; of one actor alone there is nothing to tell."""
        found, self._found = self._found, {}
        if len(found) > 1 and found != self._told:
            self._told = found
            self._link.order(ENDPOINTS, found)
