"""Bounds of numbers that RLlib does not check: it would fail once its learner is built or trains."""

from __future__ import annotations

from typing import Any

from annotated_types import BaseMetadata, Ge, Gt, Le

from policyserver.common.bounds import bounds_text, is_within
from policyserver.common.settings import SettingsError

_COUNT: list[BaseMetadata] = [Ge(1)]
_AMOUNT: list[BaseMetadata] = [Ge(0)]
_FRACTION: list[BaseMetadata] = [Ge(0), Le(1)]
_POSITIVE: list[BaseMetadata] = [Gt(0)]

_BOUNDS = {
    "training.lr": _AMOUNT,
    "training.gamma": _FRACTION,
    "training.lambda_": _FRACTION,
    "training.grad_clip": _POSITIVE,
    "training.train_batch_size_per_learner": _COUNT,
    "training.minibatch_size": _COUNT,
    "training.num_epochs": _COUNT,
    "training.entropy_coeff": _AMOUNT,
    "training.vf_loss_coeff": _AMOUNT,
    "training.clip_param": _POSITIVE,
    "training.vf_clip_param": _POSITIVE,
    "training.target_network_update_freq": _AMOUNT,
    "training.tau": _FRACTION,
    "training.num_steps_sampled_before_learning_starts": _AMOUNT,
    "env_runners.num_env_runners": _AMOUNT,
    "env_runners.rollout_fragment_length": _COUNT,
    "learners.num_learners": _AMOUNT,
    "learners.num_gpus_per_learner": _AMOUNT,
    "learners.num_cpus_per_learner": _AMOUNT,
}


def check_number(table: str, key: str, value: Any) -> None:
    """Refuse a number that an algorithm can't work with, also in a schedule such as `[[0, 1e-3], [100000, 1e-4]]`.

    Raises:
        SettingsError: It is out of its bounds.
    """
    bounds = _BOUNDS.get(f"{table}.{key}", [])
    for number in _numbers(value):
        if not is_within(number, bounds):
            raise SettingsError(f"algorithm.{table}.{key}", "", f"expected {bounds_text(bounds)}, received {value!r}")


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    pairs = [pair for pair in value if isinstance(pair, list | tuple) and len(pair) == 2] if isinstance(value, list | tuple) else []
    return [number for _, number in pairs if isinstance(number, int | float)]
