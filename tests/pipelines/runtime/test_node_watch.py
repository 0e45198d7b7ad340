"""The last points of a run's nodes are their counters at its end, and the policy node alone has latencies."""

from __future__ import annotations

import dataclasses

import pytest

from tests.pipelines.pipeline_harness import play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.test_pipeline import config, timeouts

COUNTERS = ("threads", "processed", "queue_max", "overflowed", "failures", "restarts")


@pytest.mark.long
def test_the_last_points_are_the_counters_at_the_end_and_only_the_policy_has_latencies() -> None:
    service = PolicyDouble()
    service.fail = timeouts(5, 7, n_episodes=4)
    pipeline, _, book = play(config(concurrent=4, steps=400), service)
    nodes = pipeline.statistics()
    rows = book.rows["node"]
    assert len(rows) % len(nodes) == 0, "a point for each node at a time"
    last = rows[-len(nodes) :]
    assert [{name: row[name] for name in COUNTERS} for row in last] == [
        {name: value for name, value in dataclasses.asdict(node).items() if name in COUNTERS} for node in nodes
    ]
    assert {row["waiting"] for row in last} == {0}
    policy = [node.name for node in nodes].index("policy")
    assert [row["fallbacks"] for row in last] == [pipeline.fallbacks if index == policy else None for index in range(len(nodes))]
    assert pipeline.fallbacks > 0
    assert {row["latency_p50_s"] for row in rows if row["fallbacks"] is None} == {None}
    measured = [row for row in rows if row["latency_p50_s"] is not None]
    assert measured
    assert all(0.0 < row["latency_p50_s"] <= row["latency_p99_s"] < 10.0 for row in measured)
