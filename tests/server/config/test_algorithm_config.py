"""The configuration file becomes RLlib's configuration of each algorithm, and what RLlib does not know is refused by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config, check_action_space, cpu_tickets
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.daemon.remote_learners import learner_resources
from policyserver.server.policies.connectors.policy_choice import _carried
from policyserver.server.runner.env_runner import ExternalEnvRunner


def build(**overrides: Any) -> Any:
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    return algorithm_config(load(ServerConfig, None, values), ExternalEnvRunner)


def test_the_default_is_one_serving_actor_that_restarts_at_once_and_a_learner_in_the_daemon() -> None:
    config = build()
    assert isinstance(config, PPOConfig)
    assert config.env_runner_cls is ExternalEnvRunner
    assert (config.num_env_runners, config.num_learners) == (1, 0)
    assert config.restart_failed_env_runners
    assert config.delay_between_env_runner_restarts_s == 0.0
    assert config.observation_space == ServerConfig().spaces.observation_space


def test_tables_reach_the_methods_of_the_same_name() -> None:
    config = build(
        algorithm__training={"lr": 1e-3, "clip_param": 0.1},
        algorithm__rl_module={"model_config": {"fcnet_hiddens": [8]}},
        algorithm__env_runners={"num_env_runners": 3},
        algorithm__learners={"learner_class": "python:ray.rllib.algorithms.ppo.torch.ppo_torch_learner.PPOTorchLearner"},
    )
    assert (config.lr, config.clip_param, config.minibatch_size) == (1e-3, 0.1, 512)
    assert config.model_config["fcnet_hiddens"] == [8]
    assert not config.model_config["use_lstm"]
    assert config.num_env_runners == 3
    assert config.learner_class is PPOTorchLearner
    assert cpu_tickets(config) == 3, "for the actors; the driver takes none"


def test_learners_elsewhere_are_asked_for_by_rllibs_own_settings() -> None:
    config = build(
        ray__address="auto",
        listen__address="node:9900",
        ray__learner_resources={"learner": 1},
        algorithm__learners={
            "num_learners": 2,
            "num_cpus_per_learner": 3,
            "num_gpus_per_learner": 0.5,
            "num_aggregator_actors_per_learner": 1,
        },
    )
    assert (config.num_learners, config.num_cpus_per_learner, config.num_gpus_per_learner) == (2, 3, 0.5)
    assert config.num_aggregator_actors_per_learner == 1
    assert config.custom_resources_per_learner == {"learner": 1}
    assert learner_resources(config) == {"CPU": 3.0, "GPU": 0.5, "learner": 1}
    assert cpu_tickets(config) == 2 * 3 + 1 + 2
    in_the_daemon = build(algorithm__name="APPO", algorithm__learners={"num_aggregator_actors_per_learner": 3})
    assert cpu_tickets(in_the_daemon) == 1 + 3, "RLlib makes them for a learner in the daemon, too"
    assert learner_resources(build(algorithm__learners={"num_learners": 1})) == {"CPU": 1.0}
    with_gpu = build(algorithm__learners={"num_learners": 1, "num_gpus_per_learner": 1})
    assert learner_resources(with_gpu) == {"GPU": 1.0}, "as RLlib has it"
    assert cpu_tickets(with_gpu) == 1


def test_callbacks_of_the_users_are_called_and_restarted_actors_are_opened_all_the_same() -> None:
    here = "python:tests.server.config.test_algorithm_config"
    config = build(algorithm__callbacks={"callbacks_class": f"{here}.Returns", "on_env_runners_recreated": f"{here}.note"})
    assert config.callbacks_class is Returns
    opens, own = config.callbacks_on_env_runners_recreated
    assert (opens, own) == (build().callbacks_on_env_runners_recreated, note)
    with pytest.raises(SettingsError, match=r"algorithm.callbacks.on_trian_result.*unknown argument"):
        build(algorithm__callbacks={"on_trian_result": f"{here}.note"})


class Returns(RLlibCallback):  # type: ignore[misc]
    pass


def note(**_: Any) -> None:
    pass


@pytest.mark.parametrize("name", ["PPO", "APPO", "IMPALA", "DQN", "SAC"])
def test_every_algorithm_builds_from_its_name_alone(name: str) -> None:
    assert build(algorithm__name=name).algo_class.__name__ == name


@pytest.mark.parametrize(("name", "batch", "updates"), [("DQN", 32, 8), ("SAC", 256, 32)])
def test_a_fragment_is_followed_by_as_many_updates_as_belong_to_it(name: str, batch: int, updates: int) -> None:
    """RLlib's default is a call of `sample()` for every single step."""
    config = build(algorithm__name=name)
    assert config.total_train_batch_size == batch
    assert config.get_rollout_fragment_length() == 32
    assert calculate_rr_weights(config) == [1, updates]
    assert config.replay_buffer_config == {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 100_000, "alpha": 0.6, "beta": 0.4}


