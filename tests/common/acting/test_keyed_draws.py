"""The numbers that actions are drawn by: a function of seed, key and step, and as good as random."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from policyserver.common.acting.keyed_draws import KeyedDraws

KEYS = np.random.default_rng(1).integers(0, 2**63, 1000, np.uint64) * np.uint64(2)


def steps_of(step: int, rows: int = 1000) -> npt.NDArray[np.int64]:
    return np.full(rows, step, np.int64)


def test_a_number_depends_on_its_key_and_step_alone() -> None:
    draws = KeyedDraws(7)
    together = draws.uniform(KEYS, np.arange(1000))
    for rows in (1, 2, 4, 5, 37):
        apart = [draws.uniform(KEYS[first : first + rows], np.arange(first, min(first + rows, 1000))) for first in range(0, 1000, rows)]
        assert np.concatenate(apart).tolist() == together.tolist()
    shuffled = np.random.default_rng(2).permutation(1000)
    assert draws.uniform(KEYS[shuffled], np.arange(1000)[shuffled]).tolist() == together[shuffled].tolist()
    lanes = draws.uniforms(KEYS, np.arange(1000), 3)
    assert draws.uniforms(KEYS[4:5], np.array([4]), 3).tolist() == lanes[4:5].tolist()
    assert lanes.shape == (1000, 3)


def test_seeds_keys_steps_and_lanes_give_other_numbers() -> None:
    numbers = [KeyedDraws(seed).uniforms(KEYS, steps_of(step), 4) for seed in (0, 1, 2**40) for step in (0, 1, 10**9)]
    assert len(np.unique(np.concatenate(numbers))) == 9 * 4 * 1000
    assert KeyedDraws(None).uniform(KEYS, steps_of(0)).tolist() != KeyedDraws(None).uniform(KEYS, steps_of(0)).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_are_even_within_an_episode_and_among_episodes_and_do_not_follow_from_each_other(seed: int) -> None:
    draws = KeyedDraws(seed)
    count = 100_000
    one_episode = draws.uniform(np.full(count, KEYS[seed], np.uint64), np.arange(count))
    small_keys = draws.uniform(np.arange(count, dtype=np.uint64), steps_of(3, count))
    for numbers in (one_episode, small_keys, draws.uniforms(KEYS, steps_of(5), 100).ravel()):
        assert 0.0 < numbers.min() < 1e-3
        assert 1 - 1e-3 < numbers.max() < 1.0
        bins = np.bincount((numbers * 100).astype(int), minlength=100)
        assert ((bins - count / 100) ** 2 / (count / 100)).sum() < 160, "chi-square with 99 degrees of freedom: one in 10,000"
        for lag in (1, 2, 7):
            assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) < 0.013
    lanes = draws.uniforms(np.repeat(KEYS, 100), np.tile(np.arange(100), 1000), 2)
    assert abs(np.corrcoef(lanes[:, 0], lanes[:, 1])[0, 1]) < 0.013
