"""The settings of an account, `[rules.account]`: its money, and what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from policyserver.common.settings import Config


@dataclass(frozen=True, slots=True)
class AccountConfig(Config):
    """Money of an episode, and what it carries."""

    initial_equity: Annotated[float, Interval(gt=0, le=1e15)] = 10_000.0
    """Cash at the start."""
    max_leverage: Annotated[float, Ge(1)] | None = 1.0
    """Largest gross exposure as a multiple of the equity, after each fill that opens a position: beyond it a fill is cut, and an order is
    rejected. 1: nothing is bought on credit, costs included; none: not looked at, so that cash may be negative."""
    maintenance_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """A margin call closes all positions when the equity is below this fraction of the gross exposure."""
    max_live_orders: Annotated[int, Interval(ge=1, le=1000)] = 16
    """Live orders of an episode, those of all symbols together; as many as there are symbols, if these are more."""

    def _check(self) -> None:
        if self.max_leverage is None and self.maintenance_fraction:
            raise ValueError(f"maintenance_fraction: expected 0 without max_leverage, received {self.maintenance_fraction}")
        if self.max_leverage is not None and self.maintenance_fraction * self.max_leverage >= 1:
            below = f"less than 1 / max_leverage = {1 / self.max_leverage:g}"
            raise ValueError(f"maintenance_fraction: expected {below}, received {self.maintenance_fraction}")
