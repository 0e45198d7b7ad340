"""A serving runner takes its part of a batch, and lists all addresses, as the number of runners changes."""

from __future__ import annotations

import pickle

import pytest

from policyserver.client import PolicyClient
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.actor_addresses import ActorAddresses
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.server.runner.learner_demand import learner_demand
from tests.server.core_harness import observation, ppo_config
from tests.server.serving_loop_harness import CLIENT


def steps_of(samples: object) -> int:
    return sum(map(len, pickle.loads(pickle.dumps(samples))))  # as they arrive in the driver


@pytest.mark.long
def test_a_runner_gives_its_part_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExternalEnvRunner, "_prepare_process", staticmethod(lambda: None))
    monkeypatch.setattr("policyserver.server.runner.env_runner.log_to", lambda *_: None)
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=0.2, batches_ahead=100.0))
    config = ppo_config().copy(copy_frozen=False)
    config.environment(env_config=serving.to_env_config()).env_runners(num_env_runners=1)
    runner = ExternalEnvRunner(config=config, worker_index=1, num_workers=1)
    try:
        with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
            episode = client.start_episode()
            for number in range(130):
                client.get_action(episode, observation(number % 90))
            client.end_episode(episode, observation())
        assert steps_of(runner.sample()) == 0, "the batch has 256 steps"
        runner.be_one_of(2)
        assert steps_of(runner.sample()) == 128
        demands = [learner_demand(runner.config, index, 1.0) for index in (1, 2)]
        assert [(demand.fragment_steps, demand.most_fragment_steps) for demand in demands] == [(128, 256)] * 2
    finally:
        runner.stop()


def test_the_addresses_of_all_follow_from_their_number_or_are_told() -> None:
    addresses = ActorAddresses(ServingConfig(ListenConfig("127.0.0.1:9900")), 2, 2)
    assert (addresses.own(), addresses.listed()) == ("127.0.0.1:9901", ["127.0.0.1:9900", "127.0.0.1:9901"])
    addresses.take({"127.0.0.1:9900": 3})
    addresses.actors = 3
    assert addresses.listed() == [f"127.0.0.1:{port}" for port in (9900, 9901, 9902)]
    assert addresses.loads() == {"127.0.0.1:9900": 3}
    chosen = ActorAddresses(ServingConfig(ListenConfig("127.0.0.1:0")), 1, 2)
    chosen.here = lambda: ["127.0.0.1:15000"]
    assert (chosen.listed(), chosen.planned()) == (["127.0.0.1:15000"], [])


def test_remote_instances_listen_on_ports_in_a_row() -> None:
    def address(configured: str, index: int) -> str:
        return ActorAddresses(ServingConfig(ListenConfig(configured)), 0, 2).own(index)

    assert [address("127.0.0.1:9900", index) for index in (0, 1, 3)] == ["127.0.0.1:9900", "127.0.0.1:9900", "127.0.0.1:9902"]
    assert address("127.0.0.1:0", 3) == "127.0.0.1:0"
    assert [address("unix:/run/p", index) for index in (1, 2)] == ["unix:/run/p", "unix:/run/p.1"]
