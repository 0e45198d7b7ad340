"""A learner in another process that fails once learns on, as the daemon's own does; one that is dead is told of in words."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from policyserver.server.daemon.learner_calls import LearnerCallError
from policyserver.server.daemon.remote_learners import keep_in_service
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ray.data's own, as RLlib shards a batch
]


def fail_once(learner: Any) -> None:
    """Have the next update fail."""
    update = learner.update

    def failing(**_: Any) -> None:
        learner.update = update
        raise ValueError("a batch that can't be learned from")

    learner.update = failing


def test_one_that_fails_is_called_again_and_one_that_is_dead_is_not() -> None:
    with live_algorithm("PPO", learners={"num_learners": 1}) as (algorithm, address), Crowd(address):
        group = algorithm.learner_group
        keep_in_service(group)
        train_until(algorithm, 1)
        group.foreach_learner(fail_once)
        with pytest.raises(ValueError, match="can't be learned from"):
            algorithm.train()
        train_until(algorithm, learner_version(algorithm) + 2)
        ray.kill(group._workers[0])
        with pytest.raises((LearnerCallError, ray.exceptions.RayActorError)):
            algorithm.train()
        with pytest.raises(LearnerCallError, match=r"expected 1 learners, 1 of them do not answer"):
            algorithm.train()
