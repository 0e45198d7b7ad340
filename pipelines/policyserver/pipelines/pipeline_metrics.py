"""What a pipeline says at /metrics, out of what its nodes count anyway."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from policyserver.client import ClientCounters, PolicyClient
from policyserver.common.process_figures import process_figures
from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.sink import Sink
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.runtime.node import NodeStatistics
from policyserver.pipelines.server_watch import ServerWatch

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from starlette.routing import BaseRoute

_NODE = {
    "processed": "Events handled by a node.",
    "overflowed": "Events that met a full inbox.",
    "failures": "Errors that the node raised.",
    "restarts": "How often it was started again after one.",
}
_CLIENT = {
    "messages_sent": "Messages with steps.",
    "rows_sent": "Steps in the messages, those sent again included.",
    "rows_answered": "Steps answered, refusals included.",
    "connections": "Handshakes made: 1 for each serving process plus the number of reconnects.",
    "episodes_lost": "Episodes that ended because their serving process died or was restarted.",
    "rewards_dropped": "Rewards logged before the first action of their episode.",
}
"""Counters of the client."""


class PipelineMetrics:
    """Asks a pipeline, once there is one, at each scrape."""

    def __init__(self, config: PipelineConfig, sink: Sink) -> None:
        """Tell of a sink; `follow` adds the pipeline."""
        self._config, self._sink = config, sink
        self._followed: tuple[Pipeline, ServerWatch, PolicyClient] | None = None

    def follow(self, pipeline: Pipeline, watch: ServerWatch, policy: PolicyClient) -> None:
        """Tell of a pipeline, its server and its client from now on."""
        self._followed = pipeline, watch, policy

    def trouble(self) -> str:
        """Say why the pipeline doesn't play; "" if it does."""
        if self._followed is None:
            return "it waits for the policy server"
        pipeline, watch, _ = self._followed
        if pipeline.run.stopping.is_set() or pipeline.run.ended.is_set():
            return "it stops"
        return "" if watch.answered else "the policy server does not answer"

    def routes(self) -> list[BaseRoute]:
        """Return the routes that a web server answers by."""
        from policyserver.monitoring.metrics.routes import metrics_routes  # with prometheus-client and starlette, as below

        return metrics_routes(self.collect, self.trouble)

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Answer where `recording.metrics` says.

        Raises:
            InsecureListenError: Strangers could see it.
            OSError: The address can't be taken.
        """
        address = self._config.recording.metrics
        if address is None:
            yield
            return
        from policyserver.monitoring.page.web_server import WebServer

        with contextlib.closing(WebServer(PageConfig(address), key="recording.metrics")) as server:
            server.serve(self.routes(), "metrics")
            yield

    def collect(self) -> Iterator[Metric]:
        """Make the families, at a scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        from policyserver.monitoring.metrics import families

        prefix = "policy_pipeline"
        yield families.gauge(f"{prefix}_ready", "Whether it plays: 1 or 0.", float(not self.trouble()))
        client: ClientCounters | None = None
        nodes: list[NodeStatistics] = []
        endings: dict[str, int] = {}
        steps = fallbacks = 0
        latency = {}
        if self._followed is not None:
            pipeline, _, policy = self._followed
            client = policy.counters()
            nodes, endings, steps, fallbacks = (
                pipeline.statistics(),
                {str(ending): count for ending, count in pipeline.run.endings.items()},
                pipeline.run.steps,
                pipeline.fallbacks,
            )
            latency = {(): pipeline.latency.doubling()}
        yield families.gauge(f"{prefix}_episodes_open", "Episodes open now.", client.episodes_open if client else None)
        yield families.gauge(f"{prefix}_rows_waiting", "Steps that wait to be sent.", client.rows_waiting if client else None)
        for name, text in _CLIENT.items():
            counted = {(): float(getattr(client, name))} if client else {}
            yield families.labelled(CounterMetricFamily, f"{prefix}_client_{name}", text, [], counted)
        yield families.labelled(CounterMetricFamily, f"{prefix}_steps", "Steps whose reward is known.", [], {(): float(steps)})
        yield families.labelled(CounterMetricFamily, f"{prefix}_fallbacks", "Fallback actions taken.", [], {(): float(fallbacks)})
        ended = {(ending,): float(count) for ending, count in endings.items()}
        yield families.labelled(CounterMetricFamily, f"{prefix}_episodes_ended", "Episodes by the way they ended.", ["ended"], ended)
        text = "Time around the calls for actions, the way there and back included; each action counts."
        yield families.doubling_histogram(f"{prefix}_action_seconds", text, [], latency, unit=1e-6)
        each = {node.name: dataclasses.asdict(node) for node in nodes}
        for name, text in _NODE.items():
            samples = {(node,): float(values[name]) for node, values in each.items()}
            yield families.labelled(CounterMetricFamily, f"{prefix}_node_{name}", text, ["node"], samples)
        longest = {(node,): float(values["queue_max"]) for node, values in each.items()}
        yield families.labelled(GaugeMetricFamily, f"{prefix}_node_queue_max", "Most events in one inbox at a time.", ["node"], longest)
        yield from families.of_sinks(prefix, self._sink)
        store = self._config.recording.store
        folder = store.parent if store is not None else Path()
        yield from families.of_files(prefix, folder, store, folder / "influx-spool")
        yield from families.of_processes(prefix, {"pipeline": process_figures()})
