"""Puts together what decides the actions of a serving env runner, from the algorithm's configuration."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from policyserver.common.acting.action_form import ActionForm
from policyserver.server.policies.connectors.connector_choice import choose
from policyserver.server.policies.connectors.connector_policy import ConnectorPolicy
from policyserver.server.policies.connectors.connector_states import adopt_state
from policyserver.server.policies.connectors.episode_callbacks import EpisodeCallbacks
from policyserver.server.policies.module.forward_pass import Backend
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.policy import Policy
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy

logger = logging.getLogger(__name__)

_MAX_SEQ_LEN = 20  # RLlib's default
_CHUNK_STEPS = 64  # of a live episode, which connectors may not rely on: RLlib's runner cuts where it likes


def make_policy(
    config: AlgorithmConfig,
    module: TorchRLModule,
    env_to_module: ConnectorPipelineV2,
    module_to_env: ConnectorPipelineV2,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    backend: Backend,
    callbacks_objects: Sequence[RLlibCallback],
    env_runner: Any,
) -> Policy:
    """Make the policy that a serving env runner answers with. The module is copied.

    Args:
        config: The algorithm's configuration.
        module: The RLModule.
        env_to_module: The connector pipeline before it.
        module_to_env: The connector pipeline behind it.
        observation_space: What clients send.
        action_space: What they get.
        backend: What runs the net, if its connectors are array code.
        callbacks_objects: The instances of `config.callbacks_class`.
        env_runner: What the user's callbacks get as their `env_runner`.

    Raises:
        UnusableConnectorError: RLlib itself can't run a connector on these spaces.
        ConnectorOutputError: What a connector writes can't be recorded.
        UnsupportedSpaceError: The action space can't be served.
        UnsupportedModuleError: The module gives neither actions nor a distribution of them.
    """
    policy: Policy
    form = ActionForm(action_space, normalize=config.normalize_actions, clip=config.clip_actions)
    net = PolicyNet(module, explore=bool(config.explore))
    found = choose(config, env_to_module, module_to_env, form)
    lookback, state_every = config.episode_lookback_horizon, _state_every(config, module)
    if isinstance(found, str):
        logger.warning("there is no array code for %s: all connectors run on live episodes, at RLlib's own speed", found)
        callbacks = EpisodeCallbacks(config, callbacks_objects, env_runner, getattr(env_runner, "env", None))
        policy = ConnectorPolicy(
            net,
            form,
            env_to_module,
            module_to_env,
            observation_space,
            action_space,
            lookback=lookback,
            state_every=state_every,
            # Callbacks see as much of an episode at once as they do in RLlib's own runner.
            chunk_steps=max(int(config.get_rollout_fragment_length()), _CHUNK_STEPS) if callbacks else _CHUNK_STEPS,
            callbacks=callbacks,
            metrics=MetricsLogger(stats_cls_lookup=config.stats_cls_lookup, root=False),
        )
    else:
        policy = VectorizedPolicy(
            net,
            form,
            found.recorded_space,
            action_space,
            connectors=found.connectors,
            num_frames=found.num_frames,
            lookback=lookback,
            state_every=state_every,
            seed=config.seed,  # the same for all runners: an episode draws alike wherever it is
            backend=backend,
            replays=getattr(config, "replay_buffer_config", None) is not None,
        )
    policy.layout = dataclasses.replace(policy.layout, carried=_carried(config))
    return policy


def frozen_policy(
    config: AlgorithmConfig,
    live: VectorizedPolicy,
    env_to_module: ConnectorPipelineV2,
    module_to_env: ConnectorPipelineV2,
    state: Mapping[str, Any],
) -> VectorizedPolicy:
    """Make a policy that decides like `live`, with the weights and connector states of an env runner's state, and learns nothing.

    Args:
        config: The algorithm's configuration.
        live: The policy that learns.
        env_to_module: A new connector pipeline; it is given its state.
        module_to_env: Likewise.
        state: See `RunnerState.get_state`.

    Raises:
        Exception: What RLlib and torch raise of the state of another net.
    """
    for name, connector in ((COMPONENT_ENV_TO_MODULE_CONNECTOR, env_to_module), (COMPONENT_MODULE_TO_ENV_CONNECTOR, module_to_env)):
        if name in state:
            adopt_state(connector, state[name], keep_delta=False)
    found = choose(config, env_to_module, module_to_env, live.form)
    assert not isinstance(found, str), "what has array code for the policy that learns has it for others"
    weights = state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    return live.with_weights(
        found.connectors, weights, int(state.get(WEIGHTS_SEQ_NO, 0)), int(state.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
    )


def _carried(config: AlgorithmConfig) -> int:
    """Return how many steps a segment needs beside one, so that a replay buffer draws from it at all."""
    if getattr(config, "replay_buffer_config", None) is None:
        return 0
    n_step = getattr(config, "n_step", 1)
    longest = n_step[1] - 1 if isinstance(n_step, list | tuple) else n_step  # a range without its end
    return max(int(longest) - 1, int(getattr(config, "burn_in_len", 0)))


def _state_every(config: AlgorithmConfig, module: TorchRLModule) -> int:
    """Return the distance of the recurrent states that the learner reads."""
    if getattr(config, "replay_buffer_config", None) is not None:
        return 1  # a replay buffer begins its sequences anywhere
    return int((module.model_config or {}).get("max_seq_len", _MAX_SEQ_LEN))
