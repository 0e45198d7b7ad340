"""Running statistics of prices, shared by everything that observes them: each is computed once a bar, in constant time.

Lengths are in bars, returns are log-returns. A statistic sees a row's warm-up bars at once, by `begin`, and each later bar by `update`; it
never sees a bar that has not closed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import ALL, Rows

SMALLEST_VOLATILITY = 1e-6
"""Floor of a volatility, which others divide by."""


class LogPrices:
    """The log of each row's last close, and its last log-return."""

    def __init__(self, n_rows: int, n_symbols: int) -> None:
        """Start without any bar."""
        self.log_price: FloatArray = np.zeros((n_rows, n_symbols))
        """Log of the last close, float64 (n, K)."""
        self.last_return: FloatArray = np.zeros((n_rows, n_symbols))
        """Last log-return, float64 (n, K); 0 after the first bar."""
        self.seen = np.zeros((n_rows, 1))
        """Bars seen, warm-up included, float64 (n, 1): a mean divides by it."""
        self._least_seen = 0
        """Bars that every row has seen, at least."""

    def begin(self, rows: Rows, log_closes: FloatArray) -> None:
        """Take in the warm-up bars of new rows, log-closes float64 (m, w, K)."""
        self.log_price[rows] = log_closes[:, -1]
        self.last_return[rows] = log_closes[:, -1] - log_closes[:, -2] if log_closes.shape[1] > 1 else 0.0
        self.seen[rows] = log_closes.shape[1]
        self._least_seen = int(self.seen.min())

    def update(self, rows: Rows, close: FloatArray) -> None:
        """Take in a bar, closes float64 (m, K)."""
        log_price = np.log(close)
        self.last_return[rows] = log_price - self.log_price[rows]
        self.log_price[rows] = log_price
        if rows is ALL:
            self.seen += 1.0
            self._least_seen += 1
        else:
            self.seen[rows] += 1.0

    def seen_at_most(self, rows: Rows, bars: int, before: int = 0) -> FloatArray | int:
        """Return the smaller of `bars` and the bars seen less `before`, float64 (m, 1): as one number once all rows have as many."""
        return bars if self._least_seen - before >= bars else np.minimum(self.seen[rows] - before, bars)


@dataclass(frozen=True, slots=True)
class Statistic:
    """What is computed of each symbol's log-prices. Two of one type and the same fields are computed once."""

    def memory_bars(self) -> int:
        """Return how many bars it remembers, as far as that is a number of its own; 1: as many as an episode has."""
        return 1

    def begin(self, value: FloatArray, rows: Rows, log_closes: FloatArray) -> None:
        """Set the value of new rows from their warm-up bars, log-closes float64 (m, w, K)."""
        raise NotImplementedError

    def update(self, value: FloatArray, rows: Rows, prices: LogPrices) -> None:
        """Take a bar into the value, float64 (n, K); `prices` knows it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ExponentialMean(Statistic):
    """Mean log-price that forgets: of the first `bars` the mean, then a step of 1 / bars towards each."""

    bars: int
    """Bars that it remembers."""

    def memory_bars(self) -> int:
        """See `Statistic`."""
        return self.bars

    def begin(self, value: FloatArray, rows: Rows, log_closes: FloatArray) -> None:
        """See `Statistic`."""
        first = log_closes[:, 0]
        value[rows] = first + np.tensordot(log_closes - first[:, None], _weights(log_closes.shape[1], self.bars), axes=(1, 0))

    def update(self, value: FloatArray, rows: Rows, prices: LogPrices) -> None:
        """See `Statistic`."""
        before = value[rows]
        value[rows] = before + (prices.log_price[rows] - before) / prices.seen_at_most(rows, self.bars)


@dataclass(frozen=True, slots=True)
class MeanSinceStart(Statistic):
    """Mean log-price of all bars since the first warm-up bar."""

    def begin(self, value: FloatArray, rows: Rows, log_closes: FloatArray) -> None:
        """See `Statistic`."""
        first = log_closes[:, 0]
        value[rows] = first + (log_closes - first[:, None]).mean(axis=1)

    def update(self, value: FloatArray, rows: Rows, prices: LogPrices) -> None:
        """See `Statistic`."""
        before = value[rows]
        value[rows] = before + (prices.log_price[rows] - before) / prices.seen[rows]


@dataclass(frozen=True, slots=True)
class Volatility(Statistic):
    """Root mean square log-return that forgets, as `ExponentialMean` does; at least `SMALLEST_VOLATILITY`."""

    bars: int = 32
    """Returns that it remembers."""

    def memory_bars(self) -> int:
        """See `Statistic`."""
        return self.bars + 1

    def begin(self, value: FloatArray, rows: Rows, log_closes: FloatArray) -> None:
        """See `Statistic`."""
        if log_closes.shape[1] < 2:
            value[rows] = SMALLEST_VOLATILITY
            return
        squares = np.square(np.diff(log_closes, axis=1))
        variance = np.tensordot(squares, _weights(squares.shape[1], self.bars), axes=(1, 0))
        value[rows] = np.maximum(np.sqrt(variance), SMALLEST_VOLATILITY)

    def update(self, value: FloatArray, rows: Rows, prices: LogPrices) -> None:
        """See `Statistic`."""
        variance = np.square(value[rows])
        variance += (np.square(prices.last_return[rows]) - variance) / prices.seen_at_most(rows, self.bars, before=1)
        value[rows] = np.maximum(np.sqrt(variance, out=variance), SMALLEST_VOLATILITY)


@functools.cache
def _weights(count: int, bars: int) -> FloatArray:
    """Return the weights, float64 (count,), of the values in a mean that takes step 1 / min(t, bars) towards the value number t."""
    steps = 1.0 / np.minimum(np.arange(1, count + 1), bars)
    kept = np.concatenate((np.cumprod((1.0 - steps[1:])[::-1])[::-1], [1.0]))
    return steps * kept


class Statistics:
    """The statistics that a block computes, each once, however many parts read it."""

    def __init__(self, n_rows: int, n_symbols: int, wanted: frozenset[Statistic]) -> None:
        """Compute what is wanted of n rows and K symbols."""
        self.prices = LogPrices(n_rows, n_symbols)
        """Log-prices and last returns."""
        self._values = {statistic: np.zeros((n_rows, n_symbols)) for statistic in wanted}

    def __getitem__(self, statistic: Statistic) -> FloatArray:
        """Return the values of a statistic that was wanted, float64 (n, K): one array, which each bar changes in place.

        Raises:
            KeyError: No scheme has declared it. Where the observers are left out, as in the baselines, theirs are, too.
        """
        try:
            return self._values[statistic]
        except KeyError:
            declared = ", ".join(map(str, self._values)) or "none"
            raise KeyError(
                f"statistics: expected one that the scheme that reads it declares in its `statistics`; declared are {declared}; "
                f"received {statistic}"
            ) from None

    def begin(self, rows: Rows, closes: FloatArray) -> None:
        """Begin new rows with their warm-up bars, closes float64 (m, w, K)."""
        log_closes = np.log(closes)
        self.prices.begin(rows, log_closes)
        for statistic, value in self._values.items():
            statistic.begin(value, rows, log_closes)

    def update(self, rows: Rows, close: FloatArray) -> None:
        """Take in a bar that has closed, closes float64 (m, K)."""
        self.prices.update(rows, close)
        for statistic, value in self._values.items():
            statistic.update(value, rows, self.prices)
