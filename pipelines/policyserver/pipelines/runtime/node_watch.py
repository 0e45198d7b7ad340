"""Records the counters of a pipeline's nodes and sinks once a second, how long actions took, and what episodes earn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policyserver.monitoring.points import Points
from policyserver.monitoring.reports import write_counters
from policyserver.monitoring.tail import mean
from policyserver.pipelines.nodes.policy_node import PolicyNode
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.latency import LatencyHistogram
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.runtime.node_group import NodeGroup
from policyserver.pipelines.runtime.routes import Recorder

_RECORD_S = 1.0
"""Seconds from one point of each node to the next."""


class NodeWatch(Node[Any]):
    """Writes a point for each group of nodes and for each sink, one of the results, and what others have added to the recorder."""

    def __init__(self, groups: Sequence[NodeGroup[Any]], policies: Sequence[PolicyNode], run: RunState, recorder: Recorder) -> None:
        """Watch `groups`, of which `policies` are those that ask for actions, and what `run` knows of episodes."""
        super().__init__("node-watch", interval_s=_RECORD_S)
        self._run_state = run
        self._episodes = 0
        self._groups = groups
        self._policies = policies
        self._recorder = recorder
        self._latency = LatencyHistogram()

    def _process(self, batch: list[Any]) -> None:
        self._recorder.flush()
        nodes = [group.statistics() for group in self._groups]
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(node, name) for node in nodes]
            for name in ("threads", "processed", "queue_max", "overflowed", "failures", "restarts")
        }
        columns["waiting"] = [group.waiting for group in self._groups]
        for name, value in self._actions().items():
            columns[name] = [value if group.replicas[0] in self._policies else None for group in self._groups]
        self._recorder.write("node", columns, node=[node.name for node in nodes])
        write_counters(self._recorder.sink, self._recorder.tags)
        self._record_results()

    def _record_results(self) -> None:
        """Write the means of the newest tenth of the whole episodes, if there is a new one."""
        if (count := self._run_state.episodes.count) == self._episodes:
            return
        self._episodes = count
        newest = self._run_state.newest_tenth()
        means = {f"{name}_mean": mean(newest[name]) for name in ("return", "no_trade", "random", "profit", "costs")}
        self._recorder.sink.write(Points.one("result", self._recorder.tags, {"episodes": count} | means))

    def _actions(self) -> dict[str, float]:
        """Return what only the policy nodes count; latencies are of the actions since the last call, NaN without any."""
        latency = LatencyHistogram.merged(node.latency for node in self._policies)
        newest, self._latency = latency.since(self._latency), latency
        return {
            "fallbacks": sum(node.fallbacks for node in self._policies),
            "latency_p50_s": newest.quantile_s(0.5),
            "latency_p99_s": newest.quantile_s(0.99),
        }
