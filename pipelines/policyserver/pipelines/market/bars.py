"""Bars: the price of one symbol over one interval, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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

    def columns(self) -> FloatArray:
        """Return open, high, low, close and volume as one array of a single symbol, float64 (n, 1, 5)."""
        return np.stack([self.open, self.high, self.low, self.close, self.volume], axis=1)[:, None, :]

    def slice(self, start: int, stop: int) -> Bars:
        """Return the bars `start` (inclusive) to `stop` (exclusive) as views."""
        return Bars(*(getattr(self, name)[start:stop] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The recorded bars of a symbol, of which its episodes are windows that overlap."""

    bars: Bars
    """All bars there are, in the order of time."""
    window_bars: int
    """Length of an episode, warm-up included."""
    played: tuple[int, int] | None = None
    """Rows that episodes play, of a split: `start` inclusive, `stop` exclusive; none: all."""
    is_test: bool = False
    """Whether these are for testing."""
    begins_ns: IntArray | None = None
    """When each bar began, int64 nanoseconds since the Unix epoch, (n,); none: not known."""


@dataclass(frozen=True, slots=True, eq=False)
class BarRows:
    """One bar each of m rows, which trade K symbols: what a market sends on as soon as it has closed."""

    time_ns: IntArray
    """Ends of the intervals, int64 nanoseconds since the Unix epoch, (m,)."""
    columns: FloatArray
    """Open, high, low, close, volume and E further columns of the files, float64 (m, K, 5 + E)."""
    present: npt.NDArray[np.bool_] | None = None
    """Which symbols have a bar, bool (m, K), the others the prices of their last one; none: all have."""
    asks: npt.NDArray[np.bool_] | None = None
    """Of which rows the policy is asked at the close, bool (m,); none: of all."""
    covers: IntArray | None = None
    """How many bars of its row each symbol's own covers, this one the last of them, int64 (m, K): an order that was given within them is
    not filled here. Of a symbol without a bar how many lie in its bar that isn't over, 0: it has not begun. None: no bar covers two."""

    @classmethod
    def of(cls, time_ns: IntArray, *columns: FloatArray) -> BarRows:
        """Make bars of their columns, float64 (m, K) each."""
        return cls(time_ns, np.stack(columns, axis=-1))

    @property
    def open(self) -> FloatArray:
        """First prices, float64 (m, K)."""
        return self.columns[..., 0]

    @property
    def high(self) -> FloatArray:
        """Highest prices, float64 (m, K)."""
        return self.columns[..., 1]

    @property
    def low(self) -> FloatArray:
        """Lowest prices, float64 (m, K)."""
        return self.columns[..., 2]

    @property
    def close(self) -> FloatArray:
        """Last prices, float64 (m, K)."""
        return self.columns[..., 3]

    @property
    def volume(self) -> FloatArray:
        """Units traded, float64 (m, K)."""
        return self.columns[..., 4]

    def set(self, rows: slice | IntArray, new: BarRows) -> None:
        """Put the bars of some rows in the place of those that they have."""
        self.time_ns[rows] = new.time_ns
        self.columns[rows] = new.columns[..., : self.columns.shape[-1]]
