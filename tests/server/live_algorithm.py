"""An algorithm whose env runner serves over gRPC, with somebody who plays and somebody who asks what the policy would do."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from policyserver.client import PolicyClient, PolicyServerError
from policyserver.common.settings import load
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.ports import DIRECT

OBSERVATION: npt.NDArray[np.float32] = np.array([0.3, -0.2, 0.1, 0.05], np.float32)
_TRAINING: dict[str, dict[str, Any]] = {
    "PPO": {"train_batch_size_per_learner": 128, "minibatch_size": 64, "num_epochs": 2, "lr": 1e-2},
    "APPO": {"train_batch_size_per_learner": 128, "lr": 1e-2},
    "IMPALA": {"train_batch_size_per_learner": 128, "lr": 1e-2},
    "DQN": {"lr": 1e-2, "num_steps_sampled_before_learning_starts": 64},
    "SAC": {"actor_lr": 1e-2, "train_batch_size_per_learner": 32, "training_intensity": 1, "num_steps_sampled_before_learning_starts": 64},
}
_SPACES: dict[str, dict[str, Any]] = {
    "observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
    "discrete": {"type": "Discrete", "n": 2},
    "box": {"type": "Box", "low": -2.0, "high": 2.0, "shape": [1]},
}


@contextmanager
def live_algorithm(
    name: str, *, num_env_runners: int = 1, segment_steps: int = 16, sample_wait_s: float = 2.0, **tables: dict[str, Any]
) -> Iterator[tuple[Any, str]]:
    """Build an algorithm with small settings and yield it with the address it serves on, of several the first; Ray must run."""
    fragment = {} if name == "PPO" else {"rollout_fragment_length": 32}
    overrides: dict[str, Any] = {
        "spaces.observation": _SPACES["observation"],
        "spaces.action": _SPACES["box" if name == "SAC" else "discrete"],
        "algorithm.name": name,
        "algorithm.training": _TRAINING[name],
        "algorithm.env_runners": {"num_env_runners": num_env_runners, **fragment},
        "algorithm.rl_module": {"model_config": {"fcnet_hiddens": [16]}},
        "algorithm.reporting": {"min_time_s_per_iteration": 0, "min_sample_timesteps_per_iteration": 0},
        "listen.address": "127.0.0.1:0",
        "hand_off.segment_steps": segment_steps,
        "hand_off.sample_wait_s": sample_wait_s,
        **{f"algorithm.{table}": values for table, values in tables.items()},
    }
    config = load(ServerConfig, None, overrides)
    built = algorithm_config(config, ExternalEnvRunner)
    built.environment(env_config=ServingConfig(ListenConfig("127.0.0.1:0"), config.episodes, config.hand_off).to_env_config())
    algorithm = built.build_algo()
    try:
        group = algorithm.env_runner_group
        addresses, *_ = group.foreach_env_runner(lambda runner: runner.addresses(), local_env_runner=not num_env_runners)
        yield algorithm, addresses[0]
    finally:
        algorithm.stop()


def learner_version(algorithm: Any) -> int:
    """Return the policy version that the learner has reached."""
    return int(algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["weights_seq_no"])


def train_until(algorithm: Any, version: int, timeout_s: float = 200.0) -> None:
    """Train until the learner has reached a version."""
    deadline = time.monotonic() + timeout_s
    while learner_version(algorithm) < version:
        assert time.monotonic() < deadline, f"version {version} was not reached within {timeout_s:g} s"
        algorithm.train()


class Crowd:
    """Episodes that are played on a thread until the end of a `with` block, and the versions that acted in them."""

    def __init__(self, address: str, episodes: int = 4, pause_s: float = 0.002) -> None:
        self._episodes = episodes
        self._pause_s = pause_s
        """Between two steps: the learner needs the machine, too."""
        self._stop = threading.Event()
        self._client = PolicyClient(address)
        self._thread = threading.Thread(target=self._play)
        self._errors: list[BaseException] = []
        self.versions: list[int] = []

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.close()  # it may be waiting for the learner, which asks for nothing any more
        self._thread.join()
        assert not self._errors, self._errors

    def wait_for_version(self, version: int, timeout_s: float = 120.0) -> None:
        """Wait until a version has acted, or a later one."""
        deadline = time.monotonic() + timeout_s
        while not self.versions or self.versions[-1] < version:
            assert time.monotonic() < deadline, f"version {version} did not act within {timeout_s:g} s: {self.versions}"
            assert not self._errors, self._errors
            time.sleep(0.01)

    def _play(self) -> None:
        random = np.random.default_rng(0)
        try:
            with self._client as client:
                ids = client.start_episodes(self._episodes)
                for turn in itertools.count():
                    if self._stop.wait(self._pause_s):
                        return
                    client.get_actions(ids, random.normal(size=(len(ids), 4)).astype(np.float32))
                    client.log_returns_batch(ids, random.normal(size=len(ids)))
                    if not self.versions or self.versions[-1] != client.weights_seq_no:
                        self.versions.append(client.weights_seq_no)
                    if turn % 20 == 19:
                        client.end_episodes(ids, np.zeros((len(ids), 4), np.float32), truncated=True)
                        ids = client.start_episodes(self._episodes)
        except PolicyServerError as error:
            if not self._stop.is_set():
                self._errors.append(error)


@contextmanager
def asking(address: str) -> Iterator[Any]:
    """Yield a function that asks, in an episode that is not trained on, and returns (policy version, probability of action 0)."""
    with grpc.insecure_channel(address, DIRECT) as channel:
        stub = pb_grpc.PolicyServiceStub(channel)
        episode = stub.StartEpisode(pb.StartEpisodeRequest(training_disabled=True)).episode_id

        def ask() -> tuple[int, float]:
            reply = stub.GetAction(pb.GetActionRequest(episode_id=episode, observation=[to_tensor(OBSERVATION)]))
            chance = math.exp(reply.action_log_prob)
            return int(reply.weights_seq_no), chance if int(from_tensor(reply.action[0], "action")) == 0 else 1.0 - chance

        yield ask
