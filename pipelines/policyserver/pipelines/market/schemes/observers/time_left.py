"""How much of the episode is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, View


@dataclass(frozen=True, slots=True)
class TimeLeft(Observer):
    """`time_left`: share of the episode's actions still to be taken, 1 at the first action."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return ("time_left",)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        share: FloatArray = 1.0 - view.clock[rows] / view.n_steps[rows]
        return share[:, None]
