"""Heston's stochastic volatility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import RAREST, check_reach, drifting_reach, largest
from policyserver.pipelines.market.processes.process import DriftingProcess, log_prices, recursion


@dataclass(frozen=True, slots=True)
class Heston(DriftingProcess):
    """Heston's model: the variance v reverts to theta and its shocks are correlated with those of the price.

    dv = kappa (theta - v) dt + xi sqrt(v) dW, by full truncation: a negative v counts as 0. Given the variance at the beginning of a
    sub-step, the variance's mean and the expected price are exact, the laws approximate.
    Source: R. Lord, R. Koekkoek, D. van Dijk, A comparison of biased simulation schemes for stochastic volatility models, 2010.
    """

    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """sqrt(theta): standard deviation of the log-return per bar in the long run."""
    start_volatility: Annotated[Prior, Ge(0)] = field(default_factory=lambda: Prior(0.006, 0.016, "log_uniform"))
    """Square root of the variance per bar at the start."""
    reversion: Annotated[Prior, Interval(gt=0, le=1)] = field(default_factory=lambda: Prior(0.02, 0.05, "log_uniform"))
    """kappa per bar: half of the variance's distance from theta is gone after ln(2) / kappa bars."""
    variance_spread: Annotated[Prior, Interval(ge=0, le=2)] = field(default_factory=lambda: Prior(0.5, 1.0))
    """xi / sqrt(2 kappa theta), the same in any unit of time: standard deviation of the variance in the long run as a share of its mean.
    Up to 1 the variance of the model stays positive (Feller's condition), beyond it touches 0."""
    correlation: Annotated[Prior, Interval(ge=-1, le=1)] = field(default_factory=lambda: Prior(-0.8, -0.4))
    """rho: correlation of the shocks of price and variance; negative is the leverage effect."""

    def check(self, n_bars: int) -> None:
        """Refuse drift and volatility whose paths could leave what a price can be."""
        spread, rarity = self.variance_spread.high, -math.log(RAREST)
        tail = 1.0 + math.sqrt(2.0 * rarity) * spread + rarity * spread**2  # of the variance's gamma law

        def reach(price_drift: float, volatility: float, start_volatility: float) -> float:
            return drifting_reach(self.start_price, n_bars, price_drift, tail * max(volatility, start_volatility) ** 2)

        check_reach(
            n_bars,
            reach,
            price_drift=largest(self.price_drift),
            volatility=self.volatility.high,
            start_volatility=self.start_volatility.high,
        )

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row."""
        dt = 1.0 / steps_per_bar
        variance_noise, own_noise = draws.normal(n_steps), draws.normal(n_steps)
        long_run, reverted = parameters["volatility"][:, None] ** 2, -np.expm1(-parameters["reversion"] * dt)[:, None]
        rho = parameters["correlation"][:, None]
        variances = _variances(parameters, variance_noise, dt)
        # The mean of the variance over a sub-step, given its value at the beginning.
        variances += (1.0 - reverted / (parameters["reversion"][:, None] * dt)) * (long_run - variances)
        step_std = np.sqrt(variances * dt)
        returns = step_std * (rho * variance_noise + np.sqrt(1.0 - rho**2) * own_noise)
        returns += (parameters["price_drift"][:, None] - variances / 2) * dt
        return LogPaths(log_prices(parameters["start_price"], returns), step_std)


def _variances(parameters: Mapping[str, FloatArray], noise: FloatArray, dt: float) -> FloatArray:
    """Return the variance per bar at the beginning of each sub-step, float64 (n, n_steps), not negative."""
    long_run, reversion = parameters["volatility"] ** 2, parameters["reversion"]
    reverted = -np.expm1(-reversion * dt)
    spread = parameters["variance_spread"] * np.sqrt(long_run * -np.expm1(-2.0 * reversion * dt))
    return recursion(_truncated, (parameters["start_volatility"] ** 2, long_run, reverted), noise * spread[:, None])


def _truncated(variance: Any, long_run: Any, reverted: Any, shocks: Any) -> list[Any]:
    root = math.sqrt if isinstance(variance, float) else np.sqrt
    path = []
    for shock in shocks:
        positive = variance * (variance > 0.0)
        path.append(positive)
        variance = variance + reverted * (long_run - positive) + root(positive) * shock
    return path
