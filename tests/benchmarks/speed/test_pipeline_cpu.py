"""The CPU of a pipeline's own nodes is measured beside bare River calls, which are a part of it."""

from __future__ import annotations

from benchmarks.speed.pipeline_cpu import measured


def test_a_step_costs_more_than_its_river_calls() -> None:
    figures = measured(8, seconds=0.3)
    assert figures["steps_per_s"] > 0
    assert 0 < figures["bare_river_us"] < figures["cpu_us_per_step"]
    assert figures["times_bare_river"] > 1
