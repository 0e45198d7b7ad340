"""Weights that an env runner asks RLlib's state server for, a real one: newer, older, late, the same, and none because it is gone."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_runner_state_server import EnvRunnerStateServer
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.server.runner.weights_pull import WeightsPull
from tests.server.core_harness import ppo_config
from tests.services import wait_until

pytestmark = [pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(300)]


class Server:
    """The state server and what RLlib pushes to it."""

    def __init__(self) -> None:
        self.handle = ray.remote(num_cpus=0, max_concurrency=2)(EnvRunnerStateServer).remote()

    def push(self, version: int, weights: Any) -> None:
        ray.get(self.handle.push.remote({COMPONENT_RL_MODULE: ray.put(weights), WEIGHTS_SEQ_NO: version, "more": 1}))


@pytest.fixture(scope="module")
def server(private_ray: None) -> Server:
    """One for all tests, for an actor takes seconds to start."""
    return Server()


@pytest.mark.process
def test_at_first_a_server_that_has_nothing_changes_nothing(server: Server) -> None:
    assert WeightsPull().newest(server.handle) is None
    assert not WeightsPull().group_stops(server.handle)


def test_each_push_is_taken_once_whatever_its_version(server: Server) -> None:
    pull = WeightsPull()
    for version, weights in [(1, "one"), (2, "two"), (2, "another two")]:
        server.push(version, weights)
        state = pull.newest(server.handle)
        assert state == {COMPONENT_RL_MODULE: weights, WEIGHTS_SEQ_NO: version, "more": 1}
        assert pull.newest(server.handle) is None


def versions_taken(server: Server, pull: WeightsPull, *pushed: int) -> list[int]:
    taken = []
    for version in pushed:
        server.push(version, f"weights {version}")
        if (state := pull.newest(server.handle)) is not None:
            taken.append(state[WEIGHTS_SEQ_NO])
    return taken


def test_after_a_restore_the_states_from_before_it_come_too_late(server: Server) -> None:
    pull = WeightsPull()
    assert versions_taken(server, pull, 8, 9) == [8, 9]
    pull.note_restored(before=9, version=5)
    assert versions_taken(server, pull, 5, 10, 11, 6, 7, 8, 9, 10, 11) == [5, 6, 7, 8, 9, 10, 11]


def test_a_restored_newer_checkpoint_is_not_undone_either(server: Server) -> None:
    pull = WeightsPull()
    assert versions_taken(server, pull, 4) == [4]
    pull.note_restored(before=4, version=9)
    assert versions_taken(server, pull, 9, 5, 6, 10, 11) == [9, 10, 11]


def test_versions_that_can_not_be_told_apart_are_taken_in_the_end(server: Server) -> None:
    pull = WeightsPull()
    assert versions_taken(server, pull, 5) == [5]
    pull.note_restored(before=5, version=4)
    assert versions_taken(server, pull, 5, 6, 7, 8, 9, 10) == [9, 10], "5 to 8 may be from before the restore"


def test_the_drivers_runner_replaces_the_state_and_can_stop_the_others(server: Server) -> None:
    drivers, others = WeightsPull(), WeightsPull()
    server.push(9, "newer")
    drivers.replace(server.handle, {COMPONENT_RL_MODULE: "older"}, 5)  # nobody waits for the actor's two threads, here and below
    wait_until(lambda: ray.get(server.handle.get_version.remote()) == 5, "the state of the driver's runner")
    assert others.newest(server.handle) == {COMPONENT_RL_MODULE: "older", WEIGHTS_SEQ_NO: 5}
    assert not others.group_stops(server.handle)
    drivers.stop_group(server.handle)
    wait_until(lambda: others.group_stops(server.handle), "the word to stop")
    assert others.newest(server.handle) is None


def test_at_last_a_runner_whose_state_server_is_gone_serves_on_and_says_so_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    config = ppo_config().copy(copy_frozen=False)
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=0.01))
    config.environment(env_config=serving.to_env_config()).env_runners(num_env_runners=0)
    runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
    try:
        runner._env_runner_state_server = server.handle
        server.push(3, runner.module.get_state())
        runner.sample()
        assert runner.get_state()[WEIGHTS_SEQ_NO] == 3
        ray.kill(server.handle)
        with caplog.at_level(logging.WARNING, "policyserver.server"):
            for _ in range(3):
                assert list(runner.sample_get_state_and_metrics()[1])
        assert len([record for record in caplog.records if "can't be pulled" in record.message]) == 1
        assert runner.get_state()[WEIGHTS_SEQ_NO] == 3
    finally:
        runner.stop()
