"""The page's curves over time: what each section reads of its measurement, and the columns that its charts draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policyserver.monitoring.page.buckets import Source, Table, counters, means, ratio

Columns = dict[str, np.ndarray]

NODES = ("market", "execution", "reward", "signal", "policy", "portfolio", "episode")
"""The nodes of a pipeline, in the order of its circle."""


@dataclass(frozen=True)
class Section:
    """One part of the page, drawn from one measurement."""

    name: str
    source: Source
    columns: Callable[[Table], Columns]
    """Makes its columns of buckets."""


def _steps(table: Table) -> Columns:
    """Shares of the three actions and of fallbacks; costs of a step."""
    counts = {name: table.sum(name) for name in ("sell", "hold", "buy")}
    acted, steps = sum(counts.values(), np.zeros(len(table.time_s))), table.sum("steps")
    shares = {name: ratio(count, acted) for name, count in counts.items()}
    return shares | {name: ratio(table.sum(name), steps) for name in ("fallback", "fee", "slippage")}


_LEARNER_MEANS = ("loss", "kl", "entropy", "learning_rate", "staleness_mean", "learn_seconds")


def _learner(table: Table) -> Columns:
    averages = {name: table.mean(name) for name in _LEARNER_MEANS}
    return averages | {"weights_seq_no": table.largest("weights_seq_no"), "steps_per_s": ratio(table.sum("steps"), table.sum("seconds"))}


def _regressor(table: Table) -> Columns:
    """Skill over all forecasts of a bucket, and the size of what was forecast: its change is the drift."""
    squares, squares_zero, forecasts = table.sum("squares"), table.sum("squares_zero"), table.sum("forecasts")
    return {
        "skill": 1.0 - ratio(squares, squares_zero),
        "error": np.sqrt(ratio(squares, forecasts)),
        "moves": np.sqrt(ratio(squares_zero, forecasts)),
        "skipped": table.rise("skipped"),
    }


def _serving(table: Table) -> Columns:
    gauges = {name: table.level(name) for name in ("episodes_open", "steps_waiting", "clients_connected")}
    return gauges | {
        "actions_per_s": table.rate("actions"),
        "batch_size": ratio(table.rise("actions"), table.rise("batches")),
        "steps_dropped": table.rise("steps_dropped"),
        "rows_refused": table.rise("rows_refused"),
        "staleness_mean": table.mean("staleness_mean"),
    }


def _pipeline(table: Table) -> Columns:
    """Queues of each node; trouble of all nodes together; latency of actions."""
    of_node = {node: [group for group in table.groups if group[0] == node] for node in NODES}
    queues = {f"waiting_{node}": table.level("waiting", groups) for node, groups in of_node.items()}
    troubles = {name: table.rise(name) for name in ("failures", "restarts", "overflowed", "fallbacks")}
    return queues | troubles | {"latency_p50": table.mean("latency_p50_s"), "latency_p99": table.largest("latency_p99_s")}


def _sink(table: Table) -> Columns:
    accepted = {"accepted_per_s": table.rate("accepted"), "backlog": table.level("backlog")}
    return accepted | {name: table.rise(name) for name in ("dropped", "dead_lettered")}


SECTIONS = (
    Section(
        "learner",
        Source(
            "train",
            sums=means(*_LEARNER_MEANS) | {"steps": "steps", "seconds": "seconds"},
            maxima={"weights_seq_no": "weights_seq_no"},
        ),
        _learner,
    ),
    Section(
        "regressor",
        Source(
            "regressor",
            sums={"squares": "mse * forecasts", "squares_zero": "mse_zero * forecasts", "forecasts": "forecasts"},
            maxima=counters("skipped"),
            by=("symbol", "worker"),
            merged={
                name: f"{field}_sum * forecasts_sum / forecasts_count" for name, field in (("squares", "mse"), ("squares_zero", "mse_zero"))
            },
        ),
        _regressor,
    ),
    Section(
        "serving",
        Source(
            "server",
            sums=means("episodes_open", "steps_waiting", "clients_connected", "staleness_mean"),
            maxima=counters("actions", "batches", "steps_dropped", "rows_refused"),
            by=("boot_id",),  # not the worker: two pipelines that ask one server hear of the same actions
        ),
        _serving,
    ),
    Section(
        "pipeline",
        Source(
            "node",
            sums=means("waiting", "latency_p50_s"),
            maxima=counters("failures", "restarts", "overflowed", "fallbacks") | {"latency_p99_s": "latency_p99_s"},
            by=("node", "worker"),
        ),
        _pipeline,
    ),
    Section(
        "sink", Source("sink", sums=means("backlog"), maxima=counters("accepted", "dropped", "dead_lettered"), by=("sink", "worker")), _sink
    ),
    Section(  # the last, for it has by far the most rows
        "steps",
        Source(
            "step",
            sums={"steps": "1", "sell": "action = 0", "hold": "action = 1", "buy": "action = 2"}
            | {name: name for name in ("fallback", "fee", "slippage")},
        ),
        _steps,
    ),
)
"""Every section that is made of buckets."""
