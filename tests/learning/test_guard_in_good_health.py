"""The guard on learning lets healthy updates through, with a distance; `python -m benchmarks.learning.guard` does a thousand."""

from __future__ import annotations

import pytest

from benchmarks.learning.cases import case_of
from benchmarks.learning.guard import healthy_run
from policyserver.server.config.guard_config import GuardConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_it_does_not_fire(name: str) -> None:
    run = healthy_run(case_of(name), 0, 30)
    assert run.fired == []
    assert run.updates >= 30
    bounds = GuardConfig()
    assert bounds.max_kl is not None
    assert bounds.max_move is not None
    assert 0 < run.largest["kl"] < bounds.max_kl / 4
    assert 0 < run.largest["move"] < bounds.max_move / 4
