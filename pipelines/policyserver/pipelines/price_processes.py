"""Price processes: exact paths of the log-price on sub-steps of a bar, and the OHLCV bars made from them.

The unit of time is one bar. Both schemes are exact at any number of sub-steps: a finer path has the same law at the bars' closes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import numpy as np
from annotated_types import Gt, Interval

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import Bars, FloatArray
from policyserver.pipelines.market.priors import Prior

_EXPONENT_LIMIT = 30.0
"""Largest -log of the decay handled in one cumulative sum: e**30 is far from losing digits or overflowing."""

LOWEST_PRICE, HIGHEST_PRICE = 1e-15, 1e15
"""Bounds of every price that is given, in a file or as a level: an account's arithmetic stays far from what a float can hold."""

_PriceLevel = Annotated[Prior, Interval(ge=LOWEST_PRICE, le=HIGHEST_PRICE)]

_FURTHEST_LOG_PRICE = 230.0
"""Bound of a simulated log-price: e**230 is 1e100."""

_SIGMAS = 9.0
"""Standard deviations within which every path stays: a normal number beyond them is drawn once in 1e18 times."""


class LogPathProcess(Protocol):
    """A law of log-prices whose parameters are drawn anew for each episode."""

    @property
    def name(self) -> str:
        """Short name, recorded with each episode."""

    def check(self, n_bars: int) -> None:
        """Raise a ValueError that names the parameter when paths of `n_bars` could leave what a price can be."""

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw an episode's parameters from the priors."""

    def log_path(self, rng: np.random.Generator, parameters: dict[str, float], n_steps: int, steps_per_bar: int) -> FloatArray:
        """Return the log-price at 0, 1/k, 2/k, ... bars, k = `steps_per_bar`: float64 of length `n_steps + 1`."""


@dataclass(frozen=True, slots=True)
class GbmConfig(Config):
    """Geometric Brownian motion: log-returns are independent and normal."""

    start_price: _PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first warm-up bar."""
    price_drift: Prior = field(default_factory=lambda: Prior.fixed(0.0))
    """mu per bar, E[S(t+1) | S(t)] = S(t) exp(mu): 0 is a fair game, with a log drift of -volatility**2 / 2."""
    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """Standard deviation of the log-return per bar."""

    name = "gbm"

    def check(self, n_bars: int) -> None:
        """Refuse drift and volatility whose paths could leave what a price can be."""
        drift, volatility = max(abs(self.price_drift.low), abs(self.price_drift.high)), self.volatility.high
        of_drift = n_bars * drift
        of_volatility = n_bars * volatility**2 / 2 + _SIGMAS * volatility * math.sqrt(n_bars)
        if of_drift + of_volatility + _furthest(self.start_price) > _FURTHEST_LOG_PRICE:
            name, value = ("price_drift", drift) if of_drift > of_volatility else ("volatility", volatility)
            raise ValueError(f"{name}: expected prices from 1e-100 to 1e+100 in {n_bars} bars, received up to {value:g} per bar")

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw start_price, price_drift and volatility."""
        return {
            "start_price": self.start_price.draw(rng),
            "price_drift": self.price_drift.draw(rng),
            "volatility": self.volatility.draw(rng),
        }

    def log_path(self, rng: np.random.Generator, parameters: dict[str, float], n_steps: int, steps_per_bar: int) -> FloatArray:
        """Return the path of x(t) = x(0) + (mu - s**2 / 2) t + s W(t)."""
        dt = 1.0 / steps_per_bar
        volatility = parameters["volatility"]
        returns = rng.standard_normal(n_steps) * (volatility * math.sqrt(dt))
        returns += (parameters["price_drift"] - 0.5 * volatility**2) * dt
        return np.concatenate(([0.0], np.cumsum(returns))) + math.log(parameters["start_price"])


