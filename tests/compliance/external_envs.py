"""Environments as users of RLlib's ExternalEnv wrote them, and the same loops for a client of the policy server.

A loop plays one episode, or some, through the five calls that ExternalEnv and PolicyClient share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from ray.rllib.env.external_env import ExternalEnv

from policyserver.client import PolicyClient
from policyserver.common.errors import ClientClosedError, PolicyServerError
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.serving_loop_harness import CLIENT

OBSERVATION = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
ACTION: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(2)
EPISODE_STEPS = 25
ZERO = np.zeros(1, np.float32)
PATIENT = replace(CLIENT, action_timeout_s=100.0, connect_timeout_s=100.0)  # a machine may stand still for seconds


class Calls(Protocol):
    """What a loop asks for actions."""

    def start_episode(self, episode_id: str | None = None, training_enabled: bool = True) -> str: ...
    def get_action(self, episode_id: str, observation: Any) -> Any: ...
    def log_action(self, episode_id: str, observation: Any, action: Any) -> None: ...
    def log_returns(self, episode_id: str, reward: float, info: dict[str, Any] | None = None) -> None: ...
    def end_episode(self, episode_id: str, observation: Any) -> None: ...


Loop = Callable[[Calls], None]


def fixed_length(calls: Calls) -> None:
    """An episode of 25 steps, each with the reward 1."""
    episode = calls.start_episode()
    for _ in range(EPISODE_STEPS):
        assert calls.get_action(episode, ZERO) in ACTION
        calls.log_returns(episode, 1.0, {"said": True})
    calls.end_episode(episode, ZERO)


def fixed_length_off_policy(calls: Calls) -> None:
    """The same, with actions that nobody asked the policy for."""
    episode = calls.start_episode()
    for _ in range(EPISODE_STEPS):
        calls.log_action(episode, ZERO, 1)
        calls.log_returns(episode, 1.0)
    calls.end_episode(episode, ZERO)


class Looping(ExternalEnv):  # type: ignore[misc]
    """Runs a loop again and again, as an environment does that is made to serve for ever."""

    def __init__(self, loop: Loop, action_space: gym.Space[Any] = ACTION, observation_space: gym.Space[Any] = OBSERVATION) -> None:
        super().__init__(action_space, observation_space)
        self.loop = loop

    def run(self) -> None:
        while True:
            self.loop(self)


class CartPoles(ExternalEnv):  # type: ignore[misc]
    """Plays CartPole: `copies` of it, two random ones of which act in turn; a share of the actions is drawn at random and logged."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.games = CartPoleLoop(config)
        super().__init__(self.games.action_space, self.games.observation_space)

    def run(self) -> None:
        while True:
            self.games(self)


class CartPoleLoop:
    """Steps of CartPole on both sides of the wire."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Make the copies; `config` has `copies` (1), `off_policy_share` (0.0) and `seed` (0)."""
        self.envs = [gym.make("CartPole-v1") for _ in range(config.get("copies", 1))]
        self.action_space, self.observation_space = self.envs[0].action_space, self.envs[0].observation_space
        self.off_policy_share = config.get("off_policy_share", 0.0)
        self.random = np.random.default_rng(config.get("seed", 0))
        self.running: dict[int, tuple[str, Any]] = {}
        self.returns: list[float] = []
        self.return_now = dict.fromkeys(range(len(self.envs)), 0.0)

    def __call__(self, calls: Calls) -> None:
        """Take a step in some of the copies, interleaved."""
        for copy in self.random.permutation(len(self.envs))[:2].tolist():
            env = self.envs[copy]
            if copy not in self.running:
                observation, _ = env.reset(seed=int(self.random.integers(2**31)))
                self.running[copy] = calls.start_episode(), observation
            episode, observation = self.running[copy]
            if self.random.random() < self.off_policy_share:
                action = self.random.integers(2)
                calls.log_action(episode, observation, action)
            else:
                action = calls.get_action(episode, observation)
            observation, reward, terminated, truncated, info = env.step(action)
            calls.log_returns(episode, float(reward), info)
            self.return_now[copy] += float(reward)
            self.running[copy] = episode, observation
            if terminated or truncated:
                calls.end_episode(episode, observation)
                self.returns.append(self.return_now[copy])
                self.return_now[copy] = 0.0
                del self.running[copy]


@contextmanager
def client_looping(address: str, loop: Loop) -> Iterator[threading.Thread]:
    """Run a loop again and again with a client of its own, on a thread that must be alive until the end."""
    errors: list[PolicyServerError] = []
    over = threading.Event()
    with PolicyClient(address, config=PATIENT) as client:

        def run() -> None:
            try:
                while not over.is_set():
                    loop(client)
            except PolicyServerError as error:
                if not (over.is_set() and isinstance(error, ClientClosedError)):
                    errors.append(error)

        thread = threading.Thread(target=run, name="loop")
        thread.start()
        try:
            yield thread
            assert thread.is_alive(), f"the client is gone: {errors}"
        finally:
            over.set()
            client.close()
            thread.join(100.0)
        assert not errors


@contextmanager
def looping(runner: ExternalEnvRunner, loop: Loop) -> Iterator[None]:
    """Have a loop run against an env runner: its own environment runs it, or a client does."""
    if runner.env is not None:
        yield
        assert runner.env.is_alive(), "the environment's thread is gone"
    else:
        with client_looping(runner.addresses()[0], loop):
            yield
