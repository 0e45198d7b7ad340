"""Ornstein-Uhlenbeck log-price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Gt, Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws, by_row
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import SIGMAS, PriceLevel, check_reach, furthest
from policyserver.pipelines.market.processes.process import PathProcess

_EXPONENT_LIMIT = 30.0
"""Largest -log of the decay handled in one cumulative sum: e**30 is far from losing digits or overflowing."""


@dataclass(frozen=True, slots=True)
class OrnsteinUhlenbeck(PathProcess):
    """Ornstein-Uhlenbeck log-price, started from its stationary law: returns are a little predictable. Exact at any number of sub-steps."""

    mean_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """exp of the level m that the log-price reverts to."""
    reversion: Annotated[Prior, Interval(gt=0, le=_EXPONENT_LIMIT)] = field(default_factory=lambda: Prior(0.04, 0.0625, "log_uniform"))
    """theta per bar: half of a distance from the level is gone after ln(2) / theta bars."""
    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """s: standard deviation of the log-price's shocks per bar; the stationary variance is s**2 / (2 theta)."""

    def check(self, n_bars: int) -> None:
        """Refuse a volatility whose paths could leave what a price can be."""

        def reach(volatility: float) -> float:
            return furthest(self.mean_price) + SIGMAS * volatility / math.sqrt(2.0 * self.reversion.low)

        check_reach(n_bars, reach, volatility=self.volatility.high)

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row by the exact AR(1): x(t + dt) = m + a (x(t) - m) + noise, a = exp(-theta dt)."""
        rate = parameters["reversion"] * (1.0 / steps_per_bar)
        stationary_std = parameters["volatility"] / np.sqrt(2.0 * parameters["reversion"])
        starts = stationary_std * draws.normal(1)[:, 0]
        step_std = stationary_std * np.sqrt(-by_row(math.expm1, -2.0 * rate))
        path = autoregressive_paths(starts, rate, draws.normal(n_steps) * step_std[:, None])
        path += by_row(math.log, parameters["mean_price"])[:, None]
        return LogPaths(path, step_std[:, None])


def autoregressive_paths(starts: FloatArray, rates: FloatArray, noise: FloatArray) -> FloatArray:
    """Return y with y[:, 0] = starts and y[:, i + 1] = exp(-rates) y[:, i] + noise[:, i], by cumulative sums over blocks.

    Args:
        starts: First values, float64 (n,).
        rates: -log of the decay per step, positive, float64 (n,).
        noise: Shocks, float64 (n, n_steps).

    Returns:
        float64 (n, n_steps + 1).
    """
    n_steps = noise.shape[1]
    paths = np.empty((len(noise), n_steps + 1))
    paths[:, 0] = starts
    blocks = np.clip((_EXPONENT_LIMIT / rates).astype(np.int64), 1, max(n_steps, 1))
    for block in np.unique(blocks).tolist():
        rows = np.flatnonzero(blocks == block)
        for first in range(0, n_steps, block):
            shocks = noise[rows, first : first + block]
            last = first + shocks.shape[1]
            weights = np.exp(-rates[rows, None] * np.arange(1, last - first + 1))
            paths[rows, first + 1 : last + 1] = weights * (paths[rows, first, None] + np.cumsum(shocks / weights, axis=1))
    return paths
