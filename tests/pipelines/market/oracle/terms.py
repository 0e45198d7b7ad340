"""What an account is told: bars, instruments, its own rules; and how values are rounded to a grid (README.md, sections 1, 2, 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

GRID = 1e-12
DUST = 1e-12
FIT = 1e-12
LEAST = 1e-9
MARGIN = 1e-9


def _is_on_grid(steps: float) -> bool:
    near = math.floor(steps + 0.5)
    return near >= 1 and abs(steps - near) <= GRID * near


def down(value: float, step: float) -> float:
    """Round a value that isn't negative down to a whole number of steps; a step of 0 is no grid."""
    if step == 0:
        return value
    steps = value / step
    return value if _is_on_grid(steps) else math.floor(steps) * step


def up(value: float, step: float) -> float:
    """Round a value that isn't negative up to a whole number of steps; a step of 0 is no grid."""
    if step == 0:
        return value
    steps = value / step
    return value if _is_on_grid(steps) else math.ceil(steps) * step


@dataclass(frozen=True, slots=True)
class Bar:
    open: float
    high: float
    low: float
    close: float
    volume: float
    steps: int = 1
    """Steps that it covers, this one the last of them."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high < math.inf:
            raise ValueError(f"bar: expected 0 < low <= open, close <= high, received {self}")
        if not 0 <= self.volume < math.inf:
            raise ValueError(f"volume: expected a finite number of at least 0, received {self.volume}")
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, received {self.steps}")


@dataclass(frozen=True, slots=True)
class Instrument:
    tick: float = 0.0
    lot: float = 0.0
    fee_fixed: float = 0.0
    fee_per_unit: float = 0.0
    fee_fraction: float = 0.0
    fee_minimum: float = 0.0
    spread_fraction: float = 0.0
    slippage_fraction: float = 0.0
    volume_fraction: float = math.inf
    borrow_fraction: float = 0.0
    short_allowed: bool = True

    def __post_init__(self) -> None:
        for name in ("tick", "lot", "fee_fixed", "fee_per_unit", "fee_minimum", "borrow_fraction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, received {getattr(self, name)}")
        for name, bound in (("fee_fraction", 1.0), ("spread_fraction", 1.0), ("slippage_fraction", 0.5)):
            if not 0 <= getattr(self, name) < bound:
                raise ValueError(f"{name}: expected at least 0 and less than {bound}, received {getattr(self, name)}")
        if not self.volume_fraction > 0:
            raise ValueError(f"volume_fraction: expected more than 0, received {self.volume_fraction}")


@dataclass(frozen=True, slots=True)
class Rules:
    initial_cash: float = 10_000.0
    max_leverage: float = 1.0
    maintenance_fraction: float = 0.0
    max_live_orders: int = 16
    reward_scale: float = 100.0
    equity_floor_fraction: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.initial_cash < math.inf:
            raise ValueError(f"initial_cash: expected more than 0, received {self.initial_cash}")
        if not self.max_leverage >= 1:
            raise ValueError(f"max_leverage: expected at least 1, received {self.max_leverage}")
        least = self.maintenance_fraction
        if not (least == 0 or 0 < least < 1 / self.max_leverage):
            raise ValueError(f"maintenance_fraction: expected 0 or less than 1 / max_leverage, received {least}")
        if not 0 < self.reward_scale < math.inf:
            raise ValueError(f"reward_scale: expected more than 0, received {self.reward_scale}")
        if not 0 < self.equity_floor_fraction < 1:
            raise ValueError(f"equity_floor_fraction: expected more than 0 and less than 1, received {self.equity_floor_fraction}")
