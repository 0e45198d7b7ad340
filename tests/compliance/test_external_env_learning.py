"""RLlib's own learning cases for external environments: CartPole, from the environment's process or from a client's.

Each learns to a mean return of 80, as RLlib's cases ask.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from policyserver.server.config.serving_config import ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.compliance.external_envs import CartPoleLoop, CartPoles, client_looping

pytestmark = [pytest.mark.usefixtures("private_ray"), pytest.mark.slow]

BAR = 80.0
ITERATION_STEPS = 1000


def ppo(steps: int) -> AlgorithmConfig:
    return PPOConfig().training(
        lr=1e-3,
        train_batch_size_per_learner=steps,
        minibatch_size=steps // 4,
        num_epochs=6,
        lambda_=0.95,
        use_kl_loss=False,
        vf_clip_param=1000.0,
        vf_loss_coeff=0.01,  # the value shares the policy's layers, and its loss is in squared returns
    )


def dqn(steps: int) -> AlgorithmConfig:
    config = DQNConfig().training(
        lr=1e-3,
        epsilon=[(0, 1.0), (2000, 0.02)],
        n_step=3,
        target_network_update_freq=500,
        train_batch_size_per_learner=32,
        training_intensity=8,
        num_steps_sampled_before_learning_starts=steps,
    )
    config.env_runners(rollout_fragment_length=32)
    return config.reporting(min_sample_timesteps_per_iteration=steps)


# RLlib's numbers of the cases, and within how many iterations they learn.
CASES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "5: off-policy": (dqn, {"off_policy_share": 0.2}, 50),
    "6: one at a time": (ppo, {}, 80),
    "7: five, two of which act in turn": (ppo, {"copies": 5}, 80),
}


class Learning:
    """An algorithm whose serving actor is fed by its own environment, or by a client in this process."""

    def __init__(self, config: AlgorithmConfig, env_config: dict[str, Any], front_end: str, stack: ExitStack) -> None:
        served = ServingConfig(ListenConfig("127.0.0.1:0")).to_env_config()
        self.loop = CartPoleLoop(env_config)
        config.env_runners(env_runner_cls=ExternalEnvRunner, num_env_runners=1)
        config.learners(num_learners=0)
        config.reporting(min_time_s_per_iteration=0, metrics_num_episodes_for_smoothing=30)
        config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh"))
        config.debugging(seed=0, log_level="WARN")
        if front_end == "in process":
            register_env("cartpoles", lambda context: CartPoles(context))
            config.environment("cartpoles", env_config={**env_config, **served})
        else:
            spaces = {"observation_space": self.loop.observation_space, "action_space": self.loop.action_space}
            config.environment(env_config=served, **spaces)
        self.algorithm = config.build_algo()
        stack.callback(self.algorithm.stop)
        self.process = self.of_actor(lambda runner: os.getpid())
        if front_end != "in process":
            stack.enter_context(client_looping(self.of_actor(lambda runner: runner.addresses())[0], self.loop))

    def of_actor(self, function: Any) -> Any:
        (result,) = self.algorithm.env_runner_group.foreach_env_runner(function, local_env_runner=False)
        return result

    def train(self) -> dict[str, Any]:
        result: dict[str, Any] = self.algorithm.train()
        return result

    def check_alive(self) -> None:
        """Check that the actor is the one that was made, and that its environment still runs."""
        assert self.of_actor(lambda runner: os.getpid()) == self.process
        assert self.of_actor(lambda runner: runner.env is None or runner.env.is_alive())


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # RLlib's own
@pytest.mark.parametrize("front_end", ["in process", "over gRPC"])
@pytest.mark.parametrize("case", [case if case.startswith("5") else pytest.param(case, marks=pytest.mark.thorough) for case in CASES])
def test_it_learns(case: str, front_end: str) -> None:
    make, env_config, iterations = CASES[case]
    with ExitStack() as stack:
        learning = Learning(make(ITERATION_STEPS), env_config, front_end, stack)
        iteration, best = 0, 0.0
        steps = 0
        while iteration < iterations and best < BAR:
            result = learning.train()
            iteration += 1
            sampled = result["env_runners"]
            steps += int(sampled["num_env_steps_sampled"])
            best = max(best, float(sampled["episode_return_mean"]))
        learning.check_alive()
        assert steps >= iteration * ITERATION_STEPS
        assert sampled["rows_failed"] == 0
        assert learning.of_actor(lambda runner: runner._weights_seq_no) >= 1, "the actor serves what was learned"
        assert best >= BAR, f"the best mean return of {iteration} iterations is {best:.1f}"
