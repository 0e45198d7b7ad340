"""Further columns of the files: news, weather, other markets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, Shape, View, by_symbol, of_each


@dataclass(frozen=True, slots=True)
class Exogenous(Observer):
    """Each of `columns` as it stands in the last bar's row: what a row says counts as known at the end of its bar."""

    columns: tuple[str, ...] = ()
    """Names of columns, those of `prices.recorded.files.columns`."""
    scale: float = 1.0
    """What a number is multiplied by."""

    def history_bars(self) -> int:
        """See `Scheme`."""
        return 1

    def bar_columns(self) -> tuple[str, ...]:
        """See `Scheme`."""
        return self.columns

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, self.columns)

    def new_state(self, shape: Shape) -> Any:
        """Return where the columns are."""
        return [len(FIELDS) + shape.columns.index(column) for column in self.columns]

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        bars = view.history.window(rows, 1)[:, 0]
        return self.scale * by_symbol(*(bars[..., place] for place in state)) if state else np.empty((len(bars), 0))
