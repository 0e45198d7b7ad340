"""A policy that was taken away: what it refuses, how it draws, and how fast it is."""

from __future__ import annotations

import json
import timeit
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import InvalidInputError, LocalPolicy
from tests.client.policy_files import OBSERVATION, mlp, write

UNBOUNDED = gym.spaces.Box(-np.inf, np.inf, (10,), np.float32)
ZEROS = np.zeros(10, np.float32)
MOST_US = 10.0


def policy_of(tmp_path: Path, seed: int | None = None, space: gym.Space[Any] = OBSERVATION) -> LocalPolicy:
    description, arrays = mlp(space)
    return LocalPolicy.load(write(tmp_path / "policy.npz", json.dumps(description), arrays), seed=seed)


WRONG = {
    "nothing": None,
    "shape": np.zeros(9, np.float32),
    "NaN": np.full(10, np.nan, np.float32),
    "infinity": np.full(10, np.inf, np.float32),
    "text": ["a"] * 10,
    "beyond": np.full(10, 100.1, np.float32),
    "one beyond": np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, -100.1], np.float32),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_observation_that_the_server_would_refuse_is_refused(name: str, tmp_path: Path) -> None:
    policy = policy_of(tmp_path)
    with pytest.raises(InvalidInputError, match=r"^observation: expected"):
        policy.act(WRONG[name])
    if "beyond" in name:
        policy_of(tmp_path, space=UNBOUNDED).act(WRONG[name])


def test_whatever_becomes_the_same_numbers_is_the_same_observation(tmp_path: Path) -> None:
    policy = policy_of(tmp_path)
    near = np.arange(10, dtype=np.float32)
    actions = {int(policy.act(value)) for value in (near, near.tolist(), near.astype(np.float64), near.astype(np.int8), near[::-1][::-1])}
    assert len(actions) == 1
    far = np.full(10, 99.0, np.float32)  # in the space, but far from its middle
    assert policy.act(far) == policy.act(far.tolist())


@pytest.mark.long
def test_one_seed_draws_the_same_actions_in_the_same_episodes(tmp_path: Path) -> None:
    def play(seed: int | None, *ids: str | None) -> list[list[int]]:
        policy = policy_of(tmp_path, seed)
        played = []
        for episode_id in ids:
            policy.start_episode(episode_id)
            played.append([int(policy.act(ZEROS, explore=True)) for _ in range(30)])
        return played

    assert play(1, "a", "b") == list(reversed(play(1, "b", "a")))
    assert play(1, None, None) == play(1, None, None)
    assert play(1, "a") != play(2, "a")
    first, second = play(1, None, None)
    assert first != second
    assert play(None, "a", "b") != play(None, "a", "b")


@pytest.mark.long
def test_drawn_actions_follow_the_chances(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, 3)
    logits, _ = policy.forward(policy.initial_state(), ZEROS)
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    drawn = np.bincount([int(policy.act(ZEROS, explore=True)) for _ in range(5000)], minlength=3) / 5000
    np.testing.assert_allclose(drawn, chances, atol=0.03)


def test_numbers_beyond_all_bounds_are_an_error_and_no_action(tmp_path: Path) -> None:
    description, arrays = mlp(UNBOUNDED)
    arrays["2.bias"][:] = np.float32(3e38)
    arrays["2.weight"][:] = np.float32(3e38)
    for number in (0, 1):
        description["net"]["encoder"][number]["dense"].pop("activation")
    policy = LocalPolicy.load(write(tmp_path / "policy.npz", json.dumps(description), arrays))
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="expected one for which the net gives numbers"):
        policy.act(np.full(10, 1e30, np.float32))


@pytest.mark.figures
def test_an_action_of_an_mlp_of_64_and_64_takes_ten_microseconds_at_most(tmp_path: Path) -> None:
    policy = policy_of(tmp_path)
    observation = np.linspace(-1, 1, 10, dtype=np.float32)
    fastest_us = min(timeit.repeat(lambda: policy.act(observation), number=2000, repeat=40)) / 2000 * 1e6
    print(f"LocalPolicy.act: {fastest_us:.2f} us")  # noqa: T201
    assert fastest_us < MOST_US
