"""The recorded bars of one symbol, or of several, on one line of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import Bars, FloatArray, IntArray
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.windows import begins_of, usual_interval


@dataclass(frozen=True, slots=True, eq=False)
class RecordedSymbol:
    """All bars of a symbol."""

    bars: Bars
    """The bars."""
    columns: FloatArray
    """Open, high, low, close, volume and E further columns, float64 (n, 5 + E)."""
    begins_ns: IntArray
    """When each bar began, int64 nanoseconds since the Unix epoch, (n,)."""

    @classmethod
    def of(cls, bars: Bars, extras: Mapping[str, FloatArray], names: Sequence[str], begins_ns: IntArray | None = None) -> RecordedSymbol:
        """Return the bars with the columns of these names; `begins_ns`: when they began, none: as their ends say."""
        columns = np.stack([*(getattr(bars, field) for field in FIELDS), *(extras[name] for name in names)], axis=1)
        columns.flags.writeable = False  # windows of it are handed out
        return cls(bars, columns, begins_of(bars.time_ns) if begins_ns is None else begins_ns)


@dataclass(frozen=True, slots=True, eq=False)
class TimeLine:
    """Bars of K symbols at the times at which any of them has one."""

    symbols: tuple[str, ...]
    """The symbols."""
    time_ns: IntArray
    """Ends of the bars, int64 (t,), increasing."""
    columns: FloatArray
    """Open, high, low, close, volume and E further columns, float64 (t, K, 5 + E); of a symbol without a bar its last close in place of
    all prices, no volume, and its last further columns."""
    present: npt.NDArray[np.bool_] | None
    """Which symbols have a bar, bool (t, K); none: all have."""
    own_rows: IntArray | None
    """Newest bar of each symbol among its own, int64 (t, K); none: of one symbol, whose bars these are."""
    interval_ns: int
    """Usual length of a bar, the shortest of all symbols."""
    covers: IntArray | None = None
    """How many bars of the line each symbol's own covers, this one the last of them, int64 (t, K), and of a symbol without a bar how many
    lie in its bar that isn't over; see `BarRows`. None: no bar covers two, so that none begins before an order that it may fill."""
    stale_bars: IntArray | None = None
    """How many bars of the line ago each symbol had its newest, int64 (t, K); none: all have."""

    @classmethod
    def of(cls, symbols: tuple[str, ...], recorded: Mapping[str, RecordedSymbol]) -> TimeLine:
        """Put symbols on one line of time, from the first moment at which all have had a bar to the last before one ends."""
        if len(symbols) == 1:
            single = recorded[symbols[0]]
            time_ns = single.bars.time_ns
            return cls(symbols, time_ns, single.columns[:, None], None, None, usual_interval(time_ns))
        each = [recorded[symbol] for symbol in symbols]
        times = np.unique(np.concatenate([one.bars.time_ns for one in each]))
        first, last = max(one.bars.time_ns[0] for one in each), min(one.bars.time_ns[-1] for one in each)
        times = times[(times >= first) & (times <= last)]
        if not len(times):
            spans = ", ".join(f"{symbol} {_dates(recorded[symbol].bars)}" for symbol in symbols)
            raise ValueError(f"symbols_per_episode: expected symbols with bars at one time, received {spans}")
        own = np.stack([np.searchsorted(one.bars.time_ns, times, side="right") - 1 for one in each], axis=1).astype(np.int64)
        columns = np.stack([one.columns[own[:, place]] for place, one in enumerate(each)], axis=1)
        present = np.stack([one.bars.time_ns[own[:, place]] == times for place, one in enumerate(each)], axis=1)
        close, volume = FIELDS.index("close"), FIELDS.index("volume")
        columns[..., :close] = np.where(present[..., None], columns[..., :close], columns[..., close : close + 1])
        columns[..., volume] = np.where(present, columns[..., volume], 0.0)
        columns.flags.writeable = False
        interval_ns = min(usual_interval(one.bars.time_ns) for one in each)
        if present.all():
            return cls(symbols, times, columns, None, own, interval_ns)
        rows = np.arange(len(times))[:, None]
        covers = np.empty(present.shape, dtype=np.int64)
        for place, one in enumerate(each):
            # The bar that ends here, or else the next one: the last bar of the line is before the last of any symbol, or is it.
            bar = np.minimum(own[:, place] + ~present[:, place], len(one.bars) - 1)
            covers[:, place] = np.maximum(rows[:, 0] + 1 - np.searchsorted(times, one.begins_ns[bar], side="right"), 0)
        stale_bars = rows - np.maximum.accumulate(np.where(present, rows, 0), axis=0)
        return cls(symbols, times, columns, present, own, interval_ns, covers if (covers > 1).any() else None, stale_bars)


def _dates(bars: Bars) -> str:
    first, last = (str(np.datetime64(int(bars.time_ns[end]), "ns").astype("M8[s]")) for end in (0, -1))
    return f"{first} to {last}"
