"""The yardstick itself: that it counts what happened and says so when a figure is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.folders import ROOT
from benchmarks.speed import echo
from benchmarks.speed.case import Bar, Floor
from benchmarks.speed.cases import CASES, QUICK
from benchmarks.speed.loads import threads
from benchmarks.speed.report import table
from policyserver.client import ClientConfig, PolicyClient
from tests.live_server import Serving

pytestmark = pytest.mark.timeout(600)


def load(name: str, address: str, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.loads", name, address, json.dumps(options)]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout)
    return found


@pytest.mark.parametrize(
    ("bar", "value", "met"), [(Bar("x", at_least=5), 5, True), (Bar("x", at_least=5), 4.9, False), (Bar("x", at_most=0), 1, False)]
)
def test_a_bar_is_met_from_its_own_value_on(bar: Bar, value: float, met: bool) -> None:
    assert bar.met({"x": value}) is met


def test_a_slower_machine_gets_bars_of_speed_in_proportion_and_the_others_as_they_are() -> None:
    bars = (Bar("steps_per_s", at_least=100), Bar("p99_ms", at_most=10), Bar("ratio_to_peer", at_least=50), Bar("max_ms", at_most=100))
    assert [str(bar.on_slower_machine(0.5)) for bar in bars] == [
        "steps_per_s >= 50",
        "p99_ms <= 20",
        "ratio_to_peer >= 50",
        "max_ms <= 100",
    ]


def test_the_table_says_what_was_met_missed_and_not_measured() -> None:
    bars = {"steps_per_s >= 60": False, "max_ms <= 3": True, "ratio_to_peer >= 50": None}
    text = table([{"case": "slow_one", "steps_per_s": 50.0, "ratio_to_floor": 0.5, "bars": bars}])
    assert "steps_per_s >= 60 MISSED; max_ms <= 3 met; ratio_to_peer >= 50 not measured" in text
    assert "0.50" in text


def test_every_case_of_the_promise_is_there_once() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    promised = {"threads_1_mlp", "threads_64_mlp", "threads_256_mlp", "vector_256_mlp", "vector_256_lstm", "open_10000_mlp"}
    assert promised | {f"{name}_busy" for name in promised} <= set(names)
    assert {"hand_off_mlp", "hand_off_lstm", "demo_closed_loop", "memory_open_idle", "memory_finished", "longest_call_64_mlp"} <= set(names)


def test_the_quick_run_is_the_core_without_peers() -> None:
    assert [case.name for case in QUICK] == ["threads_1_mlp", "threads_64_mlp", "threads_64_mlp_busy", "vector_256_mlp", "hand_off_mlp"]
    assert not any(case.peer for case in QUICK)
    assert sum(case.window_s * case.rounds for case in QUICK) <= 10


def test_the_floor_answers_every_caller_and_counts_the_steps_of_a_message() -> None:
    with echo.running(Floor(2, 64)) as window:
        first, second = window(0.3), window(0.3)
    assert min(first["messages_per_s"], second["messages_per_s"]) > 0
    assert first["steps_per_s"] == first["messages_per_s"] * 64


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_thread_load_counts_its_actions(cartpole_server: str, processes: int) -> None:
    found = load("threads", cartpole_server, callers=4, seconds=0.5, episode_steps=20, training=True, processes=processes)
    assert found["calls"] == pytest.approx(found["steps_per_s"] * 0.5)
    assert found["actions_total"] > found["calls"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["percentiles_ms"][-1] == [100.0, found["max_ms"]]


@pytest.mark.slow
def test_one_core_is_the_clients_own_setting(monkeypatch: pytest.MonkeyPatch, cartpole_server: str) -> None:
    cores: list[int | None] = []

    def watched(address: str, *, config: ClientConfig) -> PolicyClient:
        cores.append(config.callers_core)
        return PolicyClient(address, config=config)

    monkeypatch.setattr(threads, "PolicyClient", watched)
    for one_core in (False, True):
        threads.threads(cartpole_server, callers=2, seconds=0.2, episode_steps=20, training=False, one_core=one_core)
    assert cores == [None, max(os.sched_getaffinity(0))]


@pytest.mark.slow
def test_the_timeline_has_every_second_and_the_updates_of_the_weights(cartpole_server: str) -> None:
    for _ in range(10):  # on a busy machine a batch and its update take longer than the four seconds, and all callers may wait for a second
        found = load("threads", cartpole_server, callers=16, seconds=4.0, episode_steps=20, training=True, timeline=True)
        timeline = found["timeline"]
        assert max(timeline["max_ms"]) == pytest.approx(found["max_ms"])
        assert all(p99 <= longest for p99, longest in zip(timeline["p99_ms"], timeline["max_ms"], strict=True))
        if timeline["second"] == [0, 1, 2, 3] and timeline["updates_s"] and timeline["updates_s"][-1] <= 5:
            break
    assert timeline["second"] == [0, 1, 2, 3]
    assert timeline["updates_s"]
    assert all(0 <= update <= 5 for update in timeline["updates_s"])


@pytest.mark.slow
def test_the_vector_load_counts_every_episode_of_a_call(cartpole_server: str) -> None:
    found = load("vector", cartpole_server, episodes=16, seconds=0.5, episode_steps=20, training=True)
    assert found["steps_per_s"] * 0.5 == pytest.approx(found["calls"] * 16)


@pytest.mark.slow
def test_many_open_episodes_come_out_as_they_went_in(cartpole_server: str) -> None:
    found = load("open_many", cartpole_server, episodes=600, rounds=3, rows_per_call=64, training=True, known_actions=False)
    assert found["episodes_open"] == 600
    assert found["reward_sum_off_by"] == 0
    assert found["actions_total"] == 1800
    assert found["returns_mixed_up"] == 0


@pytest.mark.slow
def test_the_memory_loads_read_the_serving_process(cartpole_serving: Serving) -> None:
    pid = cartpole_serving.process.pid
    for episodes in (2_000, 4_000, 8_000):  # a server that has had many, or has let go of some memory meanwhile, takes none for a few
        idle = load("open_idle", cartpole_serving.address, server_pid=pid, episodes=episodes)
        assert idle["episodes_open"] == episodes
        if idle["bytes_per_episode"] > 0:
            break
    assert 0 < idle["bytes_per_episode"] < 100_000
    finished = load("finish_many", cartpole_serving.address, server_pid=pid, episodes=4_000, episode_steps=2, every=1_000)
    assert [episodes for episodes, _ in finished["memory_by_episodes_mb"]] == [1_000, 2_000, 3_000, 4_000]
    assert finished["episodes_leaked"] == 0
    (first, begin_mb), *_, (last, end_mb) = finished["memory_by_episodes_mb"]
    assert finished["growth_mb_per_100000"] == pytest.approx((end_mb - begin_mb) / (last - first) * 100_000)
