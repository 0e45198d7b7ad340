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
from policyserver.pipelines.market.processes.price_range import SIGMAS, PriceLevel
from policyserver.pipelines.market.processes.process import PathProcess

_LOWEST_SHARE = 0.01
"""Share of the start price below which no path may come: a price of 0 has no return."""


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
        """Refuse drift and volatility whose paths could come near 0."""
        fall, room = n_bars * max(0.0, -self.price_drift.low), 1.0 - _LOWEST_SHARE
        spread, wanted = SIGMAS * math.sqrt(n_bars), f"for a price that stays above {_LOWEST_SHARE:g} of its start in {n_bars} bars"
        if fall >= room:
            raise ValueError(f"price_drift: expected more than {-room / n_bars:.3g}, {wanted}, received down to {self.price_drift.low:g}")
        if fall + spread * self.volatility.high > room:
            allowed = (room - fall) / spread
            raise ValueError(f"volatility: expected at most {allowed:.3g}, {wanted}, received up to {self.volatility.high:g}")

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row; a sub-step's standard deviation is that of a change, as a share of the price before it."""
        dt = 1.0 / steps_per_bar
        change_std = (parameters["volatility"] * math.sqrt(dt))[:, None]
        shares = np.ones((len(draws), n_steps + 1))
        np.cumsum(draws.normal(n_steps) * change_std + (parameters["price_drift"] * dt)[:, None], axis=1, out=shares[:, 1:])
        shares[:, 1:] += 1.0
        return LogPaths(np.log(shares * parameters["start_price"][:, None]), change_std / shares[:, :-1])
