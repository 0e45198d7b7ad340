"""`policy-server evaluate` plays the first N episodes to start, greedily, and prints their mean return with its standard error."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import PolicyClient, ServerEndedError
from policyserver.common.settings import dump_toml
from policyserver.server.alone.evaluation import Evaluation
from policyserver.server.processes.serving_report import ServingReport
from tests.commands import run_here
from tests.ports import free_address, listens
from tests.server.export_harness import run_config_of, saved
from tests.services import wait_until

CARTPOLE: dict[str, Any] = {
    "observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
    "action": {"type": "Discrete", "n": 2},
}


def report(started: int, still_open: int, *ended: tuple[str, float, int]) -> ServingReport:
    columns = dict(zip(("ended", "return", "length"), map(list, zip(*ended, strict=True)), strict=True)) if ended else {}
    return ServingReport({"episodes_started": started, "episodes_open": still_open}, columns)


def test_the_mean_is_of_whole_episodes_and_the_end_waits_for_the_last_that_began() -> None:
    evaluation, ended = Evaluation(4), threading.Event()
    evaluation.on_end = ended.set
    assert evaluation.result()["return_mean"] is None
    evaluation.take(report(4, 2, ("terminated", 1.0, 1), ("lost", 50.0, 9)))
    assert (evaluation.result()["return_error"], ended.is_set()) == (None, False)
    evaluation.take(report(4, 1, ("truncated", 4.0, 4)))
    assert not ended.is_set()
    evaluation.take(report(4, 0, ("terminated", 7.0, 7)))
    assert ended.is_set()
    result = evaluation.result()
    assert (result["episodes"], result["lost"], result["unfinished"], result["return_mean"]) == (3, 1, 0, 4.0)
    assert result["return_error"] == pytest.approx(3.0 / math.sqrt(3))


def test_an_episode_without_a_step_whose_client_is_gone_is_lost() -> None:
    evaluation = Evaluation(3)
    evaluation.take(report(3, 1, ("terminated", 1.0, 1), ("terminated", 2.0, 1)))
    assert evaluation.result()["lost"] == 0
    evaluation.take(report(3, 0))
    result = evaluation.result()
    assert (result["episodes"], result["lost"], result["unfinished"]) == (2, 1, 0)


@contextlib.contextmanager
def evaluating(run_folder: Path, address: str, episodes: int) -> Iterator[subprocess.Popen[str]]:
    """Run the command; yield it once it serves."""
    command = [str(Path(sys.executable).with_name("policy-server")), "evaluate", "--run-folder", str(run_folder), "--address", address]
    with (run_folder / "said").open("w") as said:
        options = ["--episodes", str(episodes), "--json"]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=said, text=True)

    def serves() -> bool:
        assert process.poll() is None, (run_folder / "said").read_text()
        return listens(process.pid, int(address.rpartition(":")[2]))

    with process:
        try:
            wait_until(serves, "the evaluation to serve", 200.0)
            yield process
        finally:
            process.kill()


def play(client: PolicyClient, seed: int) -> float:
    environment = gym.make("CartPole-v1")
    observation, _ = environment.reset(seed=seed)
    episode, returned, done = client.start_episode(), 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = environment.step(client.get_action(episode, observation))
        client.log_returns(episode, float(reward))
        returned, done = returned + float(reward), terminated or truncated
    client.end_episode(episode, observation, truncated=truncated)
    return returned


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The folder of a run that has ended, with a checkpoint; others that it served are gone, and had most of its episodes."""
    others: dict[str, Any] = {"policies__load": {"champion": 99}, "traffic__shares": {"live": 0.1, "champion": 0.9}}
    config = run_config_of(**CARTPOLE, run_folder=str(tmp_path / "run"), **others)
    config.run_folder.mkdir()
    (config.run_folder / "server.toml").write_text(dump_toml(config), encoding="utf-8")
    saved(config)
    return config.run_folder


@pytest.mark.process
@pytest.mark.timeout(600)
def test_episodes_of_real_clients_are_evaluated(run_folder: Path) -> None:
    address, wanted = free_address(), 12
    played: list[float] = []
    refused = threading.Event()

    def play_on(client: PolicyClient, first: int) -> None:
        for seed in range(first, 1000, 4):
            try:
                played.append(play(client, seed))
            except ServerEndedError:
                refused.set()
                return

    with evaluating(run_folder, address, wanted) as process:
        with PolicyClient(address) as one, PolicyClient(address) as other, ThreadPoolExecutor(4) as pool:
            for task in [pool.submit(play_on, client, first) for first, client in enumerate((one, other, one, other))]:
                task.result()
        out, _ = process.communicate(timeout=200.0)
    assert process.returncode == 0
    assert refused.is_set()
    result = json.loads(out)
    assert (result["checkpoint"], result["weights_seq_no"], result["episodes"], result["lost"]) == (1, 70, wanted, 0)
    assert len(played) == wanted
    assert result["return_mean"] == pytest.approx(statistics.fmean(played))
    assert result["return_error"] == pytest.approx(statistics.stdev(played) / math.sqrt(wanted))
    assert not (run_folder / "lock").exists(), "the run folder is its server's"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(600)
def test_ctrl_c_prints_what_there_is(run_folder: Path) -> None:
    address = free_address()
    with evaluating(run_folder, address, 100) as process, PolicyClient(address) as client:
        first = play(client, 1)
        client.get_action(client.start_episode(), np.zeros(4, np.float32))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=200.0)
    result = json.loads(out)
    assert process.returncode == 1
    assert (result["episodes"], result["unfinished"], result["return_mean"], result["return_error"]) == (1, 1, first, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "0"], "episodes: expected at least 1, received 0"),
        (["--checkpoint", "7"], "checkpoint: expected the number of a checkpoint that is there"),
        (["--run-folder", "nowhere"], "run-folder: expected the folder of a run, with a server.toml, received nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "server.toml").touch()
    (tmp_path / "checkpoints").mkdir()
    ended = run_here("policy-server", "evaluate", "--run-folder", str(tmp_path), *options)
    assert ended.returncode == 2
    assert message in ended.stderr
