"""How old the prices are that stand for symbols without a bar of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, of_each


@dataclass(frozen=True, slots=True)
class Staleness(Observer):
    """`stale_bars`: bars of the other symbols since a symbol had one of its own; 0 where the last price is new."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, ("stale_bars",))

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        return view.stale_bars[rows].astype(np.float64)
