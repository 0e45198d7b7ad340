"""Callbacks about episodes are called where RLlib calls them; what they change is recorded, and an error of theirs changes nothing."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from policyserver.server.policies.connectors.episode_callbacks import EpisodeCallbacks
from tests.server.connector_harness import player_of, state_of, stock_policy
from tests.server.core_harness import observation
from tests.server.policy_player import Move


class Calls(RLlibCallback):  # type: ignore[misc]
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def on_episode_created(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        self.calls.append(("created", env_index, len(episode.observations)))
        episode.custom_data["steps"] = []

    def on_episode_start(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        self.calls.append(("start", env_index, len(episode.observations)))

    def on_episode_step(self, *, episode: Any, env_index: int, metrics_logger: Any, **kwargs: Any) -> None:
        self.calls.append(("step", env_index, episode.t))
        episode.custom_data["steps"].append(episode.t)
        metrics_logger.log_value("steps_seen", 1, reduce="sum")

    def on_episode_end(self, *, episode: Any, env_index: int, prev_episode_chunks: Any, **kwargs: Any) -> None:
        total = sum(chunk.get_return() for chunk in prev_episode_chunks) + episode.get_return()
        self.calls.append(("end", env_index, episode.t, total, list(episode.custom_data["steps"]), episode.is_terminated))


def callbacks_of(calls: Calls, **functions: Any) -> EpisodeCallbacks:
    return EpisodeCallbacks(PPOConfig().callbacks(Calls, **functions), [calls], env_runner=None)


def test_callbacks_are_called_where_rllib_calls_them() -> None:
    calls, ends = Calls(), []
    policy = stock_policy(callbacks=callbacks_of(calls, on_episode_end=lambda *, episode, **rest: ends.append(sorted(rest))), chunk_steps=2)
    player = player_of(policy)
    player.send(Move(0, observation(0), new=True), Move(1, observation(1), new=True))
    for step in range(1, 5):
        player.send(Move(0, observation(step), reward=float(step), end="terminated" if step == 4 else ""))
    assert calls.calls[:4] == [("created", 0, 0), ("created", 1, 0), ("start", 0, 1), ("start", 1, 1)]
    assert calls.calls[4:] == [*(("step", 0, step) for step in range(1, 5)), ("end", 0, 4, 10.0, [1, 2, 3, 4], True)]
    assert ends == [["env", "env_index", "env_runner", "metrics_logger", "prev_episode_chunks", "rl_module"]]
    assert policy.take_metrics()["steps_seen"].peek() == 4
    player.send(Move(2, observation(0), new=True))
    assert calls.calls[-1] == ("start", 0, 1)


def test_an_episode_that_ends_where_it_is_cut_is_told_whole() -> None:
    calls = Calls()
    player = player_of(stock_policy(callbacks=callbacks_of(calls), chunk_steps=2))
    player.send(Move(0, observation(0), new=True))
    for step in range(1, 6):
        player.send(Move(0, observation(step), reward=float(step), end="truncated" if step == 5 else ""))
    assert calls.calls[-1] == ("end", 0, 5, 15.0, [1, 2, 3, 4, 5], False)


def test_what_a_callback_changes_is_recorded_and_what_it_raises_changes_nothing() -> None:
    class Shaping(RLlibCallback):  # type: ignore[misc]
        fails = False

        def on_episode_step(self, *, episode: Any, **kwargs: Any) -> None:
            if self.fails:
                raise RuntimeError("a user's mistake")
            episode.set_rewards(new_data=episode.get_rewards(-1) * 10, at_indices=-1)

    shaping = Shaping()
    callbacks = EpisodeCallbacks(PPOConfig().callbacks(Shaping), [shaping], env_runner=None)
    assert callbacks
    assert not callbacks.reads_chunks
    policy = stock_policy(callbacks=callbacks)
    player = player_of(policy)
    player.send(Move(0, observation(0), new=True))
    shaping.fails = True
    before = pickle.dumps(state_of(policy))
    with pytest.raises(RuntimeError, match="mistake"):
        player.send(Move(0, observation(1), reward=0.5))
    assert pickle.dumps(state_of(policy)) == before
    shaping.fails = False
    assert player.send(Move(0, observation(1), reward=0.5)).rewards.tolist() == [5.0]


def test_a_configuration_without_callbacks_about_episodes_has_none() -> None:
    assert not EpisodeCallbacks(PPOConfig(), [RLlibCallback()], env_runner=None)
    assert EpisodeCallbacks(PPOConfig().callbacks(on_episode_start=lambda **kwargs: None), [RLlibCallback()], env_runner=None)
