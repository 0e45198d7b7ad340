"""A learning policy server in RLlib's own words: an ExternalEnv whose `run()` serves, and a loop that trains, prints and saves.

Run it with `python examples/trading_server.py [PORT]` and connect with `PolicyClient("localhost:9900")`. It goes on where it left off, as
`last_checkpoint.out` in the working directory says; Ctrl-C ends it. For production use `policy-server serve`, which does this and more.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.external_env import ExternalEnv
from ray.tune.logger import pretty_print

from policyserver.server import ExternalEnvRunner, PolicyServer, RayProcess

CHECKPOINTS = Path("checkpoints").absolute()
POINTER = Path("last_checkpoint.out").absolute()


class TradingServing(ExternalEnv):
    """Episodes come from the clients that connect: ten features in, sell, hold or buy out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(action_space=Discrete(3), observation_space=Box(-100, 100, (10,), np.float32))
        self.port = int(config.get("port", 9900))

    def run(self) -> None:
        """Serve until the algorithm stops."""
        PolicyServer(self, "localhost", self.port).serve_forever()


def main(port: int) -> None:
    """Train for ever on what clients do."""
    ray_process = RayProcess()  # a private Ray, on loopback only
    ray_process.start(num_cpus=3)
    config = (
        PPOConfig()
        .environment(TradingServing, env_config={"port": port})
        .env_runners(env_runner_cls=ExternalEnvRunner, num_env_runners=1)
        .training(lr=5e-4, train_batch_size_per_learner=1000, minibatch_size=250, num_epochs=6)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], use_lstm=True, lstm_cell_size=64))
    )
    algorithm = config.build_algo()
    try:
        if POINTER.exists():
            algorithm.restore_from_path(POINTER.read_text())
            print(f"restored {POINTER.read_text()}", flush=True)
        for number in itertools.count(algorithm.iteration + 1):
            print(pretty_print(algorithm.train()), flush=True)
            checkpoint = algorithm.save_to_path(str(CHECKPOINTS / f"{number:06d}"))
            print(f"saved {checkpoint}", flush=True)
            POINTER.write_text(str(checkpoint))
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        algorithm.stop()
        ray_process.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9900)
