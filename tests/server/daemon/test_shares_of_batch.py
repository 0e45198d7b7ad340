"""A batch does without the share of an actor that fell silent, and not without that of one that is back."""

from __future__ import annotations

from typing import Any

import pytest

from policyserver.server.daemon.shares_of_batch import SharesOfBatch
from tests.server.daemon.rllib_manager import Manager, algorithm_of

SHARE = {"num_env_steps_sampled": 32}


class Collecting:
    """RLlib collecting a batch of 64 steps from two actors, of which those in service give their shares at each call."""

    def __init__(self) -> None:
        self.manager = Manager()
        self.algorithm = algorithm_of(self.manager)
        self.algorithm.env_runner_group.foreach_env_runner = lambda func: [([], SHARE) for _ in self.manager.healthy_actor_ids()]
        self.algorithm.env_runner_group.num_remote_workers = lambda: 2
        self.shares = SharesOfBatch(self.algorithm)
        self.algorithm.training_step()

    def sample(self) -> int:
        """Ask once; returns how many actors gave steps."""
        sampled: list[Any] = self.algorithm.env_runner_group.foreach_env_runner("sample")
        return len(sampled)

    def fall_silent(self, index: int) -> None:
        self.shares.leave_out(index)
        self.manager.set_actor_state(index, False)


@pytest.fixture
def collecting() -> Collecting:
    return Collecting()


def test_the_share_of_a_silent_actor_is_not_waited_for(collecting: Collecting) -> None:
    collecting.fall_silent(2)
    assert collecting.sample() == 1
    assert collecting.sample() == 0, "RLlib learns from what it has"


def test_an_actor_that_is_back_is_sampled_from_again_in_the_same_batch(collecting: Collecting) -> None:
    collecting.fall_silent(2)
    assert collecting.sample() == 1
    collecting.manager.set_actor_state(2, True)
    assert collecting.sample() == 2
