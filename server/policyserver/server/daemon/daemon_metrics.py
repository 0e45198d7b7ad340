"""What the daemon says at /metrics, of itself and of its serving processes, out of what these report once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from policyserver.common.figures import known
from policyserver.common.process_figures import process_figures
from policyserver.common.server_stats import PolicyFigures, ServerStats, TrainingIteration
from policyserver.monitoring.reports import serving_process
from policyserver.monitoring.sink import MultiSink, Sink
from policyserver.server.daemon.checkpoints import Checkpoint
from policyserver.server.episodes.pass_timing import PHASES
from policyserver.server.guard.findings import ADVICE
from policyserver.server.processes.serving_report import ServingReport

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from starlette.routing import BaseRoute

PRESENT_S = 5.0
"""Age of a report from which on its serving process counts as absent."""
_KEPT = 64
"""Most serving processes that are told of; a daemon has a handful, and one that was restarted is told of until its absence."""

_QUEUES = {
    "questions_rows": ("gather_queue_rows", "Rows that wait for the next pass."),
    "questions_bytes": ("gather_queue_bytes", "Bytes of the rows that wait for the next pass."),
    "learner_steps": ("learner_queue_steps", "Steps that wait for the learner, those in open pages included."),
    "learner_bytes": ("learner_queue_bytes", "Memory of the pages of recorded steps."),
    "room": ("room_open", "Whether questions are answered at once (1), or wait until the learner has new weights (0)."),
}
"""Gauges of what waits and is held, by the names in `ServingReport.queues`."""

_BY_HAND = {
    "client_actions": "Actions that a client was answered, of clients that chose some themselves.",
    "client_actions_given": "Actions that a client chose itself, by a person or a limit on risk, overrides among them.",
    "client_actions_overridden": "Times that a client chose another action than the one that it was answered.",
}
"""Counters by client, in the order of `ServingReport.by_hand`."""


class DaemonMetrics:
    """Holds the newest reports. Any thread tells it, any thread asks."""

    def __init__(self, folder: Path, store: Path | None, learns: Callable[[], bool] = lambda: True) -> None:
        """Begin with nothing known.

        Args:
            folder: The run folder.
            store: File of the embedded store; None without one.
            learns: Returns whether it is to learn now.
        """
        self._folder, self._store, self._learns = folder, store, learns
        self._lock = threading.Lock()
        self._serving: dict[str, tuple[float, ServingReport]] = {}
        self._started = 0
        self._iteration = TrainingIteration()
        self._iterated_at: float | None = None
        self._saved_at: float | None = None
        self._failures = 0
        self._guard_fired = dict.fromkeys(ADVICE, 0)
        self._sink: Sink = MultiSink()
        self.is_stopping = False
        """Whether the daemon drains."""
        self.is_paused_by_guard = False
        """Whether the guard on learning has paused it."""
        self.silent: Callable[[], int] = lambda: 0
        """Returns how many serving actors on other machines are silent."""
        self.take_undelivered: Callable[[], int] = lambda: 0
        """Returns the steps of which it became known since the last call that they never arrived from a serving actor."""

    def serving(self, report: ServingReport) -> None:
        """Take the report of a serving process."""
        process = serving_process(report.counters)
        with self._lock:
            self._started += process not in self._serving
            self._serving.pop(process, None)
            self._serving[process] = (time.monotonic(), report)
            while len(self._serving) > _KEPT:
                self._serving.pop(next(iter(self._serving)))

    def iteration(self, iteration: TrainingIteration) -> None:
        """Take a training iteration."""
        with self._lock:
            self._iteration, self._iterated_at = iteration, time.time()

    def iteration_failed(self) -> None:
        """Count an iteration that raised."""
        with self._lock:
            self._failures += 1

    def guard_fired(self, reason: str) -> None:
        """Count a firing of the guard on learning."""
        with self._lock:
            self._guard_fired[reason] += 1

    def saved(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint that was written."""
        with self._lock:
            self._saved_at = time.time()

    def records_to(self, sink: Sink) -> None:
        """Tell of a sink's counters from now on."""
        self._sink = sink

    def trouble(self) -> str:
        """Say why the daemon isn't ready to serve; "" if it is."""
        if self.is_stopping:
            return "it stops"
        return "" if self._present() else "no serving process answers"

    def routes(self) -> list[BaseRoute]:
        """Return the routes that a web server answers by."""
        from policyserver.monitoring.metrics.routes import (
            metrics_routes,
        )  # with prometheus-client, which a server without them does without

        return metrics_routes(self.collect, self.trouble)

    def collect(self) -> Iterator[Metric]:
        """Make the families, at a scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        from policyserver.monitoring.metrics import families

        prefix = "policy_server"
        present = self._present()
        with self._lock:
            iteration, iterated_at, saved_at, started, failures = (
                self._iteration, self._iterated_at, self._saved_at, self._started, self._failures,
            )  # fmt: skip
        counters = {process: report.counters for process, report in present.items()}
        yield families.gauge(f"{prefix}_ready", "Whether it serves: 1 or 0.", float(not self.trouble()))
        yield families.gauge(f"{prefix}_serving_processes", "Serving processes that answer.", len(present))
        text = "Serving actors on other machines that are silent, and left out of learning until they are heard of."
        yield families.gauge(f"{prefix}_serving_silent", text, float(self.silent()))
        text = "Serving processes that answered since the daemon began; more than there are tells of restarts."
        yield families.labelled(CounterMetricFamily, f"{prefix}_serving_starts", text, [], {(): float(started)})
        yield from families.of_figures(prefix, ServerStats, "process", counters)
        calls = {(process, *call): float(count) for process, report in present.items() for call, count in report.calls.items()}
        text = "gRPC calls that ended, by method and status; a stream is one call of Step."
        yield families.labelled(CounterMetricFamily, f"{prefix}_grpc_calls", text, ["process", "method", "code"], calls)
        rows = {(process,): report.rows for process, report in present.items() if report.rows[0]}
        yield families.doubling_histogram(f"{prefix}_pass_rows", "Rows of a pass.", ["process"], rows, unit=1.0)
        phases = {(process, phase): taken for process, report in present.items() for phase, taken in report.phases.items()}
        text = f"How long the parts of a pass took: {'; '.join(f'{phase}: {meaning}' for phase, meaning in PHASES.items())}."
        yield families.doubling_histogram(f"{prefix}_phase_seconds", text, ["process", "phase"], phases, unit=1e-6)
        for name, (metric, text) in _QUEUES.items():
            queues = {(process,): report.queues[name] for process, report in present.items() if name in report.queues}
            yield families.labelled(GaugeMetricFamily, f"{prefix}_{metric}", text, ["process"], queues)
        for place, (name, text) in enumerate(_BY_HAND.items()):
            hands = {
                (process, client): float(each[place]) for process, report in present.items() for client, each in report.by_hand.items()
            }
            yield families.labelled(CounterMetricFamily, f"{prefix}_{name}", text, ["process", "client"], hands)
        dropped = {(process,): float(report.by_hand_dropped) for process, report in present.items()}
        text = "Clients that chose actions themselves and are no longer told of, because they were too many."
        yield families.labelled(CounterMetricFamily, f"{prefix}_clients_by_hand_dropped", text, ["process"], dropped)
        policies = {(process, each.policy): known(each) for process, report in present.items() for each in report.policies}
        yield from families.of_labelled_figures(f"{prefix}_policy", PolicyFigures, ("process", "policy"), policies)
        text = "Whether it is to learn: 1, or 0 while learning is paused and without a learner."
        yield families.gauge(f"{prefix}_learner_enabled", text, float(self._learns()))
        yield from families.of_figures(f"{prefix}_learner", TrainingIteration, "", {"": known(iteration)})
        text = "Time of the newest training iteration, s since 1970."
        yield families.gauge(f"{prefix}_learner_iteration_timestamp_seconds", text, iterated_at)
        text = "Training iterations that raised."
        yield families.labelled(CounterMetricFamily, f"{prefix}_learner_failures", text, [], {(): float(failures)})
        text = "Times that the guard on learning fired, by reason: updates that it undid, and policies that it rolled back."
        fired = {(reason,): float(count) for reason, count in self._guard_fired.items()}
        yield families.labelled(CounterMetricFamily, f"{prefix}_guard_fired", text, ["reason"], fired)
        text = "Whether the guard on learning has paused it: 1 or 0."
        yield families.gauge(f"{prefix}_guard_paused", text, float(self.is_paused_by_guard))
        text = "Time at which the newest checkpoint was written, s since 1970."
        yield families.gauge(f"{prefix}_checkpoint_timestamp_seconds", text, saved_at)
        yield from families.of_sinks(prefix, self._sink)
        spool = self._store.parent / "influx-spool" if self._store is not None else None
        yield from families.of_files(prefix, self._folder, self._store, spool)
        processes = {process: report.process for process, report in present.items()}
        yield from families.of_processes(prefix, {"daemon": process_figures()} | processes)

    def _present(self) -> dict[str, ServingReport]:
        oldest = time.monotonic() - PRESENT_S
        with self._lock:
            return {process: report for process, (at, report) in self._serving.items() if at >= oldest}
