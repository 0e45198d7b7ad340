"""Each algorithm learns over gRPC what RLlib learns by itself with the same settings; docs/algorithms.md has both sides' figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learning import over_grpc
from tests.learning.cases import case_of

SEED = 0
"""The first of those in docs/algorithms.md, where none is left out."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["PPO", "APPO", "IMPALA", "DQN", "SAC"])
def test_an_algorithm_learns_over_grpc(name: str, tmp_path: Path) -> None:
    outcome = over_grpc.learn(case_of(name), SEED, tmp_path)
    assert outcome.reached, outcome
