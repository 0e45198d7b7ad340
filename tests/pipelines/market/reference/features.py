"""Features: what the regressor and the policy see. Everything comes from bars that have closed; nothing from the future.

One `FeatureState` belongs to one episode and is updated bar by bar in constant time. Lengths are in bars, returns are log-returns.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.forecast.regressor import Prediction
from tests.pipelines.market.reference.account import Account

FEATURES: dict[str, str] = {
    "return_1": "last log-return over the volatility",
    "return_5": "log-return of the last 5 bars over the volatility of 5 bars",
    "distance_fast": "log-price above its exponential mean of 8 bars, over the volatility of 8 bars",
    "distance_slow": "log-price above its mean since the first warm-up bar, over the volatility of 32 bars",
    "volatility": "natural log of the volatility (exponential root mean square return of 32 bars) over 0.01",
    "prediction": "predicted log-return over its standard deviation, times 10",
    "uncertainty": "standard deviation of the prediction's error over the volatility",
    "position": "value of the position over the equity: -1 one unit short, 0 none, 1 one unit long",
    "unrealised_profit": "log-equity gained since the last fill, over the volatility of 8 bars",
    "time_left": "share of the episode's actions still to be taken: 1 at the first action",
}
"""The ten observation features, in their order in the observation, and what they mean. All are clipped to [-100, 100]."""

REGRESSOR_FEATURES = ("distance_slow", "distance_fast", "return_1")
"""What the regressor predicts the next log-return from, in units of log-price."""

OBSERVATION_LIMIT = 100.0
"""Bound of every observation feature."""

_FAST_BARS = 8
_VOLATILITY_BARS = 32
_RETURN_BARS = 5
_REFERENCE_VOLATILITY = 0.01
_SMALLEST_VOLATILITY = 1e-6


class FeatureState:
    """Running statistics of one episode's prices. Not thread-safe: an episode has one owner at a time."""

    __slots__ = ("_closes", "_count", "_fast_mean", "_slow_closes", "_slow_mean", "_variance", "last_return", "log_price")

    def __init__(self, slow_bars: int | None = None) -> None:
        """Start without any bar.

        Args:
            slow_bars: newest bars that the mean of `distance_slow` is of; None: all since the first.
        """
        self._closes: deque[float] = deque(maxlen=_RETURN_BARS + 1)
        self._count = 0
        self._fast_mean = 0.0
        self._slow_mean = 0.0
        self._slow_closes: deque[float] | None = None if slow_bars is None else deque(maxlen=slow_bars)
        self._variance = 0.0
        self.log_price = 0.0
        """Log of the last close."""
        self.last_return = math.nan
        """Last log-return: the label of the bar before; NaN before the second bar."""

    @property
    def volatility(self) -> float:
        """Root mean square log-return per bar, exponentially weighted."""
        return max(math.sqrt(self._variance), _SMALLEST_VOLATILITY)

    def update(self, close: float) -> None:
        """Take in a bar that has closed."""
        log_price = math.log(close)
        self._count += 1
        if self._count == 1:
            self._fast_mean = log_price
        else:
            self.last_return = log_price - self.log_price
            self._variance += (self.last_return**2 - self._variance) / min(self._count - 1, _VOLATILITY_BARS)
        self._fast_mean += (log_price - self._fast_mean) / min(self._count, _FAST_BARS)
        self._update_slow_mean(log_price)
        self.log_price = log_price
        self._closes.append(log_price)

    def _update_slow_mean(self, log_price: float) -> None:
        newest = self._slow_closes
        if newest is not None and len(newest) == newest.maxlen:
            self._slow_mean += (log_price - newest[0]) / len(newest)
        else:
            self._slow_mean += (log_price - self._slow_mean) / self._count
        if newest is not None:
            newest.append(log_price)

    def regressor_features(self) -> dict[str, float]:
        """Return the regressor's features by name, see REGRESSOR_FEATURES."""
        return {
            "distance_slow": self.log_price - self._slow_mean,
            "distance_fast": self.log_price - self._fast_mean,
            "return_1": self.last_return,
        }

    def observation(self, prediction: Prediction, account: Account, time_left: float) -> npt.NDArray[np.float32]:
        """Return the observation at the last bar's close.

        Args:
            prediction: of the next bar's log-return.
            account: marked at the last bar's close.
            time_left: share of the episode's actions still to be taken.

        Returns:
            float32 of shape (10,), in the order of FEATURES, finite and within [-100, 100].
        """
        volatility = self.volatility
        last_return = self.last_return if self._count > 1 else 0.0
        solvent = account.equity > 0 and account.entry_equity > 0
        unrealised_profit = math.log(account.equity) - math.log(account.entry_equity) if solvent else 0.0
        values = (
            last_return / volatility,
            (self.log_price - self._closes[0]) / (volatility * math.sqrt(_RETURN_BARS)),
            (self.log_price - self._fast_mean) / (volatility * math.sqrt(_FAST_BARS)),
            (self.log_price - self._slow_mean) / (volatility * math.sqrt(_VOLATILITY_BARS)),
            math.log(volatility / _REFERENCE_VOLATILITY),
            10.0 * prediction.mean / prediction.std if prediction.std > 0 else 0.0,
            prediction.std / volatility,
            account.exposure,
            unrealised_profit / (volatility * math.sqrt(_FAST_BARS)),
            time_left,
        )
        return np.array([min(max(value, -OBSERVATION_LIMIT), OBSERVATION_LIMIT) for value in values], dtype=np.float32)
