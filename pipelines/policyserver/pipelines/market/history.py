"""The newest bars of each row, as windows of one length."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.rows import Rows, count_up

FIELDS = ("open", "high", "low", "close", "volume")
"""What is kept of a bar, in this order."""

_CLOSE = FIELDS.index("close")


_LEAST_ROOM = 64
"""Bars that a row takes in, at least, from one time that its window is moved to the time after."""


class BarWindows:
    """The last `length` bars of n rows and K symbols, written one behind the other; a row at its end has its window moved to its front."""

    def __init__(self, n_rows: int, n_symbols: int, length: int, n_extras: int = 0) -> None:
        """Keep `length` bars of each row, with `n_extras` further columns; 0 keeps none."""
        self.length = length
        """Bars kept."""
        self._places = length + max(_LEAST_ROOM, length) if length else 0
        self._bars = np.zeros((n_rows * self._places, n_symbols, len(FIELDS) + n_extras))
        self._first = np.arange(n_rows) * self._places
        self._next = self._first + length
        self._room = self._places - length
        """Bars for which every row has room, at least."""
        self._offsets = np.arange(-length, 0)

    def begin(self, rows: Rows, bars: FloatArray) -> None:
        """Begin new rows with their warm-up bars, float64 (m, w, K, 5 + E) with w at least `length`."""
        if self.length:
            self._put_in_front(rows, bars[:, -self.length :])

    def _put_in_front(self, rows: Rows, windows: FloatArray) -> None:
        self._next[rows] = following = self._first[rows] + self.length
        self._bars[following[:, None] + self._offsets] = windows

    def update(self, rows: Rows, bar: BarRows) -> None:
        """Take in a bar that has closed."""
        if self.length:
            if not self._room:
                self._make_room()
            self._room -= 1
            self._bars[self._next[rows]] = bar.columns
            count_up(self._next, rows)

    def _make_room(self) -> None:
        """Move the windows of the rows that have least of it."""
        used = self._next - self._first
        full = (used > self.length + (self._places - self.length) // 2).nonzero()[0]
        self._put_in_front(full, self.window(full, self.length))
        self._room = self._places - int((self._next - self._first).max())

    def closes(self, rows: Rows, bars_ago: IntArray) -> FloatArray:
        """Return the closes of some bars ago, 0 being the newest, float64 (m, len(bars_ago), K); each is below `length`."""
        closes: FloatArray = self._bars.take(self._next[rows][:, None] - (1 + bars_ago), axis=0)[..., _CLOSE]
        return closes

    def window(self, rows: Rows, count: int) -> FloatArray:
        """Return the newest `count` bars, at most `length`, oldest first: float64 (m, count, K, 5 + E), FIELDS before further columns."""
        window: FloatArray = self._bars.take(self._next[rows][:, None] + self._offsets[self.length - count :], axis=0)
        return window
