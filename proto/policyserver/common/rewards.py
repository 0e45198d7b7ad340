"""What counts as a reward, and how much of it one step can carry: the same on both ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.common.errors import InvalidInputError, PolicyServerError

REWARD_MAX = float(np.finfo(np.float32).max)
"""The largest magnitude of a step's reward: it travels as float64, but learners get it as float32."""


def to_reward(value: Any) -> float:
    """Turn a number of any kind into a reward.

    Raises:
        InvalidInputError: not a real number, or not finite.
    """
    amount = float(value) if isinstance(value, float) else _to_float(value)
    if not math.isfinite(amount):
        raise _refusal(f"a finite number, received {amount}")
    return amount


def to_rewards(values: Sequence[Any] | np.ndarray[Any, Any]) -> tuple[list[float], dict[int, PolicyServerError]]:
    """Turn numbers into rewards.

    Returns:
        The rewards, 0 where there is an error, and the errors by index.
    """
    rewards: list[float] = []
    errors: dict[int, PolicyServerError] = {}
    for index, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        try:
            rewards.append(to_reward(value))
        except InvalidInputError as error:
            rewards.append(0.0)
            errors[index] = error
    return rewards, errors


def add_reward(logged: float, reward: float, unanswered: float = 0.0) -> float:
    """Add a reward to those logged since the newest action.

    Args:
        logged: their sum.
        reward: the new one, finite.
        unanswered: the reward of a row on its way, which adds to the sum again if the row is refused.

    Raises:
        InvalidInputError: a step cannot carry the sum.
    """
    total = logged + reward
    if not max(abs(total), abs(total + unanswered)) <= REWARD_MAX:
        rest = f", and {unanswered:g} on its way" if unanswered else ""
        raise _refusal(f"a sum of at most {REWARD_MAX:.2g} for a step, received {reward:g} after {logged:g}{rest}")
    return total


def _to_float(value: Any) -> float:
    """Convert a value that declares itself a real number; float() alone would also read texts."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, str | bytes | np.ndarray) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise _refusal(f"a number, received {type(value).__name__} {value!r:.80}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refusal(f"a number that a float can hold, received one of {type(value).__name__}: {error}") from error


def _refusal(expected: str) -> InvalidInputError:
    return InvalidInputError(f"reward: expected {expected}", reason="BAD_REWARD", field="reward")
