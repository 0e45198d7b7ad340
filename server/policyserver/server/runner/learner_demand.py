"""What an algorithm of RLlib's wants of its env runners, in the words of the episode core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policyserver.server.episodes.demand import Demand

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def learner_demand(config: AlgorithmConfig, worker_index: int, batches_ahead: float | None) -> Demand:
    """Say what the env runner of a number of RLlib's is asked for; `batches_ahead` is the user's, of `HandOffConfig`."""
    from ray.rllib.algorithms.impala import IMPALAConfig

    # From the newest policy, but with a replay buffer, and where runners work on by themselves.
    on_policy = not isinstance(config, IMPALAConfig) and getattr(config, "replay_buffer_config", None) is None
    return Demand(
        fragment_steps=int(config.get_rollout_fragment_length(worker_index) * config.num_envs_per_env_runner),
        on_policy=on_policy,
        whole_episodes=config.batch_mode == "complete_episodes",
        batches_ahead=(0.0 if on_policy else 1.0) if batches_ahead is None else batches_ahead,
    )
