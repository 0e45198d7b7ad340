"""GARCH(1,1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import SIGMAS, check_reach, drifting_reach, largest
from policyserver.pipelines.market.processes.process import DriftingProcess, log_prices, recursion

_RAREST_T = 1e-12
"""Probability per bar of the tail of the t law that is cut off, so that its paths have a bound."""


@dataclass(frozen=True, slots=True)
class Garch(DriftingProcess):
    """GARCH(1,1): large returns make the next ones large, whichever their sign. Exact at the bars' closes.

    The variance of a bar is h' = omega + alpha e**2 + beta h, e the bar's return without its mean and h its variance; it begins at its
    long-run mean. Within a bar the variance is constant. With `t`, whose exponential has no mean, `price_drift` is that of the log-price
    plus h / 2.
    Source: T. Bollerslev, Generalized autoregressive conditional heteroskedasticity, 1986.
    """

    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """Standard deviation of the log-return per bar in the long run: the square root of omega / (1 - alpha - beta)."""
    alpha: Annotated[Prior, Interval(ge=0, lt=1)] = field(default_factory=lambda: Prior(0.05, 0.1))
    """Weight of the last squared return."""
    beta: Annotated[Prior, Interval(ge=0, lt=1)] = field(default_factory=lambda: Prior(0.8, 0.87))
    """Weight of the last variance; alpha + beta is below 1."""
    innovations: Literal["normal", "t"] = "normal"
    """Law of a bar's return given its variance."""
    degrees_of_freedom: Annotated[Prior, Interval(gt=4, le=200)] = field(default_factory=lambda: Prior(5.0, 10.0))
    """Of `t`: the fewer, the more often returns are far out; above 4 the kurtosis is finite. Unused with `normal`."""

    def _check(self) -> None:
        if self.alpha.high + self.beta.high >= 1.0:
            raise ValueError(
                f"beta: expected less than {1.0 - self.alpha.high:g} beside an alpha up to {self.alpha.high:g}, so that the variance is "
                f"stationary, received up to {self.beta.high:g}"
            )

    def check(self, n_bars: int) -> None:
        """Refuse drift and volatility whose paths could leave what a price can be."""
        persisting = self.alpha.high / (1.0 - self.alpha.high - self.beta.high)
        degrees = self.degrees_of_freedom.low
        sigmas = SIGMAS if self.innovations == "normal" else max(SIGMAS, 3.0 * math.sqrt((degrees - 2.0) / _smallest_chi_square(degrees)))

        def reach(price_drift: float, volatility: float) -> float:
            shock = sigmas * volatility
            after = math.sqrt(persisting) * shock + persisting * shock**2 / 2
            return drifting_reach(self.start_price, n_bars, price_drift, volatility**2, shock + after)

        check_reach(n_bars, reach, price_drift=largest(self.price_drift), volatility=self.volatility.high)

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row."""
        n_bars = n_steps // steps_per_bar
        normal = draws.normal(n_steps).reshape(-1, n_bars, steps_per_bar)
        widths = self._widths(draws, parameters["degrees_of_freedom"], n_bars)
        variances = _variances(parameters, widths * normal.sum(axis=2) ** 2 / steps_per_bar)
        step_std = np.sqrt(widths * variances / steps_per_bar)
        returns = normal * step_std[:, :, None]
        returns += ((parameters["price_drift"][:, None] - variances / 2) / steps_per_bar)[:, :, None]
        path = log_prices(parameters["start_price"], returns.reshape(-1, n_steps))
        return LogPaths(path, np.repeat(step_std, steps_per_bar, axis=1))

    def _widths(self, draws: Draws, degrees_of_freedom: FloatArray, n_bars: int) -> FloatArray:
        """Return the factor of each bar's variance that makes normal innovations those of unit variance asked for."""
        if self.innovations == "normal":
            return np.ones((len(draws), n_bars))

        def widths(rng: np.random.Generator, degrees: float) -> FloatArray:
            return (degrees - 2.0) / np.maximum(rng.chisquare(degrees, n_bars), _smallest_chi_square(degrees))

        return draws.each(widths, degrees_of_freedom)


def _smallest_chi_square(degrees: float) -> float:
    """Return a value that a chi-square number is below with probability `_RAREST_T` at most."""
    return 2.0 * math.exp((math.log(_RAREST_T) + math.lgamma(degrees / 2 + 1)) * 2.0 / degrees)


def _variances(parameters: Mapping[str, FloatArray], squares: FloatArray) -> FloatArray:
    """Return the variance of each bar, float64 (n, n_bars), from the squares of its innovations."""
    long_run, alpha, beta = parameters["volatility"] ** 2, parameters["alpha"], parameters["beta"]
    omega = long_run * (1.0 - alpha - beta)
    return recursion(_fed_back, (long_run, omega), alpha[:, None] * squares + beta[:, None])


def _fed_back(variance: Any, omega: Any, factors: Any) -> list[Any]:
    path = []
    for factor in factors:
        path.append(variance)
        variance = omega + factor * variance
    return path
