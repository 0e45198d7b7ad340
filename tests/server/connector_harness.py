"""Stock policies with a user's connectors, rows for them, and comparisons of what they decide."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from policyserver.common.acting.action_form import ActionForm
from policyserver.server.policies.connectors.connector_policy import ConnectorPolicy
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.policy import StepResult
from tests.server.core_harness import ACTIONS, OBSERVATION, Array, module_of, spaces_of
from tests.server.policy_player import Move, PolicyPlayer


def stock_policy(
    module: Any = None,
    *connectors: Any,
    action: str = "discrete",
    outward: Any = (),
    explore: bool = True,
    space: gym.Space[Any] = OBSERVATION,
    **options: Any,
) -> ConnectorPolicy:
    """A policy with connectors of the user's before RLlib's own."""
    config: Any = PPOConfig().env_runners(
        env_to_module_connector=lambda env, spaces, device: list(connectors), module_to_env_connector=lambda env, spaces: list(outward)
    )
    spaces = spaces_of(space, ACTIONS[action])
    inward, outward_pipeline = config.build_env_to_module_connector(spaces=spaces), config.build_module_to_env_connector(spaces=spaces)
    if module is None:
        module = module_for(inward.observation_space, action)
    form = ActionForm(ACTIONS[action], normalize=True, clip=False)
    net = PolicyNet(module, explore=explore)
    return ConnectorPolicy(net, form, inward, outward_pipeline, space, ACTIONS[action], **{"state_every": 5, **options})


def module_for(space: gym.Space[Any], action: str = "discrete") -> Any:
    """A module for observations of another space than the environment's."""
    if space == OBSERVATION:
        return module_of(action=action)
    config = PPOConfig().rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
    return config.get_rl_module_spec(spaces=spaces_of(space, ACTIONS[action]), inference_only=True).build()


def player_of(policy: Any, action: str = "discrete", space: gym.Space[Any] = OBSERVATION) -> PolicyPlayer:
    return PolicyPlayer(policy, space, ACTIONS[action])


def random_moves(seed: int, passes: int, *, slots: int = 6, **options: Any) -> list[list[Move]]:
    """Rows of episodes of random lengths in random order."""
    random = np.random.default_rng(seed)
    open_: dict[int, int] = {}
    batches = []
    for _ in range(passes):
        moves = []
        for slot in random.permutation(slots)[: random.integers(1, slots + 1)].tolist():
            end = str(random.choice(["", "", "", "terminated", "truncated"])) if slot in open_ else ""
            move = Move(slot, random.normal(size=10).astype(np.float32) * 20, slot not in open_, float(random.normal()), end, **options)
            if move.new:
                move.reward = 0.0
            moves.append(move)
            open_[slot] = open_.get(slot, 0) + 1
            if end:
                del open_[slot]
        batches.append(moves)
    return batches


def assert_same(first: StepResult, second: StepResult, *, actions: bool = False) -> None:
    for ours, theirs in zip(first.observations, second.observations, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(first.rewards, second.rewards)
    np.testing.assert_allclose(
        first.decisions.outputs[Columns.ACTION_DIST_INPUTS], second.decisions.outputs[Columns.ACTION_DIST_INPUTS], atol=1e-6
    )
    for name in ("state_in", "state"):
        assert len(getattr(first, name)) == len(getattr(second, name))
        for ours, theirs in zip(getattr(first, name), getattr(second, name), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert first.infos == second.infos
    if actions:
        np.testing.assert_array_equal(first.executed, second.executed)
        np.testing.assert_array_equal(first.decisions.actions, second.decisions.actions)


def assert_inputs(first: StepResult, second: StepResult) -> None:
    name = Columns.ACTION_DIST_INPUTS
    np.testing.assert_allclose(first.decisions.outputs[name], second.decisions.outputs[name], atol=1e-6)


def log_probs_of(decided: StepResult) -> Array:
    assert decided.decisions.log_probs is not None
    return decided.decisions.log_probs


def state_of(policy: Any) -> Any:
    """What a policy knows of its episodes and its connectors."""
    episodes = {
        slot: ({**live.episode.get_state(), "_last_step_time": 0, "_start_time": 0}, live.index, live.pending, len(live.chunks))
        for slot, live in policy._live.items()
    }
    return copy.deepcopy((episodes, [(type(piece).__name__, piece.get_state()) for piece in policy._passes._pipelines._stateful]))
