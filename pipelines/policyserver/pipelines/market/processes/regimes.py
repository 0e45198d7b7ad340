"""Markov regimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Gt, Interval

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import PriceLevel, check_reach, drifting_reach, largest
from policyserver.pipelines.market.processes.process import PathProcess, log_prices

_Probability = Annotated[float, Interval(ge=0, le=1)]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Regime(Config):
    """One state of the market: normal log-returns."""

    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """Standard deviation of the log-return per bar."""
    price_drift: Prior = field(default_factory=lambda: Prior.fixed(0.0))
    """Growth of the expected price per bar: the mean log-return is this less half the variance."""


def _calm_and_wild() -> tuple[Regime, ...]:
    return Regime(Prior(0.005, 0.008), Prior(0.0, 0.001)), Regime(Prior(0.015, 0.025), Prior(-0.002, 0.0))


@dataclass(frozen=True, slots=True)
class MarkovRegimes(PathProcess):
    """Geometric Brownian motion whose drift and volatility change, at bars' ends, with a hidden Markov chain.

    The chain begins in its stationary law. Exact at any number of sub-steps.
    Source: J. D. Hamilton, A new approach to the economic analysis of nonstationary time series and the business cycle, 1989.
    """

    start_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first bar."""
    regimes: tuple[Regime, ...] = field(default_factory=_calm_and_wild)
    """The states, at least two."""
    transitions: tuple[tuple[_Probability, ...], ...] = ((0.98, 0.02), (0.05, 0.95))
    """Probabilities of the next bar's regime, a row for each regime of this bar. A row sums to 1; a stay is 1 / (1 - p[i][i]) bars long."""

    def _check(self) -> None:
        n = len(self.regimes)
        if n < 2:
            raise ValueError(f"regimes: expected at least 2, received {n}")
        if len(self.transitions) != n:
            raise ValueError(f"transitions: expected {n} rows, one for each regime, received {len(self.transitions)}")
        for number, row in enumerate(self.transitions):
            if len(row) != n:
                raise ValueError(f"transitions[{number}]: expected {n} probabilities, one for each regime, received {len(row)}")
            if abs(sum(row) - 1.0) > _ROUNDING:
                raise ValueError(f"transitions[{number}]: expected a sum of 1, received {sum(row):g} of {list(row)}")
        if np.linalg.matrix_rank(np.array(self.transitions) - np.eye(n), _ROUNDING) < n - 1:
            raise ValueError(f"transitions: expected one set of regimes that the chain ends in, received several in {self.transitions}")

    def check(self, n_bars: int) -> None:
        """Refuse drifts and volatilities whose paths could leave what a price can be."""
        wild, volatility = max(((f"regimes[{i}].volatility", each.volatility.high) for i, each in enumerate(self.regimes)), key=_size)
        steep, drift = max(((f"regimes[{i}].price_drift", largest(each.price_drift)) for i, each in enumerate(self.regimes)), key=_size)

        def reach(**values: float) -> float:
            return drifting_reach(self.start_price, n_bars, values[steep], values[wild] ** 2)

        check_reach(n_bars, reach, **{wild: volatility, steep: drift})

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw start_price, and volatility and price_drift of each regime, numbered from 0."""
        parameters = {"start_price": self.start_price.draw(rng)}
        for number, regime in enumerate(self.regimes):
            parameters[f"volatility_{number}"] = regime.volatility.draw(rng)
            parameters[f"price_drift_{number}"] = regime.price_drift.draw(rng)
        return parameters

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row."""
        states = self.states(draws.uniform(n_steps // steps_per_bar))

        def of_steps(name: str) -> FloatArray:
            values = np.stack([parameters[f"{name}_{number}"] for number in range(len(self.regimes))], axis=1)
            return np.repeat(np.take_along_axis(values, states, axis=1), steps_per_bar, axis=1)

        volatility, dt = of_steps("volatility"), 1.0 / steps_per_bar
        step_std = volatility * np.sqrt(dt)
        returns = draws.normal(n_steps) * step_std
        returns += (of_steps("price_drift") - volatility**2 / 2) * dt
        return LogPaths(log_prices(parameters["start_price"], returns), step_std)

    def states(self, uniform: FloatArray) -> IntArray:
        """Return the regime of each bar, int64 (n, n_bars), from as many uniform numbers."""
        bounds = np.cumsum(np.array(self.transitions), axis=1)[:, :-1]
        firsts = np.searchsorted(np.cumsum(self.stationary())[:-1], uniform[:, 0], side="right")
        # Where each regime would lead, for all bars at once: what is left for Python is to follow.
        leads = np.zeros((len(uniform), uniform.shape[1] - 1, len(bounds)), dtype=np.int64)
        for bound in bounds.T:
            leads += uniform[:, 1:, None] >= bound
        rows = leads.reshape(len(uniform), -1).tolist()
        return np.array([_followed(first, row, len(bounds)) for first, row in zip(firsts.tolist(), rows, strict=True)])

    def stationary(self) -> FloatArray:
        """Return the share of bars that each regime has in the long run, float64 (n_regimes,)."""
        n = len(self.regimes)
        balance = np.vstack((np.array(self.transitions).T - np.eye(n), np.ones(n)))
        shares: FloatArray = np.linalg.lstsq(balance, np.append(np.zeros(n), 1.0))[0]
        return shares


def _size(setting: tuple[str, float]) -> float:
    return abs(setting[1])


def _followed(first: int, leads: list[int], n_regimes: int) -> list[int]:
    states = [first]
    for bar in range(0, len(leads), n_regimes):
        states.append(leads[bar + states[-1]])
    return states
