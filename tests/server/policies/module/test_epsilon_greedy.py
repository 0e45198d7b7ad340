"""DQN's exploration: its schedule's share of the actions by chance, drawn by keys."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.common.acting.chances import epsilon_greedy
from policyserver.server.policies.policy import DrawKeys
from tests.server.drawing_policies import policy_of

OBSERVATIONS = np.random.default_rng(4).normal(size=(1, 10)).astype(np.float32)
UNIFORMS = np.random.default_rng(0).random((9000, 2))


def test_dqn_leaves_the_share_to_chance_that_its_schedule_says() -> None:
    policy = policy_of("epsilon-greedy", "torch")
    observations = np.repeat(OBSERVATIONS, 10_000, axis=0)
    out, _ = policy._pass.run([observations], [])
    best = int(out["actions"][0])
    by = DrawKeys(np.random.default_rng(0).integers(0, 2**63, 10_000, np.uint64), np.zeros(10_000, np.int64))
    shares = []
    for lifetime in (0, 5_000, 10_000, 10**6):  # RLlib's default goes from 1 to 0.05 within 10,000 steps
        policy.count_steps(lifetime)
        counts = np.bincount(policy._choose(out, by, np.empty(0, np.int64), np.empty(0, np.int64)).actions, minlength=5)
        assert np.ptp(np.delete(counts, best)) < 200, "chance prefers none of the others"
        shares.append(1 - counts[best] / 10_000)
    np.testing.assert_allclose(shares, [0.8, 0.42, 0.04, 0.04], atol=0.02)


def test_what_is_impossible_is_never_taken_by_chance() -> None:
    q_values = np.tile(np.array([1.0, -np.inf, 2.0, -1.0], np.float32), (9000, 1))
    counts = np.bincount(epsilon_greedy(q_values, 1.0, UNIFORMS), minlength=4)
    assert counts[1] == 0
    assert np.abs(counts[[0, 2, 3]] - 3000).max() < 250
    assert set(epsilon_greedy(q_values, 0.0, UNIFORMS).tolist()) == {2}
    assert set(epsilon_greedy(np.zeros((9000, 2), np.float32), 1.0, UNIFORMS).tolist()) == {0}, "without a choice, the best"


def test_values_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="received NaN"):
        epsilon_greedy(np.array([[0.5, np.nan]]), 0.5, UNIFORMS[:1])
