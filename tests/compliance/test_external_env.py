"""RLlib's own cases for external environments, in our words, against both ways in.

What differs from RLlib is said where it is pinned.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from policyserver.client import InvalidInputError, ServerInternalError
from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.compliance.conftest import MakeRunner
from tests.compliance.external_envs import ACTION, EPISODE_STEPS, OBSERVATION, ZERO, Calls, Looping, fixed_length, fixed_length_off_policy


def steps_of(episodes: Any) -> int:
    return sum(len(episode) for episode in episodes)


# whole episodes


@pytest.mark.long
def test_complete_episodes_are_sampled_whole_until_there_are_enough_steps(played: MakeRunner) -> None:
    with played(fixed_length, rollout_fragment_length=40, batch_mode="complete_episodes", hand_off={"segment_steps": 8}) as runner:
        for _ in range(3):
            episodes = runner.sample()
            assert steps_of(episodes) == 50
            for episode in episodes:
                episode.validate()
                assert len(episode) == EPISODE_STEPS
                assert (episode.t_started, episode.is_terminated, episode.is_truncated) == (0, True, False)
                assert episode.get_return() == EPISODE_STEPS


# fragments


@pytest.mark.long
def test_truncated_episodes_are_sampled_to_the_step_if_segments_divide_fragment_and_episode(played: MakeRunner) -> None:
    with played(fixed_length, rollout_fragment_length=40, hand_off={"segment_steps": 5}) as runner:
        assert [steps_of(runner.sample()) for _ in range(3)] == [40, 40, 40]


@pytest.mark.long
def test_otherwise_a_sample_has_less_than_a_segment_too_much(played: MakeRunner) -> None:
    """RLlib cuts at the step; here a segment is handed off whole, for only then can any of them be dropped."""
    with played(fixed_length, rollout_fragment_length=40, hand_off={"segment_steps": 16}) as runner:
        for _ in range(5):
            assert 40 <= steps_of(runner.sample()) < 40 + 16


# off-policy


@pytest.mark.long
def test_logged_actions_are_what_is_sampled(played: MakeRunner) -> None:
    with played(fixed_length_off_policy, rollout_fragment_length=40, batch_mode="complete_episodes") as runner:
        for _ in range(3):
            episodes = runner.sample()
            assert steps_of(episodes) == 50
            for episode in episodes:
                assert episode.get_actions().tolist() == [1] * EPISODE_STEPS
                assert np.isfinite(episode.get_extra_model_outputs("action_logp")).all()


@pytest.mark.long
def test_a_logged_action_outside_the_space_is_refused_and_the_episode_goes_on(played: MakeRunner) -> None:
    """RLlib takes 42 for one of two actions; a learner would fail over it."""
    refused: list[InvalidInputError] = []

    def loop(calls: Calls) -> None:
        episode = calls.start_episode()
        calls.log_action(episode, ZERO, 0)
        calls.log_returns(episode, 1.0)
        try:
            calls.log_action(episode, ZERO, 42)
        except InvalidInputError as error:
            refused.append(error)
        calls.log_action(episode, ZERO, 1)
        calls.end_episode(episode, ZERO)

    with played(loop, rollout_fragment_length=2) as runner:
        for episode in runner.sample():
            assert episode.get_actions().tolist() == [0, 1]
            assert episode.get_rewards().tolist() == [1.0, 0.0]
        assert "expected finite values from 0 to 1, received 42" in str(refused[0])
        assert refused[0].reason == "BAD_ACTION"


# a module that raises


class Breakable(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """Raises in its forward pass while one of its weights says so."""

    def setup(self) -> None:
        super().setup()
        self.broken = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def _forward(self, batch: dict[str, Any], **options: Any) -> Any:
        if self.broken > 0:
            raise ArithmeticError("the module is broken")
        return super()._forward(batch, **options)


@pytest.mark.long
def test_an_error_of_the_module_reaches_the_caller_and_the_metrics_and_the_server_lives(
    played: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[ServerInternalError] = []
    broke, whole = threading.Event(), threading.Event()

    def loop(calls: Calls) -> None:
        try:
            fixed_length(calls)
        except ServerInternalError as error:
            heard.append(error)
            broke.set()
            assert whole.wait(100.0)

    spec = RLModuleSpec(module_class=Breakable, model_config=DefaultModelConfig(fcnet_hiddens=[8]))
    with played(loop, rollout_fragment_length=50, rl_module={"rl_module_spec": spec}, hand_off={"sample_wait_s": 0.2}) as runner:
        weights = runner.module.get_state()
        assert "broken" in weights
        for version, broken in ((1, 1.0), (2, 0.0)):
            runner.set_state({COMPONENT_RL_MODULE: {**weights, "broken": np.full(1, broken, np.float32)}, "weights_seq_no": version})
            if broken:
                assert broke.wait(100.0)
        runner.sample(num_timesteps=1)
        metrics = runner.get_metrics()
        assert metrics["rows_failed"].peek() == 1
        whole.set()
        while not any(episode.get_extra_model_outputs("weights_seq_no")[-1] == 2 for episode in runner.sample()):
            pass
        assert runner.get_metrics()["rows_failed"].peek() == 0
    assert len(heard) == 1
    assert "incident" in str(heard[0])
    assert "the module is broken" not in str(heard[0]), "that is for the log"
    assert "the module is broken" in caplog.text


# a setting that RLlib gave up


def test_horizon_is_refused(played: MakeRunner) -> None:
    config = PPOConfig().environment(observation_space=OBSERVATION, action_space=ACTION)
    with pytest.raises(TypeError, match="horizon"):
        config.env_runners(horizon=100)
    with pytest.raises(SettingsError, match="horizon"):
        algorithm_config(load(ServerConfig, None, {"algorithm.env_runners": {"horizon": 100}}), ExternalEnvRunner)


def test_horizon_is_refused_where_rllib_takes_any_key(front_end: str) -> None:
    """A configuration as a dict may have it, and RLlib would ignore it."""
    config = PPOConfig().environment(observation_space=OBSERVATION, action_space=ACTION).env_runners(num_env_runners=0)
    options = {}
    if front_end == "in process":
        config.environment("looping")
        options["env_creator"] = lambda context: Looping(fixed_length)
    config.update_from_dict({"horizon": 100})
    with pytest.raises(ValueError, match="horizon: expected none"):
        ExternalEnvRunner(config=config, worker_index=0, num_workers=0, **options)


# an untrained episode beside a trained one


@pytest.mark.long
def test_of_an_untrained_and_a_trained_episode_exactly_the_trained_one_is_learned(played: MakeRunner) -> None:
    over, again = threading.Event(), threading.Event()
    last: list[Any] = []

    def loop(calls: Calls) -> None:
        untrained = calls.start_episode(training_enabled=False)
        for _ in range(2):
            calls.get_action(untrained, ZERO)
        trained = calls.start_episode(training_enabled=True)
        calls.get_action(trained, ZERO)
        calls.log_action(trained, ZERO + 0.25, 0)
        calls.log_returns(trained, 1.3)
        calls.log_action(trained, ZERO + 0.5, 1)
        calls.log_action(trained, ZERO + 0.75, 0)
        calls.log_returns(trained, 1.3)
        calls.end_episode(trained, ZERO + 1.0)
        for _ in range(2):
            last.append(calls.get_action(untrained, ZERO))
        over.set()
        again.wait(300.0)

    with played(loop, rollout_fragment_length=4) as runner:
        try:
            (episode,) = runner.sample()
            assert over.wait(100.0)
            assert len(episode) == 4
            assert episode.is_terminated
            np.testing.assert_allclose(episode.get_rewards(), [0.0, 1.3, 0.0, 1.3], rtol=1e-6)
            assert episode.get_actions().tolist()[1:] == [0, 1, 0]
            assert episode.get_observations()[:, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
            statistics = runner._serving_loop.call(runner._serving_loop.core.snapshot)
            assert (statistics.steps_waiting, statistics.steps_completed, statistics.steps_untrained) == (0, 7, 3)
            metrics = runner.get_metrics()
            assert metrics["num_env_steps_sampled"].peek() == 4
            assert metrics["num_episodes"].peek() == 1
            assert len(last) == 2
            assert all(action in ACTION for action in last)
        finally:
            again.set()
