"""The thread of an ExternalEnv: starts its `run()`, and tells the training when that is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from ray.rllib.env.external_env import ExternalEnv
from ray.rllib.env.external_multi_agent_env import ExternalMultiAgentEnv

from policyserver.common.errors import ServerUnavailableError
from policyserver.server.external_env.core_loop import CoreLoop
from policyserver.server.external_env.episodes import ExternalEnvEpisodes
from policyserver.server.external_env.rllib_methods import make_served

logger = logging.getLogger(__name__)


def check_external_env(env: Any) -> ExternalEnv:
    """Return the environment if it can be served.

    Raises:
        ValueError: It is of another kind.
    """
    if isinstance(env, ExternalMultiAgentEnv):
        raise ValueError(f"environment: expected an ExternalEnv of one agent, received {type(env).__name__}, an ExternalMultiAgentEnv")
    if not isinstance(env, ExternalEnv):
        raise ValueError(f"environment: expected an ExternalEnv class or none at all, received {type(env).__name__}")
    return env


class ExternalEnvThread:
    """Run an ExternalEnv and answer its calls.

    The environment is a thread itself, which is started here as RLlib does, by `start()`.
    """

    def __init__(self, env: ExternalEnv, serving_loop: CoreLoop, *spaces: gym.Space[Any], finished_remembered: int) -> None:
        """Prepare; nothing runs yet.

        Raises:
            ValueError: The environment has begun episodes by RLlib's own code.
        """
        self._env = env
        self._serving_loop = serving_loop
        self.failure: Exception | None = None
        """Why there is nothing more to come, once `run()` is over while the training goes on."""
        self._is_started = False
        environment = make_served(env)
        environment.serving_loop, environment.finished_remembered = serving_loop, finished_remembered
        self._episodes = serving_loop.call(lambda: ExternalEnvEpisodes(environment, serving_loop.core, *spaces))
        serving_loop.at_stop.append(self._episodes.stop)

    def start(self) -> None:
        """Start `run()`. A second call does nothing."""
        if self._is_started:
            return
        self._is_started = True
        run = self._env.run
        self._env.run = lambda: self._watch(run)
        self._env.start()

    def _watch(self, run: Callable[[], None]) -> None:
        name = type(self._env).__name__
        cause: BaseException | None = None
        try:
            run()
        except BaseException as error:
            cause = error
        if self._episodes.is_closed or self._serving_loop.core.drain_error is not None:
            expected = cause is None or isinstance(cause, ServerUnavailableError)
            logger.info("run() of %s is over, as the server is", name, exc_info=None if expected else cause)
            return
        if cause is not None:
            logger.error("run() of %s failed", name, exc_info=cause)
            failure = RuntimeError(f"run() of {name} failed")
        else:
            logger.error("run() of %s returned while the training goes on", name)
            failure = RuntimeError(f"run() of {name} returned, so no more episodes will come; the steps of those before were handed off")
        failure.__cause__ = cause

        def tell() -> None:
            self.failure = failure
            self._serving_loop.drain()

        self._serving_loop.post(lambda: self._episodes.finish(tell))
