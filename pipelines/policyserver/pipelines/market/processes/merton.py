"""Merton's jump diffusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import SIGMAS, check_reach, drifting_reach, largest
from policyserver.pipelines.market.processes.process import DriftingProcess, log_prices


@dataclass(frozen=True, slots=True)
class MertonJumpDiffusion(DriftingProcess):
    """Geometric Brownian motion with normal jumps of the log-price at random times. Exact at any number of sub-steps.

    The jumps' mean growth is taken out of the drift. A sub-step's extremes are those of a path that goes through both its ends.
    Source: R. C. Merton, Option pricing when underlying stock returns are discontinuous, 1976.
    """

    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.006, 0.01, "log_uniform"))
    """Standard deviation of the continuous part's log-return per bar."""
    jump_rate: Annotated[Prior, Interval(ge=0, le=100)] = field(default_factory=lambda: Prior(0.01, 0.04, "log_uniform"))
    """lambda: expected number of jumps per bar."""
    jump_mean: Prior = field(default_factory=lambda: Prior(-0.02, 0.0))
    """m: mean of a jump of the log-price."""
    jump_std: Annotated[Prior, Ge(0)] = field(default_factory=lambda: Prior(0.02, 0.04, "log_uniform"))
    """d: standard deviation of a jump of the log-price."""

    def check(self, n_bars: int) -> None:
        """Refuse drift, volatility and jumps whose paths could leave what a price can be."""
        expected = self.jump_rate.high * n_bars
        n_jumps = expected + SIGMAS * math.sqrt(expected) + SIGMAS**2 / 2

        def reach(price_drift: float, volatility: float, jump_mean: float, jump_std: float) -> float:
            jumps = n_jumps * abs(jump_mean) + SIGMAS * math.sqrt(n_jumps) * jump_std
            compensator = expected * math.expm1(min(abs(jump_mean) + jump_std**2 / 2, 700.0))
            return drifting_reach(self.start_price, n_bars, price_drift, volatility**2, jumps + compensator)

        check_reach(
            n_bars,
            reach,
            price_drift=largest(self.price_drift),
            volatility=self.volatility.high,
            jump_mean=largest(self.jump_mean),
            jump_std=self.jump_std.high,
        )

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row."""
        dt = 1.0 / steps_per_bar
        volatility, rate, mean, std = (parameters[name] for name in ("volatility", "jump_rate", "jump_mean", "jump_std"))
        compensator = rate * np.expm1(mean + std**2 / 2)
        step_std = (volatility * math.sqrt(dt))[:, None]
        returns = draws.normal(n_steps) * step_std
        returns += ((parameters["price_drift"] - volatility**2 / 2 - compensator) * dt)[:, None]

        def jumps(rng: np.random.Generator, rate: float, mean: float, std: float) -> npt.ArrayLike:
            places = rng.integers(n_steps, size=rng.poisson(rate * dt * n_steps))
            return np.bincount(places, mean + std * rng.standard_normal(len(places)), n_steps)

        returns += draws.each(jumps, rate, mean, std)
        return LogPaths(log_prices(parameters["start_price"], returns), step_std)
