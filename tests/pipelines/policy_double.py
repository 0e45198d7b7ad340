"""A policy service in memory: the sequence rules of the real one, scripted answers, a ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserver.client.errors import BatchError
from policyserver.common.errors import EpisodeUnknownError, PolicyServerError


@dataclass
class Heard:
    """What the service heard of one episode."""

    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    logged: list[int] = field(default_factory=list)
    """Numbers of the steps whose action the caller chose."""
    ended: str = ""


class PolicyDouble:
    """Answers at once, with `choose(observations)` or what `fail(episode_ids)` raises."""

    def __init__(self, choose: Callable[[Any], Any] | None = None) -> None:
        rng = np.random.default_rng(0)
        self.lock = threading.Lock()
        self.choose = choose or (lambda observations: rng.integers(3, size=len(observations)))
        self.fail: Callable[[str, Sequence[str]], dict[int, PolicyServerError] | None] = lambda call, ids: None
        self.episodes: dict[str, Heard] = {}
        self.weights_seq_no = 1
        self._threads = threading.local()
        self.calls: list[tuple[str, int]] = []

    def open_episodes(self) -> list[str]:
        """Return the episodes that are not over; as with the real service, an episode begins with its first observation."""
        return [name for name, heard in self.episodes.items() if heard.observations and not heard.ended]

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        with self.lock:
            self._check("start", episodes)
            for name in episodes:
                assert name not in self.episodes
                self.episodes[name] = Heard()
            return list(episodes)

    def answered_by(self) -> Any:
        return np.full(self.asked, self.weights_seq_no)

    def take_learner_wait_s(self) -> float:
        return 0.0

    @property
    def asked(self) -> int:
        """Rows of the calling thread's newest question."""
        return int(getattr(self._threads, "asked", 0))

    def get_actions(self, episode_ids: Sequence[str], observations: Any) -> Any:
        self._threads.asked = len(episode_ids)
        with self.lock:
            errors = self._check("get", episode_ids)
            actions = np.array(self.choose(observations))
            actions[list(errors)] = 0
            for row, name in enumerate(episode_ids):
                if row not in errors:
                    heard = self._next(name, observations[row])
                    heard.actions.append(np.asarray(actions[row]).tolist())
            if errors:
                raise BatchError(len(episode_ids), actions, errors)
            return actions

    def log_actions(self, episode_ids: Sequence[str], observations: Any, actions: Any) -> None:
        with self.lock:
            errors = self._check("log", episode_ids)
            for row, name in enumerate(episode_ids):
                if row not in errors:
                    heard = self._next(name, observations[row])
                    heard.logged.append(len(heard.actions))
                    heard.actions.append(np.asarray(actions[row]).tolist())
            if errors:
                raise BatchError(len(episode_ids), None, errors)

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        with self.lock:
            for name, reward in zip(episode_ids, rewards, strict=True):
                heard = self.episodes[name]
                heard.rewards.append(reward)
                assert len(heard.rewards) == len(heard.actions), "one reward for each action, after it"

    def end_episodes(self, episode_ids: Sequence[str], observations: Any, truncated: Any, *, timeout_s: float | None = None) -> None:
        with self.lock:
            errors = self._check("end", episode_ids)
            for row, name in enumerate(episode_ids):
                if row not in errors:
                    heard = self._next(name, observations[row], given_up_too=True)
                    heard.ended = "truncated" if truncated[row] else "terminated"
            if errors:
                raise BatchError(len(episode_ids), None, errors)

    def _check(self, call: str, episode_ids: Sequence[str]) -> dict[int, PolicyServerError]:
        self.calls.append((call, len(episode_ids)))
        assert len(set(episode_ids)) == len(episode_ids)
        return self.fail(call, episode_ids) or {}

    def _next(self, name: str, observation: Any, *, given_up_too: bool = False) -> Heard:
        if name not in self.episodes or self.episodes[name].ended:
            raise EpisodeUnknownError(f"episode {name}: not open")
        heard = self.episodes[name]
        complete = len(heard.rewards) == len(heard.actions)
        assert complete or given_up_too, "no observation before the reward of the last action"
        heard.observations.append(np.array(observation))
        return heard