@dataclass(frozen=True, slots=True)
class OuConfig(Config):
    """Ornstein-Uhlenbeck log-price, started from its stationary law: returns are a little predictable."""

    mean_price: _PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """exp of the level m that the log-price reverts to."""
    reversion: Annotated[Prior, Interval(gt=0, le=_EXPONENT_LIMIT)] = field(default_factory=lambda: Prior(0.04, 0.0625, "log_uniform"))
    """theta per bar: half of a distance from the level is gone after ln(2) / theta bars."""
    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """s: standard deviation of the log-price's shocks per bar; the stationary variance is s**2 / (2 theta)."""

    name = "ou"

    def check(self, n_bars: int) -> None:
        """Refuse a volatility whose paths could leave what a price can be."""
        stationary_std = self.volatility.high / math.sqrt(2.0 * self.reversion.low)
        if _SIGMAS * stationary_std + _furthest(self.mean_price) > _FURTHEST_LOG_PRICE:
            raise ValueError(
                f"volatility: expected prices from 1e-100 to 1e+100, received up to {self.volatility.high:g} per bar, "
                f"which with a reversion of {self.reversion.low:g} is a standard deviation of {stationary_std:g}"
            )

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw mean_price, reversion and volatility."""
        return {
            "mean_price": self.mean_price.draw(rng),
            "reversion": self.reversion.draw(rng),
            "volatility": self.volatility.draw(rng),
        }

    def log_path(self, rng: np.random.Generator, parameters: dict[str, float], n_steps: int, steps_per_bar: int) -> FloatArray:
        """Return the path of the exact AR(1): x(t + dt) = m + a (x(t) - m) + noise, a = exp(-theta dt)."""
        theta, dt = parameters["reversion"], 1.0 / steps_per_bar
        stationary_std = parameters["volatility"] / math.sqrt(2.0 * theta)
        start = stationary_std * rng.standard_normal()
        noise = rng.standard_normal(n_steps) * (stationary_std * math.sqrt(-math.expm1(-2.0 * theta * dt)))
        return math.log(parameters["mean_price"]) + autoregressive_path(start, theta * dt, noise)


def autoregressive_path(start: float, rate: float, noise: FloatArray) -> FloatArray:
    """Return y with y[0] = start and y[i + 1] = exp(-rate) y[i] + noise[i], by cumulative sums over blocks.

    Args:
        start: first value.
        rate: -log of the decay per step, positive.
        noise: shocks, float64 of length n.

    Returns:
        float64 of length n + 1.
    """
    path = np.empty(len(noise) + 1)
    path[0] = start
    block = max(1, int(_EXPONENT_LIMIT / rate))
    for first in range(0, len(noise), block):
        shocks = noise[first : first + block]
        weights = np.exp(-rate * np.arange(1, len(shocks) + 1))
        path[first + 1 : first + 1 + len(shocks)] = weights * (path[first] + np.cumsum(shocks / weights))
    return path


def bars_from_path(rng: np.random.Generator, log_path: FloatArray, steps_per_bar: int, start_time_ns: int, interval_ns: int) -> Bars:
    """Return the bars of a log-price path; each bar opens at the close before it.

    Volume is log-normal, larger in bars whose range is wide beside those so far, always positive.

    Args:
        rng: source of the volume's noise.
        log_path: log-prices, float64 of length n_bars * steps_per_bar + 1.
        steps_per_bar: sub-steps of one bar.
        start_time_ns: start of the first bar, nanoseconds since the Unix epoch.
        interval_ns: length of a bar in nanoseconds.
    """
    n_bars = (len(log_path) - 1) // steps_per_bar
    prices = np.exp(log_path)
    within = prices[1:].reshape(n_bars, steps_per_bar)
    opens = prices[:-1:steps_per_bar]
    highs = np.maximum(opens, within.max(axis=1))
    lows = np.minimum(opens, within.min(axis=1))
    ranges = np.log(highs / lows)
    usual_ranges = np.cumsum(ranges) / np.arange(1, n_bars + 1)
    relative_ranges = np.divide(ranges, usual_ranges, out=np.zeros(n_bars), where=usual_ranges > 0)
    volumes = np.exp(0.3 * rng.standard_normal(n_bars)) * 1000.0 * (0.5 + relative_ranges)
    times = start_time_ns + interval_ns * np.arange(1, n_bars + 1, dtype=np.int64)
    return Bars(times, opens, highs, lows, within[:, -1], volumes)


def _furthest(price: Prior) -> float:
    """Return the largest distance of the log-price from 0."""
    return max(abs(math.log(price.low)), abs(math.log(price.high)))
