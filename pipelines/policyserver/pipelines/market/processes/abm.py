"""Arithmetic Brownian motion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Gt

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths
from policyserver.pipelines.market.processes.price_range import SIGMAS, PriceLevel, check_reach, furthest
from policyserver.pipelines.market.processes.process import PathProcess


@dataclass(frozen=True, slots=True)
class ArithmeticBrownianMotion(PathProcess):
    """Arithmetic Brownian motion: changes of the price, not returns, are independent and normal. Exact at any number of sub-steps."""

    start_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first bar."""
    price_drift: Prior = field(default_factory=lambda: Prior.fixed(0.0))
    """Expected change of the price per bar as a share of the start price."""
    volatility: Annotated[Prior, Gt(0)] = field(default_factory=lambda: Prior(0.002, 0.004, "log_uniform"))
    """Standard deviation of the change per bar as a share of the start price."""

    def check(self, n_bars: int) -> None:
        """Refuse drift and volatility whose paths could come to 0, where a price has no return."""

        def reach(price_drift: float, volatility: float) -> float:
            fall = n_bars * max(0.0, -price_drift) + SIGMAS * math.sqrt(n_bars) * volatility
            return furthest(self.start_price) - math.log1p(-fall) if fall < 1.0 else math.inf

        check_reach(n_bars, reach, volatility=self.volatility.high, price_drift=self.price_drift.low)

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row; a sub-step's standard deviation is that of a change, as a share of the price before it."""
        dt = 1.0 / steps_per_bar
        change_std = (parameters["volatility"] * math.sqrt(dt))[:, None]
        shares = np.ones((len(draws), n_steps + 1))
        np.cumsum(draws.normal(n_steps) * change_std + (parameters["price_drift"] * dt)[:, None], axis=1, out=shares[:, 1:])
        shares[:, 1:] += 1.0
        return LogPaths(np.log(shares * parameters["start_price"][:, None]), change_std / shares[:, :-1])
