"""Geometric Brownian motion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws, by_row
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import check_reach, drifting_reach, largest
from policyserver.pipelines.market.processes.process import DriftingProcess, log_prices


@dataclass(frozen=True, slots=True)
class GeometricBrownianMotion(DriftingProcess):
    """Geometric Brownian motion: log-returns are independent and normal. Exact at any number of sub-steps."""

    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.008, 0.0125, "log_uniform"))
    """Standard deviation of the log-return per bar."""

    def check(self, n_bars: int) -> None:
        """Refuse drift and volatility whose paths could leave what a price can be."""

        def reach(price_drift: float, volatility: float) -> float:
            return drifting_reach(self.start_price, n_bars, price_drift, volatility**2)

        check_reach(n_bars, reach, volatility=self.volatility.high, price_drift=largest(self.price_drift))

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row."""
        dt, volatility = 1.0 / steps_per_bar, parameters["volatility"]
        variance = by_row(lambda value: value**2, volatility)
        step_std = (volatility * math.sqrt(dt))[:, None]
        returns = draws.normal(n_steps)
        returns *= step_std
        returns += ((parameters["price_drift"] - 0.5 * variance) * dt)[:, None]
        return LogPaths(log_prices(parameters["start_price"], returns), step_std)
