"""The yardstick itself: that it counts what happened and says so when a figure is missed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.benchmarks import echo
from tests.benchmarks.cases import CASES, Bar, Case
from tests.benchmarks.report import markdown, table
from tests.benchmarks.run import ROOT, measured


def load(name: str, address: str, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.load", name, address, json.dumps(options)]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout)
    return found


@pytest.mark.parametrize(
    ("bar", "value", "met"), [(Bar("x", at_least=5), 5, True), (Bar("x", at_least=5), 4.9, False), (Bar("x", at_most=0), 1, False)]
)
def test_a_bar_is_met_from_its_own_value_on(bar: Bar, value: float, met: bool) -> None:
    assert bar.met({"x": value}) is met


def test_a_result_is_compared_with_the_floor_and_a_missed_bar_is_shown() -> None:
    figures = {"steps_per_s": 50.0, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0}
    case = Case("slow_one", "a slow one", lambda seconds: dict(figures), (Bar("steps_per_s", at_least=60), Bar("max_ms", at_most=3)), 1)
    result = measured(case, 1.0, {1: 100.0}, {"machine": "m", "date": "d", "window_s": 1.0})
    assert {"case", "steps_per_s", "p50_ms", "p99_ms", "max_ms"} <= set(result)
    assert result["ratio_to_floor"] == 0.5
    assert "steps_per_s >= 60 MISSED; max_ms <= 3 met" in table([result])
    assert "`slow_one`: a slow one." in markdown([result], {1: 100.0})


def test_every_case_of_the_promise_is_there_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {"threads_64_mlp_busy", "demo_closed_loop", "open_10000_mlp", "startup"} <= {case.name for case in CASES}


def test_the_floor_answers_every_caller() -> None:
    assert echo.measure(2, 0.3) > 100


def test_the_thread_load_counts_its_actions(cartpole_server: str) -> None:
    found = load("threads", cartpole_server, callers=4, seconds=0.5, episode_steps=20, training=True)
    assert found["calls"] == pytest.approx(found["steps_per_s"] * 0.5)
    assert found["actions_total"] > found["calls"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


def test_the_vector_load_counts_every_episode_of_a_call(cartpole_server: str) -> None:
    found = load("vector", cartpole_server, episodes=16, seconds=0.5, episode_steps=20, training=True)
    assert found["steps_per_s"] * 0.5 == pytest.approx(found["calls"] * 16)


def test_many_open_episodes_come_out_as_they_went_in(cartpole_server: str) -> None:
    found = load("open_many", cartpole_server, episodes=600, rounds=3, rows_per_call=64, training=True, known_actions=False)
    assert found["episodes_open"] == 600
    assert found["reward_sum_off_by"] == 0
    assert found["actions_total"] == 1800
    assert found["returns_mixed_up"] == 0
