"""A histogram of call durations: quantiles within one per cent, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

_SMALLEST_S = 1e-6
_LARGEST_S = 1e3
_RATIO = 1.01
_LOG_RATIO = math.log(_RATIO)
_BUCKETS = math.ceil(math.log(_LARGEST_S / _SMALLEST_S) / _LOG_RATIO) + 1


class LatencyHistogram:
    """Counts durations in buckets whose bounds grow by one per cent, from a microsecond to a thousand seconds.

    One thread adds; any thread may read, and sees a state that is at most one addition old.
    """

    def __init__(self) -> None:
        """Start without a duration."""
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)
        self.max_s = 0.0
        """Longest duration so far, exact, seconds."""

    def add(self, duration_s: float, count: int = 1) -> None:
        """Count a duration that `count` actions waited for."""
        index = int(math.log(max(duration_s, _SMALLEST_S) / _SMALLEST_S) / _LOG_RATIO)
        self._counts[min(index, _BUCKETS - 1)] += count
        if duration_s > self.max_s:
            self.max_s = duration_s

    @classmethod
    def merged(cls, parts: Iterable[LatencyHistogram]) -> LatencyHistogram:
        """Return the sum of several histograms."""
        total = cls()
        for part in parts:
            total._counts += part._counts
            total.max_s = max(total.max_s, part.max_s)
        return total

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """Return what was added after `earlier`, an older copy of this histogram; `max_s` remains that of all."""
        difference = LatencyHistogram()
        difference._counts = self._counts - earlier._counts
        difference.max_s = self.max_s
        return difference

    def doubling(self) -> tuple[list[int], float]:
        """Return the counts in classes of at most 1, 2, 4, ... microseconds, the last of all others, and about the sum of all, seconds."""
        middles_s = _SMALLEST_S * np.exp(_LOG_RATIO * (np.arange(_BUCKETS) + 0.5))
        classes = np.maximum(np.ceil(np.log2(middles_s / _SMALLEST_S)).astype(np.int64), 0)
        counts = np.bincount(classes, weights=self._counts).astype(np.int64).tolist()
        return [*counts, 0], float(middles_s @ self._counts)

    @property
    def count(self) -> int:
        """Number of durations counted."""
        return int(self._counts.sum())

    def quantile_s(self, share: float) -> float:
        """Return the duration that `share` (0 to 1) of the actions did not exceed, seconds; NaN without any."""
        total = self.count
        if total == 0:
            return math.nan
        index = int(np.searchsorted(np.cumsum(self._counts), max(1.0, share * total)))
        return min(_SMALLEST_S * math.exp(_LOG_RATIO * (index + 0.5)), self.max_s)
