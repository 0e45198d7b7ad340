"""A serving actor that is back is sampled from in the batch that is being collected, not only in the next one."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from policyserver.server.daemon.returned_actors import ReturnedActors
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(300)]

BACK_AFTER_S = 8.0
"""More than the 5 s for which RLlib's probe waits before a batch."""
AT_ONCE_S = 30.0
"""Less than the minute for which RLlib waits for steps."""


def test_a_batch_is_filled_by_an_actor_that_comes_back_while_it_is_collected() -> None:
    with live_algorithm("PPO", num_env_runners=2) as (algorithm, _):
        ReturnedActors(algorithm)
        group = algorithm.env_runner_group
        (second,) = group.foreach_env_runner(lambda runner: runner.addresses(), local_env_runner=False)[1]
        (process,) = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False, remote_worker_ids=[2])
        with Crowd(second):  # nobody plays at the first one, so no batch is full without the second
            os.kill(process, signal.SIGSTOP)
            returning = threading.Timer(BACK_AFTER_S, os.kill, (process, signal.SIGCONT))
            group._worker_manager.set_actor_state(2, False)
            began_s = time.monotonic()
            returning.start()
            try:
                algorithm.train()
                seconds = time.monotonic() - began_s
            finally:
                returning.join()
        assert learner_version(algorithm) == 1
        assert BACK_AFTER_S < seconds < BACK_AFTER_S + AT_ONCE_S
        assert group.num_healthy_remote_workers() == 2
