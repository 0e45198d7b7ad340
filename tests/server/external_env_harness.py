"""ExternalEnvs in this process, answered by a running serving loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray.rllib.env.external_env import ExternalEnv

from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.core_statistics import CoreStatistics
from policyserver.server.external_env.rllib_methods import environments_to_serve, served_environment
from policyserver.server.external_env.thread import ExternalEnvThread
from policyserver.server.runner.serving_loop import ServingLoop
from tests.server.core_harness import ACTION, OBSERVATION, observation
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop


class Idle(ExternalEnv):  # type: ignore[misc]
    """An environment whose `run()` waits, while the test makes its calls from threads of its own."""

    def __init__(self) -> None:
        super().__init__(ACTION, OBSERVATION)
        self.over = threading.Event()

    def run(self) -> None:
        self.over.wait()


@dataclass
class Served:
    """An environment that is served."""

    env: Any
    thread: ExternalEnvThread
    harness: ServingLoopHarness

    @property
    def core(self) -> EpisodeCore:
        return self.harness.serving_loop.core

    def segments(self, want_steps: int = 1) -> list[Any]:
        """Take what waits for the learner, as it arrives there; waits until there are so many steps."""
        return self.harness.segments(want_steps, 60.0)

    def statistics(self) -> CoreStatistics:
        return self.harness.serving_loop.call(self.core.snapshot)

    @property
    def open_episodes(self) -> list[Any]:
        """Ids of the environment's episodes whose end the core has not heard."""
        environment = served_environment(self.env)
        assert environment is not None
        return [episode.id for episode in environment.open_episodes]

    def settle(self) -> None:
        """Wait until the loop has done what was asked of it before."""
        for _ in range(4):
            self.harness.serving_loop.call(lambda: None)


@contextmanager
def serving_env(make_env: Callable[[], Any] = Idle, **options: Any) -> Iterator[Served]:
    """Make an environment and serve it until the end; its thread must end with the server."""
    with environments_to_serve():
        env = make_env()
    with running_serving_loop(**options) as harness:
        served = Served(env, serve_env(env, harness.serving_loop), harness)
        served.thread.start()
        yield served
    if isinstance(env, Idle):
        env.over.set()
    env.join(60.0)
    assert not env.is_alive()


def serve_env(env: Any, serving_loop: ServingLoop, remembered: int = 100) -> ExternalEnvThread:
    """Make the adapter of an environment, as the env runner does."""
    return ExternalEnvThread(env, serving_loop, env.observation_space, env.action_space, finished_remembered=remembered)


def in_thread(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Call a function on a thread; what is returned waits for its result and raises its error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function(*args))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(250.0)
        assert not thread.is_alive(), "the call still waits"
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return result


def play(env: Any, steps: int) -> str:
    """Play an episode with the reward 1 in every step."""
    episode: str = env.start_episode()
    for step in range(steps):
        assert env.get_action(episode, observation(step)) in ACTION
        env.log_returns(episode, 1.0)
    env.end_episode(episode, observation(steps))
    return episode
