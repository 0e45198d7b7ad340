"""Each algorithm learns over gRPC, as RLlib does by itself with the same settings; docs/algorithms.md has both sides' figures."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import over_grpc
from benchmarks.learning.cases import SPACES, case_of
from policyserver.monitoring.store.reader import StoreReader
from tests.learning.reach import REACH, REACH_SPACES

SEED = 0
"""The first of those in docs/algorithms.md, where none is left out."""
_SAC, _EARLIER = case_of("SAC").tables, {"num_steps_sampled_before_learning_starts": 300}
SOONER: dict[str, dict[str, Any]] = {
    "APPO": {"bar": 150.0},
    "IMPALA": {"bar": 150.0},
    "DQN": {"bar": 150.0},
    "SAC": {"environment": REACH, "bar": -7.5, "window": 16, "tables": {**_SAC, "training": {**_SAC["training"], **_EARLIER}}},
}
"""What tells learning from none sooner than the cases of `make algorithms` do: a random policy has 22 in CartPole and -10.7 in Reach,
where the mean of sixteen episodes has a standard deviation of 0.5."""


@pytest.mark.slow
@pytest.mark.timeout(1000)
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
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("name", ["APPO", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("IMPALA", "DQN", "SAC"))])
def test_an_algorithm_learns_over_grpc(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO does so in tests/compliance/test_policy_client_server.py, for as long as RLlib's example."""
    monkeypatch.setitem(SPACES, REACH, REACH_SPACES)
    outcome = over_grpc.learn(replace(case_of(name), **SOONER.get(name, {})), SEED, tmp_path)
    assert outcome.reached, outcome
