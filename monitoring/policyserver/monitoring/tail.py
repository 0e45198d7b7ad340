"""The newest rows of an endless table, for statistics over "the last tenth" in constant memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Tail:
    """Keeps the newest `capacity` rows of float64 columns and counts all of them. Thread-safe."""

    def __init__(self, columns: Sequence[str], capacity: int) -> None:
        """Make an empty table.

        Args:
            columns: names of the columns.
            capacity: rows kept. The last tenth of up to ten times as many rows is whole.
        """
        self.columns = tuple(columns)
        self._rows: FloatArray = np.empty((min(capacity, 1024), len(self.columns)))
        self._capacity = capacity
        self._lock = threading.Lock()  # guards _rows and count
        self.count = 0
        """Rows ever appended."""

    def extend(self, rows: Sequence[Sequence[float]] | FloatArray) -> None:
        """Append rows, each with a value for every column; at most `capacity` at a time."""
        if not len(rows):
            return
        self.extend_columns(*np.asarray(rows, dtype=np.float64).T)

    def extend_columns(self, *columns: FloatArray) -> None:
        """Append the n rows of which these are the columns; at most `capacity` at a time."""
        added = len(columns[0])
        with self._lock:
            while self.count + added > len(self._rows) < self._capacity:
                self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))[: self._capacity]
            first = self.count % len(self._rows)
            before_end = min(added, len(self._rows) - first)
            for place, column in enumerate(columns):
                self._rows[first : first + before_end, place] = column[:before_end]
                if before_end < added:
                    self._rows[: added - before_end, place] = column[before_end:]
            self.count += added

    def last(self, share: float) -> dict[str, FloatArray]:
        """Return the last `share` of all rows, at least one if there is any and at most `capacity`, oldest first, as columns."""
        return self.newest(max(round(share * self.count), min(self.count, 1)))

    def newest(self, count: int) -> dict[str, FloatArray]:
        """Return the newest `count` rows, or all that are kept, oldest first, as columns."""
        with self._lock:
            places = np.arange(self.count - min(count, self.count, len(self._rows)), self.count) % len(self._rows)
            rows = self._rows[places]
        return {name: rows[:, index] for index, name in enumerate(self.columns)}


def mean(values: FloatArray) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan
