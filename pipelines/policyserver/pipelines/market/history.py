"""The newest bars of each row, as windows of one length."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import BarRows, FloatArray
from policyserver.pipelines.market.rows import Rows

FIELDS = ("open", "high", "low", "close", "volume")
"""What is kept of a bar, in this order."""

_CLOSE = FIELDS.index("close")


class BarWindows:
    """The last `length` bars of n rows and K symbols. Each bar is written twice, `length` places apart, so that a window is one piece."""

    def __init__(self, n_rows: int, n_symbols: int, length: int, n_extras: int = 0) -> None:
        """Keep `length` bars of each row, with `n_extras` further columns; 0 keeps none."""
        self.length = length
        """Bars kept."""
        self._bars = np.zeros((n_rows, 2 * length, n_symbols, len(FIELDS) + n_extras))
        self._next = np.zeros(n_rows, dtype=np.int64)
        self._all_rows = np.arange(n_rows)

    def begin(self, rows: Rows, bars: FloatArray) -> None:
        """Begin new rows with their warm-up bars, float64 (m, w, K, 5 + E) with w at least `length`."""
        if self.length:
            newest = bars[:, -self.length :]
            self._bars[rows, : self.length] = newest
            self._bars[rows, self.length :] = newest
            self._next[rows] = 0

    def update(self, rows: Rows, bar: BarRows) -> None:
        """Take in a bar that has closed."""
        if self.length:
            numbers, places = self._all_rows[rows], self._next[rows]
            self._bars[numbers, places] = bar.columns
            self._bars[numbers, places + self.length] = bar.columns
            self._next[rows] = (places + 1) % self.length

    def closes(self, rows: Rows, bars_ago: int) -> FloatArray:
        """Return the closes of some bars ago, 0 being the newest, float64 (m, K); `bars_ago` is below `length`."""
        closes: FloatArray = self._bars[self._all_rows[rows], self._next[rows] + (self.length - 1 - bars_ago), :, _CLOSE]
        return closes

    def window(self, rows: Rows, count: int) -> FloatArray:
        """Return the newest `count` bars, at most `length`, oldest first: float64 (m, count, K, 5 + E), FIELDS before further columns."""
        places = self._next[rows][:, None] + np.arange(self.length - count, self.length)
        window: FloatArray = self._bars[self._all_rows[rows][:, None], places]
        return window
