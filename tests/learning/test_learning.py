"""Each algorithm learns over gRPC, as RLlib does by itself with the same settings; docs/algorithms.md has both sides' figures."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.learning import over_grpc
from benchmarks.learning.cases import case_of
from policyserver.monitoring.store.reader import StoreReader

SEED = 0
"""The first of those in docs/algorithms.md, where none is left out."""
SOONER = {"APPO": 150.0, "IMPALA": 150.0, "DQN": 150.0, "SAC": -700.0}
"""Mean returns that tell learning from none, on the way to those that `make algorithms` waits for: a random policy has 22 in CartPole, and
-1,230 in Pendulum, where the mean of eight episodes is hardly ever above -950."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ppo_learns_with_the_shipped_defaults_from_no_more_steps_than_rllib_alone(tmp_path: Path) -> None:
    """The short form of `make algorithms`: RLlib alone has a mean return of 150 after 12,000 to 20,000 steps.

    What it trains on is what RLlib's own runner gives it: the wanted steps, at most one more for each open episode, of the newest policy.
    """
    case = replace(case_of("PPO"), bar=150.0, window=30, max_steps=26_000)
    outcome = over_grpc.learn(case, SEED, tmp_path)
    assert outcome.reached, outcome
    wanted = case.tables["training"]["train_batch_size_per_learner"]
    with contextlib.closing(StoreReader(tmp_path / "run" / "store.sqlite")) as reader:
        trained = reader.newest("train", "run")
    assert len(trained) >= 5
    for point in trained:
        assert wanted <= point["steps"] <= wanted + case.copies, point
        assert (point["staleness_mean"], point["steps_dropped"]) == (0.0, 0), point


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["PPO", "APPO", "IMPALA", "DQN", "SAC"])
def test_an_algorithm_learns_over_grpc(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    outcome = over_grpc.learn(replace(case, bar=SOONER.get(name, case.bar)), SEED, tmp_path)
    assert outcome.reached, outcome
