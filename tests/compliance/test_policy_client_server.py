"""RLlib's own cases for its policy server and clients, in our words.

A server with two serving actors and three client processes: the first plays with one actor, the two others with the other. When the third
has what it wants, every other process must still be there, for once upon a time RLlib's server lost its clients and no test noticed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.learning import over_grpc
from benchmarks.learning.cases import CARTPOLE, case_of
from benchmarks.learning.over_grpc import player_command, processes_of
from benchmarks.learning.player import play
from benchmarks.learning.playing import Playing
from policyserver.client import PolicyClient
from policyserver.common.settings import dump_toml, load
from policyserver.server.config.server_config import ServerConfig
from tests.live_server import Serving, serving

TWO_ACTORS = {"num_env_runners": 2}
ENDLESSLY = Playing(seed=1)


def toml(**changes: Any) -> str:
    return dump_toml(load(ServerConfig, None, changes))


@contextmanager
def clients(*commands: Sequence[str]) -> Iterator[dict[psutil.Process, str]]:
    """Run client processes, and end them with the block."""
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        yield {psutil.Process(process.pid): f"client {number}" for number, process in enumerate(started, start=1)}
    finally:
        for process in started:
            process.kill()
            process.wait()


def check_alive(processes: dict[psutil.Process, str]) -> None:
    dead = [name for process, name in processes.items() if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE]
    assert not dead, f"ended while the others played: {dead}"
    assert len(processes) >= 7, "Ray's own, the daemon, two actors and two clients"


def both_addresses(server: Serving) -> tuple[str, str]:
    with PolicyClient(server.address) as client:
        first, second = client.server_info().endpoints
    return first, second


def wait_for_steps(address: str, timeout_s: float = 200.0) -> None:
    """Wait until somebody has played with the actor at an address."""
    deadline = time.monotonic() + timeout_s
    with PolicyClient(address) as client:
        while not client.stats_by_endpoint()[address].steps_completed:
            assert time.monotonic() < deadline, f"nobody plays with {address}"
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_several_agents_of_one_scene_share_the_policy(tmp_path: Path) -> None:
    """RLlib's stand-in for a game has agents of one multi-agent episode; here each agent is an episode."""
    spaces = {
        "spaces.observation": {"type": "Box", "low": 0.0, "high": 1.0, "shape": [8]},
        "spaces.action": {"type": "MultiDiscrete", "nvec": [3, 3, 3]},
    }
    training = {"train_batch_size_per_learner": 1000, "minibatch_size": 250, "num_epochs": 2}
    config = toml(**spaces, **{"algorithm.env_runners": TWO_ACTORS, "algorithm.training": training, "episodes.episode_idle_timeout_s": 5.0})
    command = [sys.executable, "-m", "tests.compliance.scene_player"]
    with serving(config, tmp_path) as server:
        first, second = both_addresses(server)
        family = processes_of(server.process)
        with clients([*command, first, "1000000"], [*command, second, "1000000"]) as others:
            wait_for_steps(first)
            wait_for_steps(second)
            done = subprocess.run([*command, second, "10"], stdout=subprocess.PIPE, text=True, check=True)
            check_alive(family | others)
        played = json.loads(done.stdout)
        assert (played["scenes"], played["agent_episodes"]) == (10, 60)
        with PolicyClient(second) as client:
            assert client.stats_by_endpoint()[second].steps_completed > played["agent_steps"], "the second client played there, too"
            assert client.stats().rows_refused == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("algorithm", "training", "model"),
    [
        pytest.param(
            "PPO",
            {"lr": 1e-3, "train_batch_size_per_learner": 4000, "minibatch_size": 500, "entropy_coeff": 0.0, "vf_clip_param": 1000.0},
            {"fcnet_hiddens": [64, 64], "vf_share_layers": False},
            id="12 PPO",
        ),
        pytest.param(
            "IMPALA",
            {"lr": 1e-3, "train_batch_size_per_learner": 500, "entropy_coeff": 0.0, "vf_loss_coeff": 0.05},
            {"fcnet_hiddens": [32], "use_lstm": True, "lstm_cell_size": 32, "max_seq_len": 20},
            id="13 IMPALA with LSTM",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_the_third_client_sees_an_episode_of_150(algorithm: str, training: dict[str, Any], model: dict[str, Any], tmp_path: Path) -> None:
    fragment = {"PPO": 1000, "IMPALA": 100}[algorithm]
    tables = {
        "algorithm.name": algorithm,
        "algorithm.training": training,
        "algorithm.env_runners": {**TWO_ACTORS, "rollout_fragment_length": fragment},
        "algorithm.rl_module": {"model_config": model},
    }
    with serving(toml(**CARTPOLE, **tables), tmp_path) as server:
        first, second = both_addresses(server)
        family = processes_of(server.process)
        with clients(*(player_command(address, "CartPole-v1", ENDLESSLY) for address in (first, second))) as others:
            played = play(second, "CartPole-v1", Playing(seed=3, stop_episode_return=150.0, max_seconds=1000.0))
            check_alive(family | others)
        assert played.best_return >= 150.0, played
        assert played.policy_version > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cartpole_is_solved_as_in_rllibs_example_of_an_external_client(tmp_path: Path) -> None:
    """That example learns on the client's side; it quotes a mean return of 459 after 160,000 steps."""
    case = case_of("PPO")
    assert case.bar == 450.0
    outcome = over_grpc.learn(case, 0, tmp_path)
    assert outcome.reached, outcome
