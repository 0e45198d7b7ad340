"""A restore that a learner in another process could not follow is refused: RLlib itself goes on with what the learner had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.roll_back import restore_under
from policyserver.server.daemon.served_state import served_state, weights_sha256
from policyserver.server.processes.training_report import Progress
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ray.data's own, as RLlib shards a batch
]


def read_nothing(learner: Any) -> None:
    """Have a restore leave a learner as it is, as an error does whose answer RLlib drops."""
    learner.restore_from_path = lambda *_, **__: None


@pytest.mark.parametrize("learners", [1, 2])
def test_a_learner_that_has_other_weights_after_it_is_told_of(learners: int, tmp_path: Path) -> None:
    with live_algorithm("PPO", learners={"num_learners": learners}) as (algorithm, address), Crowd(address):
        train_until(algorithm, 1)
        algorithm.save_to_path(str(tmp_path / "one"))
        one = Checkpoint(tmp_path / "one", Progress(weights_seq_no=1), weights_sha256(served_state(algorithm)))
        train_until(algorithm, 3)
        restore_under(algorithm, one, 5)
        assert weights_sha256(served_state(algorithm)) == one.weights_sha256
        train_until(algorithm, 7)
        last = algorithm.learner_group._worker_manager.healthy_actor_ids()[-1]
        algorithm.learner_group.foreach_learner(read_nothing, remote_actor_ids=[last])
        with pytest.raises(CheckpointError, match=rf"expected all {learners} learners to have its weights after the restore"):
            restore_under(algorithm, one, 9)
        assert learner_version(algorithm) == 9, "it is asked again under this version"
