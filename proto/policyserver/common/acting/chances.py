"""Actions by their chances: drawn by numbers that the caller brings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policyserver.common.spaces import Array


def passed(sums: Array, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Draw a number of each row by its chances.

    Args:
        sums: Of the chances, from the left, in any scale, float64[n, k].
        uniform: One draw from (0, 1) for each row, float64[n].

    Returns:
        int64[n]: where the sum passes the draw. What has no chance is never drawn.
    """
    # The first that is not passed: argmin finds the first False, and the last sum is above the draw.
    places: npt.NDArray[np.int64] = (sums <= (uniform * sums[:, -1])[:, None]).argmin(axis=-1)
    return places


def sums_of_chances(logits: Array) -> tuple[Array, npt.NDArray[np.float64]]:
    """Return logits, [n, k], less the largest of their row, and the sums of the chances they stand for, float64[n, k], in any scale."""
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    return shifted, np.add.accumulate(np.exp(shifted), axis=-1, dtype=np.float64)


def epsilon_greedy(q_values: Array, epsilon: float, uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Take the best action of each row, or any with a chance of epsilon.

    Args:
        q_values: [n, k]; minus infinity or 0 is no action of those that chance takes.
        epsilon: From 0 to 1.
        uniforms: Two draws for each row, float64[n, 2]: whether chance takes the action, and which.

    Returns:
        int64[n].

    Raises:
        ValueError: A value is no number.

    Source: `DefaultDQNTorchRLModule._forward_exploration`.
    """
    if np.isnan(q_values).any():
        raise ValueError("Q-values: expected numbers from the module, received NaN")
    possible = np.add.accumulate(np.nan_to_num(q_values, neginf=0.0) != 0.0, axis=-1, dtype=np.float64)
    by_chance = (uniforms[:, 0] < epsilon) & (possible[:, -1] > 0)
    return np.where(by_chance, passed(possible, uniforms[:, 1]), q_values.argmax(axis=-1))
