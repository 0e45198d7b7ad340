"""A run against a real server comes out the same when it is replayed: threads, late answers, files, a kill; and when it asks again."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from policyserver.common.settings import load
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import (
    NodesConfig,
    PipelineConfig,
    PipelineRecordingConfig,
    PlayedEpisodesConfig,
    PolicyCallsConfig,
    ServerConnectionConfig,
)
from policyserver.pipelines.demo.demo import run_demo
from policyserver.pipelines.demo.setup import DemoConfig
from policyserver.pipelines.fallback import Fallback
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.replay.turn import StepOutcome
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.live_server import Serving, serving
from tests.pipelines.recorded_prices import fair_game, write_bars
from tests.pipelines.replay.recorded_runs import assert_equal, replay, turns_of
from tests.services import wait_until

TURN_NS = 2e9
"""What a turn may take while other tests use the processors."""
TURNS = 4
"""So many runs are killed at most until one lost no more than it may: a machine stands still now and then."""

WAIT_S = 200.0

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


def config(address: str, folder: Path, **options: Any) -> PipelineConfig:
    settings: dict[str, Any] = {
        "seed": 3,
        "server": ServerConnectionConfig(address=address),
        "episodes": PlayedEpisodesConfig(concurrent=130, steps=6_000),
        "nodes": NodesConfig(blocks=2),
        "prices": PricesConfig(bars_per_episode=40, warmup_bars=30),
        "recording": PipelineRecordingConfig(store=folder / "store.sqlite", run_folder=folder / "run"),
    }
    return PipelineConfig(**settings | options)


def test_several_threads_and_blocks_against_a_server_that_learns(market_serving: Serving, tmp_path: Path) -> None:
    settings = config(market_serving.address, tmp_path, nodes=NodesConfig(2, 2, 2, 2, 2, 2))
    pipeline = run_pipeline(settings, StopSignals(), tmp_path / "summary.json")
    assert_equal(tmp_path / "run", pipeline.run.steps)
    assert (tmp_path / "summary.json").read_text() == (tmp_path / "run" / "summary.json").read_text()
    assert_the_store_has_the_same(tmp_path)


def assert_the_store_has_the_same(folder: Path) -> None:
    """Compare what the log has of each step with what the store has: policy version, reward, equity."""
    reader = StoreReader(folder / "store.sqlite")
    stored = reader.select("SELECT weights_seq_no, reward, equity, fallback FROM step")
    reader.close()
    decisions: dict[tuple[int, int], tuple[int, bool]] = {}
    logged = []
    for turn in turns_of(folder / "run"):
        if turn.marked:
            rows, rewards, equities, _ = (column.tolist() for column in turn.marked)
            of_rows = [decisions[turn.block, row] for row in rows]
            logged += [(of[0], of[1], reward, equity) for of, reward, equity in zip(of_rows, rewards, equities, strict=True)]
        if turn.decided:
            outcomes, versions = (column.tolist() for column in turn.decided[:2])
            for row, outcome, version in zip(turn.asked[0].tolist(), outcomes, versions, strict=True):
                decisions[turn.block, row] = version, outcome == StepOutcome.FALLBACK
    assert sorted((version, bool(fallback), reward, equity) for version, reward, equity, fallback in stored) == sorted(logged)
    assert len(logged) > 5_000


@pytest.mark.slow
@pytest.mark.parametrize("fallback", ["hold", "flatten"])
def test_answers_that_a_held_server_gave_late(market_serving: Serving, tmp_path: Path, fallback: Fallback) -> None:
    policy = PolicyCallsConfig(action_timeout_s=0.3, waits_for_learner=False, fallback=fallback)
    settings = config(market_serving.address, tmp_path, policy=policy, episodes=PlayedEpisodesConfig(concurrent=128))
    stop = StopSignals()

    def hold() -> None:
        for _ in range(3):
            time.sleep(1.0)
            market_serving.process.suspend()
            time.sleep(1.0)
            market_serving.process.resume()
        stop.put("held often enough")

    holding = threading.Thread(target=hold)
    holding.start()
    pipeline = run_pipeline(settings, stop)
    holding.join()
    assert pipeline.fallbacks > 0
    assert_equal(tmp_path / "run", pipeline.run.steps)


def test_files_of_bars(market_serving: Serving, tmp_path: Path) -> None:
    for name in ("AAA", "BBB"):
        write_bars(tmp_path / f"{name}.csv", fair_game(400, seed=len(name)))
    prices = PricesConfig(recorded=CatalogConfig((str(tmp_path / "*.csv"),)), bars_per_episode=40, warmup_bars=30)
    pipeline = run_pipeline(config(market_serving.address, tmp_path, prices=prices), StopSignals())
    assert_equal(tmp_path / "run", pipeline.run.steps)


@pytest.mark.slow
def test_a_killed_run_has_lost_a_second_at_most_and_is_replayed_up_to_there(market_serving: Serving, tmp_path: Path) -> None:
    lost_ns: list[float] = []
    while (not lost_ns or lost_ns[-1] >= 1e9 + TURN_NS) and len(lost_ns) < TURNS:
        lost_ns.append(lost_by_a_kill(market_serving.address, tmp_path / f"run-{len(lost_ns)}"))
    assert lost_ns[-1] < 1e9 + TURN_NS, f"expected a second, and the turn that was under way: {lost_ns}"


def lost_by_a_kill(address: str, folder: Path) -> float:
    """Kill a run, which has to be replayed up to where it was recorded; return how long before the kill that ends, ns.

    It is not trained on, so no turn waits for the learner.
    """
    command = [str(Path(sys.executable).with_name("policy-pipeline")), "run", "--server.address", address]
    options = ["--episodes.concurrent", "70", "--recording.store", "none", "--recording.run_folder", str(folder)]
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([*command, *options, "--episodes.training_enabled", "false"], stderr=log)
    events = folder / "events.arrows"
    wait_until(lambda: events.exists() and events.stat().st_size > 100_000, "the run is recorded", WAIT_S)
    time.sleep(2.5)  # so that it is not killed right after it was recorded
    killed_ns = time.time_ns()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    replayed = replay(folder)
    assert (replayed.status, replayed.result["end"]) == (0, "killed"), replayed.out + replayed.err
    assert replayed.result["steps"] > 1_000
    return float(killed_ns - turns_of(folder)[-1].wall_ns)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_frozen_checkpoint_gives_the_same_actions_again(tmp_path: Path) -> None:
    """The server is started anew from its checkpoint, for it remembers the episodes that it has had."""
    frozen = PlayedEpisodesConfig(concurrent=128, steps=3_000, training_enabled=False)
    with serving("seed = 7\n", tmp_path) as running:
        run_pipeline(
            config(running.address, tmp_path / "learns", episodes=PlayedEpisodesConfig(concurrent=128, steps=9_000)), StopSignals()
        )
    with serving("seed = 7\n", tmp_path) as running:
        run_pipeline(config(running.address, tmp_path, episodes=frozen), StopSignals())
    versions = {int(version) for turn in turns_of(tmp_path / "run") if turn.decided for version in turn.decided[1]}
    assert len(versions) == 1
    assert versions != {0}, "the policy has learnt before"
    with serving("seed = 7\n", tmp_path) as running:
        asked = replay(tmp_path / "run", "--ask", "--server", running.address)
        assert asked.status == 0, asked.out + asked.err
        assert asked.result["actions"] >= 2_500
        learnt = replay(tmp_path / "learns" / "run", "--ask", "--server", running.address)
        assert learnt.status == 2
        assert "expected a run whose policy did not learn" in learnt.err
    asked = replay(tmp_path / "run", "--ask", "--server", f"unix:{tmp_path / 'missing'}")
    assert asked.status == 2
    assert "missing" in asked.err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_resumed_demo_is_replayed_part_by_part(tmp_path: Path) -> None:
    steps = {}
    for name, resume in (("1", False), ("run", True)):
        result = run_demo(
            DemoConfig(steps=3_000, runs=tmp_path, resume=resume, json=tmp_path / "summary.json"), io.StringIO(), StopSignals()
        )
        steps[name] = result.summary.steps
        assert result.summary.events_recorded > 40
        assert (tmp_path / "summary.json").read_text() == (result.folder / "summary.json").read_text()
    replayed = replay(result.folder)
    assert replayed.status == 0, replayed.out + replayed.err
    assert [each["steps"] for each in replayed.results] == list(steps.values())
    settings = [load(PipelineConfig, folder / "pipeline.toml") for folder in (result.folder / "earlier" / "1", result.folder)]
    assert [each.episodes.first_round > 0 for each in settings] == [False, True]


@pytest.mark.slow
def test_a_run_ends_when_its_event_log_is_full_if_that_is_wanted(market_serving: Serving, tmp_path: Path) -> None:
    settings = config(market_serving.address, tmp_path, episodes=PlayedEpisodesConfig(concurrent=256))
    recording = dataclasses.replace(settings.recording, max_event_bytes=1_000_000, when_events_full="end_run")
    pipeline = run_pipeline(dataclasses.replace(settings, recording=recording), StopSignals(), tmp_path / "summary.json")
    replayed = replay(tmp_path / "run")
    assert (replayed.status, replayed.result["end"]) == (0, "full")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == pipeline.run.steps > replayed.result["steps"] > 10_000
    assert summary["events_recorded"] == replayed.result["turns"]
    assert summary["events_unrecorded"] > 0
