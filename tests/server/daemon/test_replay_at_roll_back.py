"""A replay buffer is kept at a roll-back, or emptied, as `rollback.keep_replay` says, and learning goes on either way."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserver.server.daemon.checkpoints import Checkpoint
from policyserver.server.daemon.roll_back import RollBack, follow
from policyserver.server.processes.training_report import Progress
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("name", ["DQN", "SAC"])
def test_a_replay_buffer_is_kept_or_emptied(name: str, tmp_path: Path) -> None:
    with live_algorithm(name) as (algorithm, address), Crowd(address):
        train_until(algorithm, 3)
        algorithm.save_to_path(str(tmp_path))
        train_until(algorithm, learner_version(algorithm) + 5)
        order = RollBack(Checkpoint(tmp_path, Progress()), 0, 1)

        held = algorithm.local_replay_buffer.get_num_timesteps()
        assert held >= 64
        version = learner_version(algorithm) + 1
        follow(algorithm, order, version, keep_replay=True)
        assert learner_version(algorithm) == version
        assert algorithm.local_replay_buffer.get_num_timesteps() == held
        train_until(algorithm, version + 2)
        assert algorithm.local_replay_buffer.get_num_timesteps() > held, "it goes on filling"

        follow(algorithm, order, learner_version(algorithm) + 1, keep_replay=False)
        assert algorithm.local_replay_buffer.get_num_timesteps() == 0
        version = learner_version(algorithm)
        train_until(algorithm, version + 2)
        assert algorithm.local_replay_buffer.get_num_timesteps() > 0
