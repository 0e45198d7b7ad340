"""Pipelines against a policy server that runs elsewhere."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientConfig, HandshakeError, PolicyClient
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import NodesConfig, PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig, PriceSource, make_source
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from tests.live_server import Serving, serving
from tests.pipelines.replay.recorded_runs import assert_kept
from tests.services import wait_until

WAIT_S = 200.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def address(market_serving: Serving) -> str:
    return market_serving.address


def start_run(address: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("policy-pipeline")), "run", "--server.address", address, "--episodes.concurrent", "16"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--recording.store", str(folder / "store.sqlite"), "--recording.run_folder", "none", *options], stderr=log
        )


def test_run_ends_its_episodes_and_stores_every_step_when_it_is_told_to_stop(address: str, tmp_path: Path) -> None:
    with PolicyClient(address) as observer:
        before = observer.stats()
        process = start_run(address, tmp_path)
        wait_until(lambda: observer.stats().steps_completed - before.steps_completed > 1_000, "the pipeline steps", WAIT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        after = observer.stats()
    assert after.episodes_open == 0
    assert after.episodes_reaped == before.episodes_reaped
    reader = StoreReader(tmp_path / "store.sqlite")
    ledger = reader.ledger("run")  # the server's
    reader.close()
    assert ledger.steps == after.steps_completed - before.steps_completed
    assert ledger.reward_sum == pytest.approx(after.reward_sum - before.reward_sum, abs=1e-6)
    assert "stopping: SIGTERM" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("named", [False, True], ids=["first call", "first episodes"])
def test_a_refusal_of_the_spaces_names_the_command_that_prints_those_of_the_rules(address: str, named: bool) -> None:
    recording = PipelineRecordingConfig(run="run" if named else None, store=None, run_folder=None)
    config = PipelineConfig(
        server=ServerConnectionConfig(address=address),
        rules=RulesConfig(actions="hold_buy_sell_close"),
        worker_number=3 if named else None,
        recording=recording,
    )
    with StopSignals().installed() as stop, pytest.raises(HandshakeError, match=r"Discrete\(4\).*policy-pipeline spaces"):
        run_pipeline(config, stop)


def test_the_episodes_of_a_killed_pipeline_end_by_themselves(address: str, tmp_path: Path) -> None:
    with PolicyClient(address) as observer:
        before = observer.stats()
        process = start_run(address, tmp_path)
        wait_until(lambda: observer.stats().episodes_open == 16, "all episodes are open", WAIT_S)
        process.kill()
        process.wait()
        wait_until(lambda: observer.stats().episodes_open == 0, "the server ends them", WAIT_S)
        assert observer.stats().episodes_reaped - before.episodes_reaped == 16


def test_two_calls_are_in_flight_at_once_through_one_client(address: str) -> None:
    config = PipelineConfig(episodes=PlayedEpisodesConfig(concurrent=128, steps=2_000), nodes=NodesConfig(blocks=2))
    inside, most = set(), 0
    lock = threading.Lock()
    with PolicyClient(address) as policy:
        ask = policy.get_actions

        def watched(episode_ids: Sequence[str], observations: Any) -> Any:
            nonlocal most
            with lock:
                inside.add(threading.current_thread().name)
                most = max(most, len(inside))
            try:
                return ask(episode_ids, observations)
            finally:
                with lock:
                    inside.discard(threading.current_thread().name)

        policy.get_actions = watched  # type: ignore[method-assign, assignment]
        with Pipeline(config, policy, MultiSink()).running() as pipeline:
            assert pipeline.wait(WAIT_S)
    assert most == 2


def test_a_pipeline_ends_at_once_when_the_server_is_for_other_spaces(address: str, tmp_path: Path) -> None:
    process = start_run(address, tmp_path, "--rules.observers", '["returns"]')
    assert process.wait(WAIT_S) == 1
    log = (tmp_path / "log").read_text()
    assert "observation spaces differ" in log
    assert "restarting" not in log


def test_a_pipeline_of_another_run_than_the_servers_ends_at_once(address: str, tmp_path: Path) -> None:
    process = start_run(address, tmp_path, "--recording.run", "another", "--episodes.steps", "400")
    assert process.wait(WAIT_S) == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("policy-pipeline: run: this client belongs to the run 'another', the server records 'run'")


def test_a_pipeline_of_the_servers_run_is_let_in(address: str, tmp_path: Path) -> None:
    process = start_run(address, tmp_path, "--recording.run", "run", "--episodes.steps", "400")
    assert process.wait(WAIT_S) == 0


def test_a_run_keeps_what_the_demo_keeps(address: str, tmp_path: Path) -> None:
    config = PipelineConfig(
        server=ServerConnectionConfig(address=address),
        episodes=PlayedEpisodesConfig(concurrent=4, steps=40),
        recording=PipelineRecordingConfig(store=tmp_path / "store.sqlite", run_folder=tmp_path / "runs" / "{time}-seed{seed}"),
    )
    with StopSignals().installed() as stop:
        run_pipeline(config, stop, tmp_path / "summary.json")
    (folder,) = (tmp_path / "runs").iterdir()
    assert_kept(folder, tmp_path / "summary.json", 40)


def test_a_pipeline_that_finds_no_server_waits_for_one(tmp_path: Path) -> None:
    stop = StopSignals()
    config = PipelineConfig(
        server=ServerConnectionConfig(address=f"unix:{tmp_path / 'nobody.sock'}", connect_timeout_s=0.2),
        episodes=PlayedEpisodesConfig(concurrent=4, steps=40),
        recording=PipelineRecordingConfig(store=None, run_folder=None),
    )
    threading.Timer(1.0, stop.put, ["enough"]).start()
    with pytest.raises(StoppedEarlyError, match="enough: stopped before there was a policy server at unix:"):
        run_pipeline(config, stop)


@pytest.mark.slow
def test_a_pipeline_that_leaves_nothing_to_the_server_waits_with_its_episodes(tmp_path: Path) -> None:
    stop = StopSignals()
    config = PipelineConfig(
        worker_number=1,
        server=ServerConnectionConfig(address=f"unix:{tmp_path / 'nobody.sock'}", connect_timeout_s=0.2),
        episodes=PlayedEpisodesConfig(concurrent=4, steps=40),
        recording=PipelineRecordingConfig(run="mine", store=None, run_folder=None),
        stop_timeout_s=5.0,
    )
    threading.Timer(1.0, stop.put, ["enough"]).start()
    assert run_pipeline(config, stop).run.steps == 0


class Garbled:
    """Prices whose bars after one action are replaced by others that fit nothing."""

    is_recorded = False

    def __init__(self, source: PriceSource, last_good: int) -> None:
        self._source = source
        self._last_good = last_good
        self.symbols = source.symbols
        self.slots = source.slots
        self.columns = source.columns
        self.notes = source.notes
        self.n_windows = source.n_windows
        self.annualisations = source.annualisations
        self.bar_intervals_ns = source.bar_intervals_ns

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        return [self._garbled(episode) for episode in self._source.episodes(numbers)]

    def _garbled(self, episode: Episode) -> Episode:
        bars = episode.bars.bars.copy()
        bad = bars[episode.bars.warmup_bars + self._last_good :]
        bad[:] = np.exp(np.random.default_rng(99).normal(0.0, 2.0, bad.shape))
        return dataclasses.replace(episode, bars=dataclasses.replace(episode.bars, bars=bars))


def play_one_episode(folder: Path, last_good: int | None) -> tuple[list[Any], list[int]]:
    """Play one episode against a fresh server of a fixed seed; return its observations and actions."""
    folder.mkdir()
    config = PipelineConfig(
        seed=11, episodes=PlayedEpisodesConfig(concurrent=1, steps=60, training_enabled=False), prices=PricesConfig(bars_per_episode=60)
    )
    source = make_source(config.prices, config.seed)
    seen: list[Any] = []
    done: list[int] = []
    with serving("seed = 7\n", folder) as server, PolicyClient(server.address, config=ClientConfig()) as policy:
        ask = policy.get_actions

        def noted(episode_ids: Sequence[str], observations: Any) -> Any:
            actions = ask(episode_ids, observations)
            seen.append(observations.copy())
            done.extend(actions.tolist())
            return actions

        policy.get_actions = noted  # type: ignore[method-assign, assignment]
        with Pipeline(
            config, policy, MultiSink(), source=source if last_good is None else Garbled(source, last_good)
        ).running() as pipeline:
            assert pipeline.wait(WAIT_S)
    return seen, done


@pytest.mark.slow
def test_nothing_up_to_a_bar_depends_on_the_bars_after_it(tmp_path: Path) -> None:
    last_good = 30
    observations, actions = play_one_episode(tmp_path / "true", None)
    garbled_observations, garbled_actions = play_one_episode(tmp_path / "garbled", last_good)
    assert len(actions) == 60
    assert len(set(actions[: last_good + 1])) == 3, "the policy does something that could differ"
    for bar in range(last_good + 1):
        assert observations[bar].tobytes() == garbled_observations[bar].tobytes(), f"observation at bar {bar}"
        assert actions[bar] == garbled_actions[bar], f"action at bar {bar}"
    assert observations[last_good + 1].tobytes() != garbled_observations[last_good + 1].tobytes(), "and the garbage is really there"
