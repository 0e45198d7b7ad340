"""Records the episodes of all clients that don't record them themselves, and the means that the page, Grafana and exports show."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np

from policyserver.monitoring.newest_tenth import MOST_EPISODES, newest_count
from policyserver.monitoring.points import Points
from policyserver.monitoring.recording import place_of
from policyserver.monitoring.reports import serving_tags
from policyserver.monitoring.schema import EPISODE, RESULT
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.tail import Tail
from policyserver.server.processes.serving_report import ServingReport

_RECORDS_IN = "records_in"


class ServedEpisodes:
    """Writes the episodes that ended to one sink, but those that their client writes to the same place."""

    def __init__(self, sink: Sink, tags: Mapping[str, str]) -> None:
        """Write to a sink, with the `tags` of the run and its policy."""
        self._sink = sink
        self._place = place_of(sink)
        self._tags = dict(tags)
        self._returns = Tail(("return",), 2 * MOST_EPISODES)

    def write(self, report: ServingReport) -> None:
        """Write what a serving process reports; no point without an episode."""
        columns = dict(report.episodes)
        wanted = [self._place not in places for places in columns.pop(_RECORDS_IN, ())]
        if not any(wanted):
            return
        kept: dict[str, list[Any]] = {name: list(compress(values, wanted)) for name, values in columns.items()}
        kept["cut"] = [ending == "lost" for ending in kept["ended"]]
        self._sink.write(Points(EPISODE, serving_tags(self._tags, report.counters), kept))
        whole = np.array(kept["return"])[~np.array(kept["cut"])]
        if len(whole):
            self._returns.extend(whole[:, None])
            count = self._returns.count
            mean = float(self._returns.newest(newest_count(count))["return"].mean())
            self._sink.write(Points.one(RESULT.name, self._tags, {"episodes": count, "return_mean": mean}))
