"""Actions drawn from RLlib's distributions by keyed numbers: the same (seed, episode, step) draws alike in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchDistribution,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)

from policyserver.server.policies.module.keyed_draws import KeyedDraws
from policyserver.server.policies.policy import Array, DrawKeys


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


def draw(distribution: Any, draws: KeyedDraws, by: DrawKeys) -> torch.Tensor:
    """Draw an action for each row of one of RLlib's distributions, [n, ...] in the RLModule's form.

    RLlib's own kinds are drawn by keys. A kind that a user wrote draws by itself, from torch's generator: what its draws are made of is not
    known.
    """
    if (parts := _categoricals(distribution)) is not None:
        uniforms = draws.uniforms(by.keys, by.steps, len(parts))
        chances = [np.add.accumulate(part._dist.probs.numpy(), axis=-1, dtype=np.float64) for part in parts]
        drawn = torch.from_numpy(np.stack([passed(sums, uniforms[:, lane]) for lane, sums in enumerate(chances)], axis=-1))
        return drawn[:, 0] if parts[0] is distribution else drawn
    if _is_gaussian(distribution):
        loc = distribution.loc
        uniforms = draws.uniforms(by.keys, by.steps, loc[0].numel() if len(loc) else 0)
        normal = torch.special.ndtri(torch.from_numpy(uniforms)).to(loc.dtype).reshape(loc.shape)
        sample = loc + distribution._dist.scale * normal
        actions: torch.Tensor = distribution._squash(sample) if isinstance(distribution, TorchSquashedGaussian) else sample
        return actions
    drawn_elsewhere: torch.Tensor = distribution.sample()
    return drawn_elsewhere


def _categoricals(distribution: Any) -> Sequence[TorchCategorical] | None:
    """Return what a distribution of RLlib's draws numbers from; None if it draws otherwise, or a subclass has changed how."""
    sample = type(distribution).sample
    if isinstance(distribution, TorchMultiCategorical) and sample is TorchMultiCategorical.sample:
        parts: list[TorchCategorical] = distribution._cats
        return parts if all(type(part) is TorchCategorical for part in parts) else None
    return [distribution] if isinstance(distribution, TorchCategorical) and sample is TorchDistribution.sample else None


def _is_gaussian(distribution: Any) -> bool:
    sample = type(distribution).sample
    is_plain = isinstance(distribution, TorchDiagGaussian) and sample is TorchDistribution.sample
    is_squashed = isinstance(distribution, TorchSquashedGaussian) and sample is TorchSquashedGaussian.sample
    return (is_plain or is_squashed) and isinstance(distribution._dist, torch.distributions.Normal)
