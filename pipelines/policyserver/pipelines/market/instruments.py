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
from policyserver.pipelines.market.rows import ALL, Rows


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
    """Distance of bid and ask as a fraction of the price, which lies in the middle: each fill pays half of it. A limit to buy waits for the
    ask, one to sell for the bid: it fills at the open if that is at its price or better, and pays the ask and the slippage, never more than
    its price; else it rests, and pays its own price once the ask (or bid) has reached it. A stop waits for the price itself."""
    slippage_fraction: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0001
    """Further distance of the fill price, against the trader, as a fraction of the price; a limit pays none beyond its own price."""
    volume_fraction: Annotated[float, Interval(gt=0, le=1)] | None = None
    """Largest part of a bar's volume that a row's orders fill together; none: volume is not looked at."""
    borrow_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Cost of a short for each bar, as a fraction of its value."""
    short_allowed: bool = True
    """Whether the position may become negative."""


class Instruments:
    """What each of n rows trades: the fields of K instruments as arrays, float64 (n, K) each."""

    def __init__(self, n_rows: int, configs: Sequence[InstrumentConfig]) -> None:
        """Let all rows trade the same K instruments, until they are given others."""
        shape = (n_rows, len(configs))
        for name in _COLUMNS:
            setattr(self, name, np.empty(shape))
        self.short_allowed = np.empty(shape, dtype=np.bool_)
        """Bool (n, K)."""
        self.set(ALL, configs)

    tick: FloatArray
    lot: FloatArray
    fee_fixed: FloatArray
    fee_per_unit: FloatArray
    fee_fraction: FloatArray
    fee_minimum: FloatArray
    cost_fraction: FloatArray
    """Distance of a fill price from the reference price, as a fraction of that."""
    half_spread: FloatArray
    """Distance of the ask, and of the bid, from the price, as a fraction of it."""
    volume_fraction: FloatArray
    """Infinity where volume is not looked at."""
    borrow_fraction: FloatArray

    def set(self, rows: Rows, configs: Sequence[InstrumentConfig]) -> None:
        """Let some rows trade these K instruments."""
        for name in ("tick", "lot", "fee_fixed", "fee_per_unit", "fee_fraction", "fee_minimum", "borrow_fraction", "short_allowed"):
            getattr(self, name)[rows] = [getattr(config, name) for config in configs]
        self.cost_fraction[rows] = [config.spread_fraction / 2 + config.slippage_fraction for config in configs]
        self.half_spread[rows] = [config.spread_fraction / 2 for config in configs]
        self.volume_fraction[rows] = [math.inf if config.volume_fraction is None else config.volume_fraction for config in configs]
        self.has_ticks, self.has_lots = bool(self.tick.any()), bool(self.lot.any())
        self.has_spread = bool(self.half_spread.any())
        self.looks_at_volume = bool(np.isfinite(self.volume_fraction).any())
        self.costs_to_borrow = bool(self.borrow_fraction.any())
        self.bans_shorts = not self.short_allowed.all()
        self.has_order_fees = bool((self.fee_fixed + self.fee_per_unit + self.fee_minimum).any())
        """Whether a fee depends on more than the notional."""


_COLUMNS = (
    "tick",
    "lot",
    "fee_fixed",
    "fee_per_unit",
    "fee_fraction",
    "fee_minimum",
    "cost_fraction",
    "half_spread",
    "volume_fraction",
    "borrow_fraction",
)

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
