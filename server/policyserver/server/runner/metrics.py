"""What an env runner tells RLlib about its samples, under the keys of RLlib's own runner."""

from __future__ import annotations

import math
from typing import Any

from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.utils import metrics as keys
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from policyserver.server.episodes.core_statistics import CoreStatistics
from policyserver.server.episodes.segments import SegmentBlock
from policyserver.server.processes.hand_off import HAND_OFF
from policyserver.server.processes.training_report import STEPS_BEHIND, STEPS_DROPPED, VERSIONS_BEHIND

_RETURNS_BY_ID = (("agent_episode_return_mean", DEFAULT_AGENT_ID), ("module_episode_return_mean", DEFAULT_MODULE_ID))
_EXTREMES = (("min", keys.EPISODE_LEN_MIN, keys.EPISODE_RETURN_MIN), ("max", keys.EPISODE_LEN_MAX, keys.EPISODE_RETURN_MAX))

ROWS_FAILED = "rows_failed"
"""Env-runner metric (reduce "sum"): rows that the server could not answer by a mistake of its own, such as an RLModule that raises."""
REWARDS_DROPPED = "rewards_dropped"
"""Env-runner metric (reduce "sum"): rewards that an environment in the serving process logged before the first action of an episode."""


def with_others(metrics: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return reduced metrics with those that others logged, connectors and callbacks; of two with the same key, the first is kept.

    RLlib's `MetricsLogger.aggregate` would raise there: it takes nothing in under a key that was logged to directly.
    """
    joined = {**others, **metrics}
    for key, value in metrics.items():
        if isinstance(value, dict) and isinstance(others.get(key), dict):
            joined[key] = with_others(value, others[key])
    return joined


def with_hand_off(metrics: dict[str, Any], boot_id: str, steps: int) -> dict[str, Any]:
    """Say beside reduced metrics how many steps a serving process has handed off since it began: see `HAND_OFF`."""
    return {**metrics, HAND_OFF: (boot_id, steps)}


def log_samples(metrics: MetricsLogger, config: Any, blocks: list[SegmentBlock], statistics: CoreStatistics) -> None:
    """Log the steps of one `sample()` and the episodes that finished since the one before.

    Source: `SingleAgentEnvRunner._increase_sampled_metrics` and `_log_episode_metrics`. Steps of episodes that are not trained on are
    not counted, for these keys decide when RLlib has enough to learn from.
    """
    steps = sum(block.steps for block in blocks)
    finished = [statistics.unreported.popleft() for _ in range(len(statistics.unreported))]
    sums = {
        keys.NUM_ENV_STEPS_SAMPLED: steps,
        (keys.NUM_AGENT_STEPS_SAMPLED, DEFAULT_AGENT_ID): steps,
        (keys.NUM_MODULE_STEPS_SAMPLED, DEFAULT_MODULE_ID): steps,
        keys.NUM_EPISODES: len(finished),
        **{name: statistics.since_report(name) for name in (ROWS_FAILED, REWARDS_DROPPED, STEPS_DROPPED)},
        VERSIONS_BEHIND: sum(block.versions_behind for block in blocks),
        **{name: sum(int(block.steps_behind[place]) for block in blocks) for place, name in enumerate(STEPS_BEHIND)},
    }
    for key, value in sums.items():
        metrics.log_value(key, value, reduce="sum")
    metrics.log_value(keys.NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
    metrics.log_value((keys.NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID), steps, reduce="lifetime_sum")
    metrics.log_value((keys.NUM_MODULE_STEPS_SAMPLED_LIFETIME, DEFAULT_MODULE_ID), steps, reduce="lifetime_sum")
    metrics.log_value(keys.NUM_EPISODES_LIFETIME, len(finished), reduce="lifetime_sum")
    window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / (config.num_env_runners or 1)))
    # More would only push each other out of the window.
    for length, return_, duration_s in finished[-window:]:
        metrics.log_value(keys.EPISODE_DURATION_SEC_MEAN, duration_s, window=window)
        metrics.log_value(keys.EPISODE_LEN_MEAN, length, window=window)
        for key in (keys.EPISODE_RETURN_MEAN, *_RETURNS_BY_ID):
            metrics.log_value(key, return_, window=window)
        for reduce, of_length, of_return in _EXTREMES:
            metrics.log_value(of_length, length, reduce=reduce, window=window)
            metrics.log_value(of_return, return_, reduce=reduce, window=window)
