"""What each algorithm is to learn, with which settings, and what counts as learned: stated before it is measured over gRPC."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig

CARTPOLE: dict[str, dict[str, Any]] = {
    "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
    "spaces.action": {"type": "Discrete", "n": 2},
}
PENDULUM: dict[str, dict[str, Any]] = {
    "spaces.observation": {"type": "Box", "low": [-1.0, -1.0, -8.0], "high": [1.0, 1.0, 8.0], "shape": [3]},
    "spaces.action": {"type": "Box", "low": -2.0, "high": 2.0, "shape": [1]},
}
ACROBOT: dict[str, dict[str, Any]] = {
    "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [6]},
    "spaces.action": {"type": "Discrete", "n": 3},
}
SPACES = {"CartPole-v1": CARTPOLE, "Acrobot-v1": ACROBOT, "Pendulum-v1": PENDULUM}
MLP = {"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh", "vf_share_layers": False, "use_lstm": False}


@dataclass(frozen=True)
class Case:
    """An algorithm, what it learns and how it is judged."""

    name: str
    """Name of the case and of its results."""
    algorithm: str
    """RLlib's name of it."""
    environment: str
    """Gymnasium's name of the environment."""
    bar: float
    """Mean return of the newest `window` episodes that counts as learned."""
    window: int
    """Episodes that the mean is taken over."""
    max_steps: int
    """Steps within which the bar is to be reached: three times what the slowest seed needed in process."""
    tables: dict[str, dict[str, Any]]
    """The `[algorithm.*]` tables of the configuration; everything else is this server's default for the algorithm."""
    seeds: int = 6
    """Seeds that both sides learn with: 0, 1, and so on."""
    ratio_max: float = 1.3
    """Most that the ratio of the geometric means of the steps, over gRPC to RLlib alone, may be."""
    upper_max: float | None = None
    """Most that the upper end of its 90 % confidence interval may be, where that is promised."""
    copies: int = 16
    """Copies of the environment that are played at once."""
    threads: bool = True
    """Whether each copy is played by a thread of its own over gRPC; otherwise they are stepped together."""

    def server_config(self, seed: int, **changes: Any) -> ServerConfig:
        """Return the server's configuration: the shipped defaults, but for the spaces, the seed and the algorithm's tables."""
        tables = {f"algorithm.{name}": table for name, table in self.tables.items()}
        overrides = {**SPACES[self.environment], "algorithm.name": self.algorithm, **tables, "seed": seed, **changes}
        return load(ServerConfig, None, overrides)


_PPO = {
    "gamma": 0.99,
    "lambda_": 0.95,
    "lr": 1e-3,
    "train_batch_size_per_learner": 2000,
    "minibatch_size": 250,
    "num_epochs": 8,
    "entropy_coeff": 0.0,
    "vf_clip_param": 1000.0,
}
"""Those of examples/cartpole_server.toml."""
_ASYNCHRONOUS: dict[str, dict[str, Any]] = {
    "training": {"lr": 1e-3, "train_batch_size_per_learner": 500, "entropy_coeff": 0.0, "vf_loss_coeff": 0.05},
    "env_runners": {"rollout_fragment_length": 128},
    "rl_module": {"model_config": MLP},
}

CASES = (
    Case(
        "PPO",
        "PPO",
        "CartPole-v1",
        bar=450.0,
        window=50,
        max_steps=400_000,
        tables={"training": _PPO, "rl_module": {"model_config": MLP}},
        seeds=16,
        ratio_max=1.15,
        upper_max=1.25,
    ),
    Case(
        "PPO, Acrobot",
        "PPO",
        "Acrobot-v1",
        bar=-110.0,
        window=50,
        max_steps=300_000,
        tables={"training": {**_PPO, "entropy_coeff": 0.01}, "rl_module": {"model_config": MLP}},
    ),
    Case("APPO", "APPO", "CartPole-v1", bar=250.0, window=50, max_steps=400_000, tables=_ASYNCHRONOUS),
    Case("IMPALA", "IMPALA", "CartPole-v1", bar=250.0, window=50, max_steps=400_000, tables=_ASYNCHRONOUS),
    Case(
        "DQN",
        "DQN",
        "CartPole-v1",
        bar=200.0,
        window=50,
        max_steps=150_000,
        tables={
            "training": {"lr": 1e-3, "epsilon": [(0, 1.0), (10_000, 0.02)], "n_step": 3, "target_network_update_freq": 500},
            "rl_module": {"model_config": {"fcnet_hiddens": [128, 128], "fcnet_activation": "tanh"}},
        },
        copies=8,
    ),
    Case(
        "SAC",
        "SAC",
        "Pendulum-v1",
        bar=-300.0,
        window=8,
        copies=4,
        max_steps=20_000,
        tables={
            "training": {
                "actor_lr": 1e-3,
                "critic_lr": 1e-3,
                "alpha_lr": 1e-3,
                "train_batch_size_per_learner": 128,
                "training_intensity": 32,
            },
            "rl_module": {"model_config": {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}},
        },
        seeds=4,
    ),
)


def case_of(name: str) -> Case:
    """Return a case by its name."""
    return next(case for case in CASES if case.name == name)


ALONE, OVER_GRPC = SIDES = ("RLlib alone", "over gRPC")


@dataclass(frozen=True)
class Outcome:
    """How one run went."""

    side: str
    """Whether RLlib learned alone or over gRPC: one of SIDES."""
    case: str
    """Name of the case."""
    seed: int
    """Seed of the weights, of the drawing of actions and of the environments."""
    steps: int
    """Environment steps until the bar was reached, or until `max_steps`."""
    mean_return: float
    """Mean return of the newest episodes then."""
    seconds: float
    """From the first step on."""
    reached: bool
    """Whether the bar was reached."""
