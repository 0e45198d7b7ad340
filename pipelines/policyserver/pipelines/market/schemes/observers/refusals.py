"""Which orders of the last action were refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, View


@dataclass(frozen=True, slots=True)
class Refusals(Observer):
    """`refused`: orders of the last action that the limits on risk or the broker refused; on wish those of the first limits apart."""

    limits: Annotated[int, Interval(ge=0, le=100)] = 0
    """How many of the limits on risk, the first ones, have a number of their own: `refused_by_1` and so on."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return ("refused", *(f"refused_by_{place}" for place in range(1, self.limits + 1)))

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        return view.refusals[rows, : 1 + self.limits].astype(float)
