"""Sweeps: a point for each size, the curves in turns, and a fresh server only where the configuration changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.speed import growth
from benchmarks.speed.case import Contender
from benchmarks.speed.growth import Point, Sweep, measure_sweep
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window


def test_curves_take_turns_and_points_of_one_configuration_share_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def loaded(load: str, options: dict[str, Any], config: str, net: str) -> Contender:
        @contextmanager
        def contender(servers: Servers) -> Iterator[Window]:
            def window(seconds: float) -> Figures:
                events.append(f"{config} {options['curve']} {seconds:g}s")
                return {"steps_per_s": 10.0 * options["size"], "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us_per_action": 3.0}

            yield window

        return contender

    monkeypatch.setattr(growth, "loaded", loaded)
    monkeypatch.setattr(Servers, "let_go", lambda servers: events.append("fresh"))

    def points(curve: str) -> tuple[Point, ...]:
        return tuple(Point(size, {"curve": curve, "size": size}, config) for size, config in ((1, "A"), (2, "A"), (3, "B")))

    found = measure_sweep(Sweep("s", "says", "threads", "load", {"idle": points("idle"), "busy": points("busy")}), 2.0)
    assert events == ["fresh", "A idle 2s", "A busy 2s", "A idle 2s", "A busy 2s", "fresh", "B idle 2s", "B busy 2s"]
    assert found["curves"]["busy"]["size"] == [1, 2, 3]
    assert found["curves"]["busy"]["steps_per_s"] == [10.0, 20.0, 30.0]
    assert found["quantity"] == "threads"
