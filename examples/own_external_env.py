"""An ExternalEnv as RLlib's users have them: its `run()` plays CartPole and asks `self.get_action()`, in the process that serves.

Run it with `python examples/own_external_env.py [SECONDS]`. It prints the mean return after each training iteration.
"""

from __future__ import annotations

import concurrent.futures
import sys
import time
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.external_env import ExternalEnv

from policyserver.server import ExternalEnvRunner, RayProcess

EPISODES_AT_A_TIME = 8


class CartPoleServing(ExternalEnv):
    """CartPole, several episodes at a time."""

    def __init__(self, config: dict[str, Any]) -> None:
        game = gym.make("CartPole-v1")
        super().__init__(game.action_space, game.observation_space)

    def run(self) -> None:
        """Play until the algorithm stops; then the calls below raise, and that ends the players."""
        with concurrent.futures.ThreadPoolExecutor(EPISODES_AT_A_TIME) as players:
            for player in [players.submit(self.play) for _ in range(EPISODES_AT_A_TIME)]:
                player.result()

    def play(self) -> None:
        """Play episode after episode."""
        game = gym.make("CartPole-v1")
        while True:
            episode = self.start_episode()
            observation, _ = game.reset()
            done = False
            while not done:
                observation, reward, terminated, truncated, _ = game.step(self.get_action(episode, observation))
                self.log_returns(episode, float(reward))
                done = terminated or truncated
            self.end_episode(episode, observation)


def main(seconds: float) -> None:
    """Train for some time on what the environment does."""
    ray_process = RayProcess()  # a private Ray, on loopback only
    ray_process.start(num_cpus=3)
    config = (
        PPOConfig()
        .environment(CartPoleServing)
        .env_runners(env_runner_cls=ExternalEnvRunner, num_env_runners=1)
        .training(lr=5e-4, train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=6)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64]))
    )
    algorithm = config.build_algo()
    try:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            sampled = algorithm.train()["env_runners"]
            steps, mean = sampled["num_env_steps_sampled_lifetime"], sampled.get("episode_return_mean", float("nan"))
            print(f"{int(steps):7,} steps   mean return {mean:6.1f}", flush=True)
    finally:
        algorithm.stop()
        ray_process.stop()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)
