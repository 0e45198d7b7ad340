"""With learners in other processes, the episodes of APPO and IMPALA don't come into the daemon's process; those of PPO do."""

from __future__ import annotations

from typing import Any

import pytest

from policyserver.server.episodes import segments
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ray.data's own, as RLlib shards a batch
]


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of episodes that came into this process, each time some did: what travels is named by this function."""
    numbers: list[int] = []
    made = segments.episodes_of

    def counted(blocks: Any) -> Any:
        episodes = made(blocks)
        numbers.append(len(episodes))
        return episodes

    monkeypatch.setattr(segments, "episodes_of", counted)
    return numbers


@pytest.mark.parametrize("aggregators", [0, 1])
@pytest.mark.parametrize("name", ["APPO", "IMPALA"])
def test_they_go_from_the_actor_to_the_learner_with_and_without_aggregators(name: str, aggregators: int, came: list[int]) -> None:
    learners = {"num_learners": 1, "num_aggregator_actors_per_learner": aggregators}
    with live_algorithm(name, learners=learners) as (algorithm, address), Crowd(address) as crowd:
        assert algorithm.config.num_aggregator_actors_per_learner == aggregators
        train_until(algorithm, 5)
        crowd.wait_for_version(1)
        assert learner_version(algorithm) >= 5
    assert came == []


def test_those_of_ppo_come_through_the_daemon(came: list[int]) -> None:
    with live_algorithm("PPO", learners={"num_learners": 1}) as (algorithm, address), Crowd(address):
        train_until(algorithm, 2)
    assert sum(came) > 0
