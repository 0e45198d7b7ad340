"""An algorithm with a replay buffer makes as many updates for a step as it was told to, however its steps come."""

from __future__ import annotations

from typing import Any

import pytest
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights

from tests.server.live_algorithm import Crowd, live_algorithm

pytestmark = [
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]  # RLlib's own warnings


def updates_for_a_step(algorithm: Any, address: str, episodes: int, pause_s: float, least_steps: int) -> tuple[float, float]:
    """Train on so many steps; return how many updates were made for each, and how many the settings say."""
    updates = 0
    update = algorithm.learner_group.update

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal updates
        updates += 1
        return update(*args, **kwargs)

    algorithm.learner_group.update = counted
    config = algorithm.config
    sampled, told = calculate_rr_weights(config)
    steps = 0
    with Crowd(address, episodes, pause_s) as _:
        while steps < least_steps:
            steps = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
    warm_up = config.num_steps_sampled_before_learning_starts
    return updates / (steps - warm_up), told / (sampled * config.rollout_fragment_length)


@pytest.mark.slow
@pytest.mark.parametrize(("episodes", "segment_steps"), [(50, 8), (3, 64)])
def test_the_ratio_of_updates_to_steps_holds_whatever_a_segments_length(episodes: int, segment_steps: int) -> None:
    with live_algorithm("DQN", num_env_runners=0, segment_steps=segment_steps) as (algorithm, address):
        made, told = updates_for_a_step(algorithm, address, episodes, 0.0, 3000)
    assert made == pytest.approx(told, rel=0.03)


@pytest.mark.slow
def test_the_ratio_of_updates_to_steps_holds_with_clients_slower_than_a_sample_waits() -> None:
    with live_algorithm("DQN", num_env_runners=0, sample_wait_s=0.05) as (algorithm, address):
        made, told = updates_for_a_step(algorithm, address, 2, 0.01, 1000)
    assert made == pytest.approx(told, rel=0.1), "the fragment before learning starts is a tenth"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "episodes", "segment_steps", "pause_s"),
    [
        *(pytest.param("DQN", *case, marks=pytest.mark.thorough) for case in ((8, None, 0.0), (50, 64, 0.0), (3, 8, 0.0), (8, None, 0.01))),
        ("SAC", 8, None, 0.0),
    ],
)
def test_the_ratio_of_updates_to_steps_holds_over_ten_thousand_steps(
    name: str, episodes: int, segment_steps: int | None, pause_s: float
) -> None:
    options: dict[str, Any] = {} if segment_steps is None else {"segment_steps": segment_steps}
    with live_algorithm(name, num_env_runners=0, **options) as (algorithm, address):
        made, told = updates_for_a_step(algorithm, address, episodes, pause_s, 10_000)
    assert made == pytest.approx(told, rel=0.02)
