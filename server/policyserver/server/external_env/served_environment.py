"""An ExternalEnv that is served: its public methods become calls to the serving loop."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from policyserver.common.errors import EpisodeDuplicateError, EpisodeFinishedError, EpisodeUnknownError, InvalidInputError
from policyserver.common.rewards import add_reward, to_reward
from policyserver.server.episodes.received_rows import PolicyWanted
from policyserver.server.external_env.calls import CallQueue, EnvironmentCall, EnvironmentEpisode
from policyserver.server.external_env.core_loop import CoreLoop

GET_ACTION_TIMEOUT_S, LOG_ACTION_TIMEOUT_S = 300.0, 60.0
"""How long RLlib's ExternalEnv waits for an action, and until one that it took by itself is recorded, seconds."""


class ServedEnvironment:
    """The public methods of an ExternalEnv that is served. Calls wait until the serving loop takes them. Any thread may call."""

    def __init__(self, env: Any) -> None:
        """Begin without episodes.

        The environment may say by attributes how it is served. `action_timeout_s`: the longest wait for an answer, seconds (default:
        RLlib's 300 for `get_action` and 60 for `log_action`). `waits_for_learner`: whether `get_action` waits, outside that time, while
        the learner has to catch up (default: it does).
        """
        self._env = env
        self.calls = CallQueue()
        self.serving_loop: CoreLoop | None = None
        """What serves it, from before `run()` starts."""
        self.finished_remembered = 100_000
        """Ids of ended episodes that are refused as such, the newest."""
        self._lock = threading.Lock()
        self._open: dict[Hashable, EnvironmentEpisode] = {}
        self._finished: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def waits_for_learner(self) -> bool:
        """Whether the environment can wait while the learner catches up."""
        return bool(getattr(self._env, "waits_for_learner", True))

    @property
    def open_episodes(self) -> list[EnvironmentEpisode]:
        """The episodes that have begun and that the core has not heard the end of."""
        with self._lock:
            return list(self._open.values())

    def start_episode(
        self, episode_id: Hashable | None = None, training_enabled: bool = True, *, policy: str = "", explore: bool = True
    ) -> Hashable:
        """Start an episode.

        Args:
            episode_id: Its id; None makes one.
            training_enabled: Whether the learner may learn from it.
            policy: What decides its actions, as in `PolicyClient.start_episode`; "" leaves it to the server. Its first call is refused
                where no such policy is there.
            explore: Whether actions are drawn; else the most likely ones are taken.

        Raises:
            EpisodeDuplicateError: One of that id is open.
            EpisodeFinishedError: One of that id has ended.
            InvalidInputError: The policy is no name.
            ServerUnavailableError: The server has stopped.
        """
        self.calls.check()
        if not isinstance(policy, str):
            raise InvalidInputError(f"policy: expected a name, such as 'live', received {policy!r}", field="policy")
        episode_id = uuid.uuid4().hex if episode_id is None else episode_id
        with self._lock:
            if episode_id in self._finished:
                raise EpisodeFinishedError(f"Episode {episode_id} has already completed.", field="episode_id")
            if episode_id in self._open:
                raise EpisodeDuplicateError(f"Episode {episode_id} is already started", field="episode_id")
            self._open[episode_id] = EnvironmentEpisode(episode_id, training_enabled, PolicyWanted(policy, not explore))
        return episode_id

    def get_action(self, episode_id: Hashable, observation: Any) -> Any:
        """Ask for an action; see EnvironmentCall.wait for the errors."""
        return self._put(episode_id, observation).wait(getattr(self._env, "action_timeout_s", GET_ACTION_TIMEOUT_S))

    def log_action(self, episode_id: Hashable, observation: Any, action: Any) -> None:
        """Record an action that was taken; see EnvironmentCall.wait for the errors."""
        self._put(episode_id, observation, action).wait(getattr(self._env, "action_timeout_s", LOG_ACTION_TIMEOUT_S))

    def log_returns(self, episode_id: Hashable, reward: Any, info: Any = None) -> None:
        """Add to the reward of the newest action.

        Raises:
            EpisodeError: The episode is not open.
            InvalidInputError: The reward is no finite number, or a step can't carry the sum; nothing was changed.
        """
        with self._lock:
            episode = self._get(episode_id)
        comes_back = episode.reward + episode.reward_in_flight
        episode.logged_reward = add_reward(episode.logged_reward, to_reward(reward), comes_back)
        if info:
            episode.logged_info = self.calls.copied(info)

    def end_episode(self, episode_id: Hashable, observation: Any) -> None:
        """End an episode, without waiting for the core to take note of it."""
        self._put(episode_id, observation, ends=True)

    def forget(self, episode: EnvironmentEpisode) -> None:
        """Close an episode whose end the core has heard. Called by the loop thread."""
        with self._lock:
            self._open.pop(episode.id, None)

    def _put(self, episode_id: Hashable, observation: Any, given: Any = None, *, ends: bool = False) -> EnvironmentCall:
        """Hand the next call of an episode to the loop.

        Raises:
            EpisodeError: The episode is not open.
            ServerUnavailableError: The server has stopped.
        """
        self.calls.check()
        with self._lock:
            episode = self._get(episode_id)
            if ends:
                self._finished[episode_id] = None
                while len(self._finished) > self.finished_remembered:
                    self._finished.popitem(last=False)
        reward, episode.logged_reward = episode.logged_reward, 0.0
        info, episode.logged_info = episode.logged_info, None
        call = EnvironmentCall(episode, observation, given, ends=ends, reward=reward, info=info)
        self.calls.put(call)
        return call

    def _get(self, episode_id: Hashable) -> EnvironmentEpisode:
        if episode_id in self._finished:
            raise EpisodeFinishedError(f"Episode {episode_id} has already completed.", field="episode_id")
        episode = self._open.get(episode_id)
        if episode is None:
            raise EpisodeUnknownError(f"Episode {episode_id} not found.", field="episode_id")
        return episode
