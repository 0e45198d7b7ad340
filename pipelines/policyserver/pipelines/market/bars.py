"""Bars: the price of one symbol over one interval, one by one (`Bar`) or as columns (`Bars`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `low <= min(open, close) <= max(open, close) <= high`."""

    index: int
    """Position in the episode: 0 is the bar at whose close the first action is taken; warm-up bars before it are negative."""
    time_ns: int
    """End of the interval, nanoseconds since the Unix epoch."""
    open: float
    """First price of the interval."""
    high: float
    """Highest price of the interval."""
    low: float
    """Lowest price of the interval."""
    close: float
    """Last price of the interval, the one an account is marked at."""
    volume: float
    """Units traded in the interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Consecutive bars as columns of one length."""

    time_ns: IntArray
    """End of each interval, int64 nanoseconds since the Unix epoch, increasing."""
    open: FloatArray
    """First prices, float64."""
    high: FloatArray
    """Highest prices, float64."""
    low: FloatArray
    """Lowest prices, float64."""
    close: FloatArray
    """Last prices, float64."""
    volume: FloatArray
    """Units traded, float64."""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.__slots__}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Bars: expected columns of one length, received {lengths}")

    def __len__(self) -> int:
        return len(self.close)

    def slice(self, start: int, stop: int) -> Bars:
        """Return the bars `start` (inclusive) to `stop` (exclusive) as views."""
        return Bars(*(getattr(self, name)[start:stop] for name in self.__slots__))

    def rows(self, first_index: int) -> Iterator[Bar]:
        """Yield the bars one by one, the first of them numbered `first_index`."""
        columns = (getattr(self, name).tolist() for name in self.__slots__)
        for index, values in enumerate(zip(*columns, strict=True), start=first_index):
            yield Bar(index, *values)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The recorded bars of a symbol, of which its episodes are windows that overlap."""

    bars: Bars
    """All bars there are, in the order of time."""
    window_bars: int
    """Length of an episode, warm-up included."""


@dataclass(frozen=True, slots=True, eq=False)
class BarRows:
    """One bar each of m rows, which trade K symbols: what a market sends on as soon as it has closed."""

    time_ns: IntArray
    """Ends of the intervals, int64 nanoseconds since the Unix epoch, (m,)."""
    open: FloatArray
    """First prices, float64 (m, K)."""
    high: FloatArray
    """Highest prices, float64 (m, K)."""
    low: FloatArray
    """Lowest prices, float64 (m, K)."""
    close: FloatArray
    """Last prices, float64 (m, K)."""
    volume: FloatArray
    """Units traded, float64 (m, K)."""
