"""Instruments: the grid, the costs and the limits of what is traded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import FloatArray


@dataclass(frozen=True, slots=True)
class InstrumentConfig(Config):
    """Grid, costs and limits of one instrument. Fractions are of the traded notional or of the price, at each fill."""

    tick: Annotated[float, Ge(0)] = 0.0
    """Step of its prices; 0: none. Prices are rounded against the trader."""
    lot: Annotated[float, Ge(0)] = 0.0
    """Step of its quantities; 0: none. Quantities are rounded towards zero."""
    fee_fixed: Annotated[float, Ge(0)] = 0.0
    """Fee of each order that fills at all, in cash."""
    fee_per_unit: Annotated[float, Ge(0)] = 0.0
    """Fee of each unit, in cash."""
    fee_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.001
    """Fee as a fraction of the notional."""
    fee_minimum: Annotated[float, Ge(0)] = 0.0
    """Least fee of each order that fills at all, in cash."""
    spread_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Distance of bid and ask as a fraction of the price; each fill pays half of it."""
    slippage_fraction: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0001
    """Further distance of the fill price, against the trader, as a fraction of the price."""
    volume_fraction: Annotated[float, Interval(gt=0, le=1)] | None = None
    """Largest part of a bar's volume that a row's orders fill together; none: volume is not looked at."""
    borrow_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Cost of a short for each bar, as a fraction of its value."""
    short_allowed: bool = True
    """Whether the position may become negative."""


class Instruments:
    """The fields of K instruments as arrays, float64 (K,) each."""

    def __init__(self, configs: Sequence[InstrumentConfig]) -> None:
        """Take the instruments in the order of their symbols."""

        def column(name: str) -> FloatArray:
            return np.array([getattr(config, name) for config in configs], dtype=np.float64)

        self.tick, self.lot = column("tick"), column("lot")
        self.fee_fixed, self.fee_per_unit = column("fee_fixed"), column("fee_per_unit")
        self.fee_fraction, self.fee_minimum = column("fee_fraction"), column("fee_minimum")
        self.cost_fraction = column("spread_fraction") / 2 + column("slippage_fraction")
        """Distance of a fill price from the reference price, as a fraction of that."""
        self.volume_fraction = np.array([math.inf if c.volume_fraction is None else c.volume_fraction for c in configs])
        """Infinity where volume is not looked at."""
        self.borrow_fraction = column("borrow_fraction")
        self.short_allowed = np.array([config.short_allowed for config in configs])
        self.has_ticks, self.has_lots = bool(self.tick.any()), bool(self.lot.any())
        self.looks_at_volume = bool(np.isfinite(self.volume_fraction).any())
        self.costs_to_borrow = bool(self.borrow_fraction.any())
        self.has_order_fees = bool((self.fee_fixed + self.fee_per_unit + self.fee_minimum).any())
        """Whether a fee depends on more than the notional."""


_GRID = 1e-12
"""A value this near to a whole number of steps, relative to that number, is on the grid."""


def rounded(values: FloatArray, steps: FloatArray, up: np.ndarray | bool) -> FloatArray:
    """Return positive values rounded to their grids, up or down; a value on the grid stays the float that it is.

    Args:
        values: Float64 (m,), not negative.
        steps: Steps of the grids, float64 (m,); 0: no grid.
        up: Whether each is rounded up, bool (m,) or one for all.
    """
    has_grid = steps > 0
    safe = np.where(has_grid, steps, 1.0)
    numbers = values / safe
    near = np.floor(numbers + 0.5)
    keeps = ~has_grid | ((near >= 1) & (np.abs(numbers - near) <= _GRID * near)) | ~np.isfinite(numbers)
    result: FloatArray = np.where(keeps, values, np.where(up, np.ceil(numbers), np.floor(numbers)) * safe)
    return result
