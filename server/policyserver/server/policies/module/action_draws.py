"""Actions drawn from RLlib's distributions by keyed numbers: the same (seed, episode, step) draws alike in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchDistribution,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)

from policyserver.common.acting.chances import passed
from policyserver.common.acting.keyed_draws import KeyedDraws
from policyserver.server.policies.policy import DrawKeys


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
