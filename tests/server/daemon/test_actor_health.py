"""A serving actor that falls silent is waited for no longer: learning goes on at once, from what the others have collected."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from policyserver.server.daemon import actor_health
from policyserver.server.daemon.actor_health import ActorHealth
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(600)]

SILENT_AFTER_S = 2.0
AT_ONCE_S = 30.0
"""More than an update takes on a machine that stands still for some seconds."""
FOR_LONG_S = 120.0
"""What waits for a silent actor waits for so long here, or for RLlib's minute."""
BATCH, SHARE = 128, 64


@pytest.fixture(autouse=True)
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is waited for takes longer than all else."""
    monkeypatch.setattr(actor_health, "_PROBE_S", FOR_LONG_S)


def two_actors() -> AbstractContextManager[tuple[Any, str]]:
    return live_algorithm("PPO", num_env_runners=2, fault_tolerance={"env_runner_health_probe_timeout_s": FOR_LONG_S})


@contextlib.contextmanager
def stopped(algorithm: Any, index: int) -> Iterator[None]:
    """Stop an env runner's process, as a machine that can't be reached seems to be, for as long as the block runs."""
    (process,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False, remote_worker_ids=[index]
    )
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def trained(algorithm: Any) -> tuple[int, float]:
    """Train once; returns the steps of the batch and the seconds that took."""
    began_s = time.monotonic()
    result = algorithm.train()
    return int(result["env_runners"]["num_env_steps_sampled"]), time.monotonic() - began_s


def test_a_batch_is_learned_from_without_the_share_of_an_actor_that_falls_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with two_actors() as (algorithm, address):
        health = ActorHealth()
        health.watch(algorithm)
        with Crowd(address), stopped(algorithm, 2):
            noticing = threading.Timer(SILENT_AFTER_S, health.note, (2, True))
            noticing.start()
            steps, seconds = trained(algorithm)
            assert health.silent == [2], "it is waited for until then"
            noticing.join()
            assert learner_version(algorithm) == 1
            assert SHARE <= steps < BATCH, "the share of the one that answers"
            assert seconds <= SILENT_AFTER_S + AT_ONCE_S
            assert f"a batch of {steps} steps is learned from, without those of serving actors [2]" in caplog.text
            assert "No samples returned" not in caplog.text, "RLlib's advice is for something else"
            for version in (2, 3):
                steps, seconds = trained(algorithm)
                assert learner_version(algorithm) == version
                assert steps >= BATCH, "whole batches, of the one that answers"
                assert seconds <= AT_ONCE_S, "nothing is asked of the silent one"
            health.note(2, False)  # by the link, whose connection may heal before Ray's
            for _ in range(2):
                _, seconds = trained(algorithm)
                assert seconds <= AT_ONCE_S, "its answer is not waited for"
            assert algorithm.env_runner_group.num_healthy_remote_workers() == 1
        with Crowd(address):
            deadline = time.monotonic() + 180.0
            while algorithm.env_runner_group.num_healthy_remote_workers() < 2:
                assert time.monotonic() < deadline
                algorithm.env_runner_group.probe_unhealthy_env_runners()
                time.sleep(0.01)


def test_an_actor_that_falls_silent_during_an_update_is_left_out_of_the_next_batch() -> None:
    with two_actors() as (algorithm, address):
        health = ActorHealth()
        health.watch(algorithm)
        group = algorithm.learner_group
        update = group.update

        def update_and_fall_silent(*arguments: Any, **named: Any) -> Any:
            results = update(*arguments, **named)
            health.note(2, True)
            return results

        with Crowd(address):
            noticing = threading.Timer(SILENT_AFTER_S, health.note, (2, True))
            with stopped(algorithm, 2):
                noticing.start()
                trained(algorithm)  # as in the test above
                noticing.join()
                group.update = update_and_fall_silent
                steps, _ = trained(algorithm)
                assert steps >= BATCH
                group.update = update
                steps, _ = trained(algorithm)
                assert SHARE <= steps < BATCH
