"""Differences of columns: what is left of a level when its trend is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, Shape, View, by_symbol, of_each


@dataclass(frozen=True, slots=True)
class Differenced(Observer):
    """`column_log_diff_b`, or `column_diff_b`: each of `columns` less what it was b bars before, for each b of `bars`."""

    columns: tuple[str, ...] = ("close",)
    """Fields of a bar, or names of `prices.recorded.files.columns`."""
    bars: tuple[Annotated[int, Ge(1)], ...] = (1,)
    """Spans."""
    log: bool = True
    """Whether logarithms are taken before, of which what is not positive has that of the smallest positive number."""
    scale: float = 100.0
    """What a difference is multiplied by: 100 makes 1 of about one per cent, of logarithms."""

    def history_bars(self) -> int:
        """See `Scheme`."""
        return max(self.bars) + 1

    def bar_columns(self) -> tuple[str, ...]:
        """See `Scheme`."""
        return tuple(column for column in self.columns if column not in FIELDS)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        kind = "log_diff" if self.log else "diff"
        return of_each(symbols, tuple(f"{column}_{kind}_{bars}" for column in self.columns for bars in self.bars))

    def new_state(self, shape: Shape) -> Any:
        """Return where the columns are."""
        return [(*FIELDS, *shape.columns).index(column) for column in self.columns]

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        values = view.history.window(rows, self.history_bars())[..., state]
        if self.log:
            values = np.log(np.maximum(values, np.finfo(float).tiny))
        differences = [values[:, -1, :, column] - values[:, -1 - bars, :, column] for column in range(len(state)) for bars in self.bars]
        return self.scale * by_symbol(*differences)
