"""What the next log-return of a recorded history is forecast from, bar by bar in constant time."""

from __future__ import annotations

import math
from collections import deque

_FAST_BARS = 8


class TrackFeatures:
    """Running means of log-prices. The slow one is of as many bars as an episode has, so that it means what it does in an episode."""

    def __init__(self, slow_bars: int) -> None:
        """Start without any bar; the slow mean is of the newest `slow_bars`."""
        self._count = 0
        self._fast_mean = self._slow_mean = 0.0
        self._newest: deque[float] = deque(maxlen=slow_bars)
        self._log_price = 0.0
        self.last_return = math.nan
        """Last log-return: the label of the bar before; NaN before the second bar."""

    def update(self, close: float) -> None:
        """Take in a bar that has closed."""
        log_price = math.log(close)
        self._count += 1
        if self._count == 1:
            self._fast_mean = log_price
        else:
            self.last_return = log_price - self._log_price
        self._fast_mean += (log_price - self._fast_mean) / min(self._count, _FAST_BARS)
        newest = self._newest
        if len(newest) == newest.maxlen:
            self._slow_mean += (log_price - newest[0]) / len(newest)
        else:
            self._slow_mean += (log_price - self._slow_mean) / self._count
        newest.append(log_price)
        self._log_price = log_price

    def inputs(self) -> dict[str, float]:
        """Return the inputs by name; see `policyserver.pipelines.forecast.block_forecaster.INPUTS`."""
        return {
            "distance_slow": self._log_price - self._slow_mean,
            "distance_fast": self._log_price - self._fast_mean,
            "return_1": self.last_return,
        }
