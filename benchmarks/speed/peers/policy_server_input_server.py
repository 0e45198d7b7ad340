"""RLlib's own policy server of Ray 2.9.3, the last era in which it ran: PolicyServerInput, remote inference, PPO that learns.

Runs in the environment that `make bench-peers` builds, so it imports nothing of this project.

    python policy_server_input_server.py PORT     # writes a line when it listens, ends when its standard input does
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.policy_server_input import PolicyServerInput


def leave_with_parent() -> None:
    """End once standard input does: the parent is gone, or has enough."""
    sys.stdin.read()
    ray.shutdown()
    os._exit(0)


def main(port: int) -> None:
    """Serve and learn."""
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)

    def listen(context: Any) -> Any:
        return PolicyServerInput(context, "127.0.0.1", port)

    config = (
        PPOConfig()
        .environment(env=None, observation_space=gym.spaces.Box(-100, 100, (10,), np.float32), action_space=gym.spaces.Discrete(3))
        .framework("torch")
        .rollouts(num_rollout_workers=0, enable_connectors=False, rollout_fragment_length=200)
        .offline_data(input_=listen)
        .training(train_batch_size=4000, sgd_minibatch_size=256, num_sgd_iter=6, model={"fcnet_hiddens": [256, 256]})
        .experimental(_enable_new_api_stack=False)
    )
    algorithm = config.build()
    threading.Thread(target=leave_with_parent, daemon=True).start()
    sys.stdout.write('BENCH {"ready": true}\n')
    sys.stdout.flush()
    while True:
        algorithm.train()


if __name__ == "__main__":
    main(int(sys.argv[1]))
