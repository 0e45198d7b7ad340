"""Trained policies without a training: nets with random weights, and filters that have seen random rows."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.env_to_module import MeanStdFilter

from policyserver.common.acting.keyed_draws import draw_key
from policyserver.common.settings import load
from policyserver.common.spaces import flatten, leaves
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint
from policyserver.server.daemon.preflight import checkpoint_folder
from policyserver.server.daemon.served_state import SERVED_FILE
from policyserver.server.export.trained_policy import TrainedPolicy, new_parts
from policyserver.server.policies.connectors.connector_pipelines import pieces_of
from policyserver.server.policies.connectors.connector_states import export_state
from policyserver.server.policies.connectors.policy_choice import make_policy
from policyserver.server.policies.policy import DrawKeys
from policyserver.server.processes.training_report import Progress
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.policy_player import Move, PolicyPlayer
from tests.server.user_connectors import ScaleObservations

SEED = 5
VECTOR = {"type": "Box", "low": -100.0, "high": 100.0, "shape": [10]}
IMAGE = {"type": "Box", "low": 0, "high": 255, "shape": [12, 10, 1], "dtype": "uint8"}
DISCRETE = {"type": "Discrete", "n": 3}
BOX = {"type": "Box", "low": [-2.0, 0.0], "high": [2.0, 10.0], "shape": [2]}


Table = dict[str, Any]


def run_config_of(observation: Table = VECTOR, action: Table = DISCRETE, name: str = "PPO", **settings: Any) -> ServerConfig:
    """Make the configuration of a run; settings are those of a server's file, with `__` for dots."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    net = {"algorithm.rl_module": {"model_config": given.pop("net", {"fcnet_hiddens": [16]})}}
    spaces = {"spaces.observation": observation, "spaces.action": action}
    return load(ServerConfig, None, {**spaces, "algorithm.name": name, "seed": SEED, **net, **given})


def own_connectors(env: Any, spaces: Any, device: Any) -> Any:
    """What a user's file may name."""
    return ScaleObservations()


def trained(config: ServerConfig, folder: Path = Path("checkpoint-00000007")) -> TrainedPolicy:
    """Make a policy that seems to have learned."""
    built = algorithm_config(config, ExternalEnvRunner)
    module, env_to_module, module_to_env = new_parts(built)
    random = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.5)
    for piece in pieces_of(env_to_module):
        if isinstance(piece, MeanStdFilter):
            piece.get_state()  # makes the filters
            for row in np.random.default_rng(1).normal(3.0, 20.0, (50, *piece.input_observation_space.shape)):
                piece._filters[None](row.astype(np.float32))
    return TrainedPolicy(config, built, Checkpoint(folder, Progress(70, 7000, 70, 70)), module, env_to_module, module_to_env)


def saved(config: ServerConfig) -> TrainedPolicy:
    """Make one, with a checkpoint in its run folder as a server has it."""
    policy = trained(config)
    states = {
        "learner_group/learner/rl_module/default_policy": (policy.module, policy.module.get_state()),
        "env_runner/env_to_module_connector": (policy.env_to_module, export_state(policy.env_to_module)),
        "env_runner/module_to_env_connector": (policy.module_to_env, export_state(policy.module_to_env)),
    }

    def write(folder: Path) -> None:
        served: dict[str, Any] = {
            name.partition("/")[2]: copy.deepcopy(state) for name, (_, state) in states.items() if name.startswith("env_runner")
        }
        for name, (part, state) in states.items():
            part.save_to_path(str(folder / name), state=state)  # takes apart what it is given
        served |= {"rl_module": {"default_policy": policy.module.get_state()}, "weights_seq_no": 70, "num_env_steps_sampled_lifetime": 7000}
        (folder / SERVED_FILE).write_bytes(pickle.dumps(served))

    checkpoints = checkpoint_folder(config)
    try:
        checkpoints.save(write, Progress(70, 7000, 70, 70))
    finally:
        checkpoints.close()
    return policy


class ServedEpisode:
    """One episode, decided by the very code that a server has."""

    def __init__(self, policy: TrainedPolicy, episode_id: str, *, explore: bool) -> None:
        built = policy.built.copy(copy_frozen=False)
        built.explore = explore
        spaces = built.observation_space, built.action_space
        parts = policy.module, policy.env_to_module, policy.module_to_env
        self._policy = make_policy(built, *parts, *spaces, backend="torch", callbacks_objects=[], env_runner=None)
        self._policy.count_steps(policy.checkpoint.progress.steps_total)
        self._player = PolicyPlayer(self._policy, *spaces)
        self._key, self._step = draw_key(episode_id), 0

    def ask(self, observation: Any) -> tuple[Any, dict[str, Any]]:
        """Return the action and the columns of the module for an observation, in an episode that no filter learns from."""
        move = Move(0, observation, new=self._step == 0, training=False)
        rows = self._player.rows([move])
        rows.drawn_by = DrawKeys(np.array([self._key], np.uint64), np.array([self._step], np.int64))
        decided = self._policy.decide(rows)
        self._player.executed[0] = decided.executed[0]
        self._player._state[0] = [leaf[0] for leaf in decided.state]
        self._step += 1
        return decided.executed[0], decided.decisions.outputs


def observations(config: ServerConfig, count: int = 12) -> list[Any]:
    """Draw observations, all of them as their space has them."""
    space = config.spaces.observation_space
    space.seed(2)
    values = [space.sample() for _ in range(count)]
    assert all(len(flatten(space, value)) == len(leaves(space)) for value in values)
    return values
