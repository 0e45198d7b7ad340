"""What an algorithm of RLlib's wants of its env runners, in the episode core's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policyserver.server.episodes.demand import Demand

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def learner_demand(config: AlgorithmConfig, worker_index: int, batches_ahead: float | None, *, learns: bool = True) -> Demand:
    """Return what RLlib asks of an env runner; `batches_ahead` is the user's setting in `HandOffConfig`."""
    from ray.rllib.algorithms.impala import IMPALAConfig

    alone = config.copy(copy_frozen=False)
    alone.num_env_runners = 1
    # Not with a replay buffer, and not where env runners go on without waiting for the learner.
    on_policy = not isinstance(config, IMPALAConfig) and getattr(config, "replay_buffer_config", None) is None
    return Demand(
        fragment_steps=int(config.get_rollout_fragment_length(worker_index) * config.num_envs_per_env_runner),
        on_policy=on_policy,
        whole_episodes=config.batch_mode == "complete_episodes",
        learns=learns,
        most_fragment_steps=int(alone.get_rollout_fragment_length(1) * config.num_envs_per_env_runner),
        batches_ahead=(0.0 if on_policy else 1.0) if batches_ahead is None else batches_ahead,
    )
