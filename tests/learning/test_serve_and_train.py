"""Each algorithm serves, trains on what it served and serves what it learned, in short.

PPO and APPO do the same in tests/server/daemon/test_restore_older.py; that they learn something is shown by the slow tests beside this one.
"""

from __future__ import annotations

import pytest

from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]  # RLlib's own warnings


@pytest.mark.parametrize(("name", "num_env_runners"), [pytest.param("IMPALA", 1, marks=pytest.mark.slow), ("DQN", 0), ("SAC", 0)])
def test_an_algorithm_trains_on_what_it_serves_and_serves_what_it_learned(name: str, num_env_runners: int) -> None:
    with live_algorithm(name, num_env_runners=num_env_runners) as (algorithm, address):
        with Crowd(address) as crowd:
            train_until(algorithm, 6)
            crowd.wait_for_version(2)
            result = algorithm.train()
        assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 64
        assert learner_version(algorithm) >= 6
        assert crowd.versions == sorted(crowd.versions), "policy versions only go up"
        assert len(crowd.versions) >= 2