@pytest.mark.parametrize(("n_step", "burn_in_len", "carried"), [(1, 0, 0), (3, 0, 2), ([2, 5], 0, 3), (1, 4, 4)])
def test_returns_of_several_steps_may_be_a_range_and_decide_how_long_a_segment_is(n_step: Any, burn_in_len: int, carried: int) -> None:
    fragment = {"rollout_fragment_length": "auto"} if isinstance(n_step, list) else {}  # RLlib can't compare a number with a range
    training = {"n_step": n_step, "burn_in_len": burn_in_len}
    config = build(algorithm__name="DQN", algorithm__training=training, algorithm__env_runners=fragment)
    assert config.n_step == (tuple(n_step) if isinstance(n_step, list) else n_step)
    assert _carried(config) == carried
    assert _carried(build()) == 0


@pytest.mark.parametrize("name", ["APPO", "IMPALA"])
def test_an_algorithm_that_does_not_wait_for_its_env_runners_waits_a_little(name: str) -> None:
    config = build(algorithm__name=name)
    assert config.timeout_s_sampler_manager > 0, "0 is a loop without a pause"
    assert config.total_train_batch_size % config.get_rollout_fragment_length() == 0
    assert config.use_env_runner_state_server


def test_the_serving_configuration_travels_beside_the_users_env_config() -> None:
    table = {"env": "python:examples.trading_server.TradingServing", "env_config": {"mine": 1}}
    config = algorithm_config(load(ServerConfig, None, {"algorithm.environment": table}), ExternalEnvRunner, driver_link=Path("link"))
    assert config.env_config["mine"] == 1
    assert ServingConfig.from_env_config(config.env_config).driver_link == Path("link")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("algorithm.training.lrr", 1, "unknown argument of PPOConfig.training"),
        ("algorithm.training.num_sgd_iter", 1, "unknown argument"),
        ("algorithm.rl_module.model_config", {"lstm": True}, "unknown field of RLlib's DefaultModelConfig"),
        ("algorithm.rl_module.model_config", 3, "expected a table"),
        ("algorithm.learners.learner_class", "python:nowhere.Learner", "expected an importable object"),
        ("algorithm.training.lr", "fast", "expected a number, such as RLlib's"),
        ("algorithm.training.gamma", "x", "expected a number, such as RLlib's 0.99, received 'x'"),
        ("algorithm.training.train_batch_size", 1000, "expected train_batch_size_per_learner instead"),
        ("algorithm.training.model", {"fcnet_hiddens": [8]}, r"expected the table \[algorithm.rl_module.model_config\] instead"),
        ("algorithm.training.minibatch_size", 5000, "RLlib refuses"),
    ],
)
def test_what_rllib_does_not_know_is_refused_by_its_key(key: str, value: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        algorithm_config(load(ServerConfig, None, {key: value}), ExternalEnvRunner)
    assert refused.value.key.startswith("algorithm")
    assert refused.value.key in key or key in refused.value.key


@pytest.mark.parametrize(
    ("name", "action", "expected"),
    [
        ("DQN", {"type": "Box", "low": -1.0, "high": 1.0, "shape": [1]}, "expected a Discrete, which is what DQN takes, received Box"),
        ("DQN", {"type": "MultiDiscrete", "nvec": [2, 3]}, "received MultiDiscrete"),
        ("SAC", {"type": "MultiDiscrete", "nvec": [2, 3]}, "expected a Box or a Discrete"),
        ("SAC", {"type": "Discrete", "n": 3}, ""),
        ("PPO", {"type": "MultiDiscrete", "nvec": [2, 3]}, ""),
    ],
)
def test_an_action_space_that_the_algorithm_has_no_net_for_is_refused_before_anything_starts(
    name: str, action: dict[str, Any], expected: str
) -> None:
    config = load(ServerConfig, None, {"algorithm.name": name, "spaces.action": action})
    if not expected:
        check_action_space(config)
        return
    with pytest.raises(SettingsError, match=expected) as refused:
        check_action_space(config)
    assert refused.value.key == "spaces.action"
