"""Records the episodes of all clients that don't record them themselves, and the means that the page, Grafana and exports show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np

from policyserver.common.server_stats import named_figures
from policyserver.monitoring.newest_tenth import MOST_EPISODES, newest_count
from policyserver.monitoring.points import Points
from policyserver.monitoring.recording import place_of
from policyserver.monitoring.reports import serving_tags
from policyserver.monitoring.schema import EPISODE, RESULT, SHADOW
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.tail import Tail
from policyserver.server.processes.serving_report import ServingReport

_RECORDS_IN = "records_in"
_LIVE_NAME = "live"  # LIVE_NAME of `server.policies.policy`, which takes RLlib with it


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
        decided_by = columns.pop("decided_by", ())
        greedy = columns.pop("greedy", ())
        wanted = [self._place not in places for places in columns.pop(_RECORDS_IN, ())]
        if not any(wanted):
            return
        columns["cut"] = [ending == "lost" for ending in columns["ended"]]
        tags = serving_tags(self._tags, report.counters)
        named = [self._policy(*policy) for policy in zip(decided_by, greedy, strict=True)]
        for policy in dict.fromkeys(compress(named, wanted)):
            ours = [is_wanted and name == policy for is_wanted, name in zip(wanted, named, strict=True)]
            kept: dict[str, list[Any]] = {name: list(compress(values, ours)) for name, values in columns.items()}
            self._sink.write(Points(EPISODE, tags | {"policy": policy}, kept))
            if policy == self._tags["policy"]:
                self._write_mean(kept)

    def write_shadow(self, report: ServingReport) -> None:
        """Write what a policy that shadows would have done."""
        actions = report.shadow_actions
        columns: dict[str, list[Any]] = {
            "episode": [episode for each in actions for _, episode in each.episodes],
            "client": [client for each in actions for client, _ in each.episodes],
            "episode_key": [f"{key:016x}" for each in actions for key in each.draw_keys.tolist()],
            "step": [step for each in actions for step in each.steps.tolist()],
            "sent": [json.dumps(action) for each in actions for action in each.sent.tolist()],
            "shadow": [json.dumps(action) for each in actions for action in each.shadow.tolist()],
            "weights_seq_no": [each.weights_seq_no for each in actions for _ in range(len(each.steps))],
        }
        if columns["step"]:
            self._sink.write(Points(SHADOW.name, serving_tags(self._tags, report.counters) | {"policy": report.shadow}, columns))

    def _policy(self, decided_by: str, greedy: bool) -> str:
        """Return the tag of what decided: the algorithm's name for the policy that learns."""
        return named_figures(self._tags["policy"] if decided_by == _LIVE_NAME else decided_by, greedy=greedy)

    def _write_mean(self, kept: Mapping[str, list[Any]]) -> None:
        """Write the mean over the newest episodes of the policy that learns, with these."""
        whole = np.array(kept["return"])[~np.array(kept["cut"])]
        if len(whole):
            self._returns.extend(whole[:, None])
            count = self._returns.count
            mean = float(self._returns.newest(newest_count(count))["return"].mean())
            self._sink.write(Points.one(RESULT.name, self._tags, {"episodes": count, "return_mean": mean}))
