"""The bars of many episodes, dripped: each call gives the next bar of each row, and nothing downstream holds a later one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.history import FIELDS

_Kind = TypeVar("_Kind", np.bool_, np.int64)

_CHUNK_BARS = 256
"""Bars of a row that are copied at a time: longer episodes stay where they are, and are not copied whole."""


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeBars:
    """What one episode is played on."""

    time_ns: IntArray
    """Ends of the intervals, int64 nanoseconds since the Unix epoch, increasing, (t,)."""
    bars: FloatArray
    """Open, high, low, close, volume and E further columns, float64 (t, K, 5 + E); may be a view of a longer history."""
    warmup_bars: int
    """Bars up to the first action, which is taken at the close of the last of them; at least 1."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What was drawn for this episode, to be recorded."""
    asks: npt.NDArray[np.bool_] | None = None
    """At the close of which bars the policy is asked, bool (t,), that of the first action among them; none: at each from there on. In
    between it keeps its positions, and its next reward is the sum."""
    present: npt.NDArray[np.bool_] | None = None
    """Which symbols have a bar, bool (t, K); the others have the last prices again, without volume; none: all have."""
    covers: IntArray | None = None
    """How many of these bars each symbol's own covers, int64 (t, K); see `BarRows`."""
    stale_bars: IntArray | None = None
    """How many bars before that of the first action each symbol had its newest, int64 (K,); none: it has one there."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        shape = self.bars.shape
        if len(shape) != 3 or shape[0] != len(self.time_ns) or shape[2] < len(FIELDS):
            raise ValueError(f"bars: expected {len(self.time_ns)} bars of K symbols and {len(FIELDS)} columns, received {shape}")
        if not 1 <= self.warmup_bars < len(self.time_ns):
            raise ValueError(f"warmup_bars: expected 1 to {len(self.time_ns) - 1}, received {self.warmup_bars}")

    @property
    def n_steps(self) -> int:
        """Number of bars after the warm-up: that of the actions, where the policy is asked at each."""
        return len(self.time_ns) - self.warmup_bars


class BarFeed:
    """The bars of n rows, of which each is at a bar of its own. One owner at a time: not thread-safe."""

    def __init__(self, n_rows: int, n_symbols: int, n_extras: int = 0) -> None:
        """Hold no episode; `n_extras`: further columns of the bars."""
        self._episodes: list[EpisodeBars | None] = [None] * n_rows
        self._bars = np.ones((n_rows * _CHUNK_BARS, n_symbols, len(FIELDS) + n_extras))
        self._present: npt.NDArray[np.bool_] | None = None
        self._asks: npt.NDArray[np.bool_] | None = None
        self._covers: IntArray | None = None
        self._times = np.zeros(n_rows * _CHUNK_BARS, dtype=np.int64)
        self._place = np.arange(n_rows) * _CHUNK_BARS
        """Of each row's next bar among those that are copied."""
        self._chunk_end = self._place.copy()
        """The place behind its last copied one."""
        self._copied = np.zeros(n_rows, dtype=np.int64)
        """Bars of its episode up to there."""
        self._length = np.zeros(n_rows, dtype=np.int64)
        self._calls_left = 0
        """Calls of `next` in which no row comes to the end of what is copied, at least."""

    def begin(self, row: int, episode: EpisodeBars) -> None:
        """Put an episode into a row; the next bar is the one after its warm-up."""
        self._episodes[row] = episode
        self._length[row] = len(episode.time_ns)
        self._copied[row] = episode.warmup_bars
        self._copy_chunk(row)

    def has_next(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Return whether there is a next bar of each row, bool (m,)."""
        more: npt.NDArray[np.bool_] = self._copied[rows] - (self._chunk_end[rows] - self._place[rows]) < self._length[rows]
        return more

    def next(self, rows: IntArray) -> BarRows:
        """Return the next bar of each row.

        Raises:
            ValueError: A row has none.
        """
        if self._calls_left <= 0:
            for row in rows[self._place[rows] >= self._chunk_end[rows]].tolist():
                self._copy_chunk(row)
            self._calls_left = int((self._chunk_end - self._place).min())
        self._calls_left -= 1
        places = self._place.take(rows)
        self._place[rows] = places + 1
        present = None if self._present is None else self._present.take(places, axis=0)
        asks = None if self._asks is None else self._asks.take(places)
        covers = None if self._covers is None else self._covers.take(places, axis=0)
        return BarRows(self._times.take(places), self._bars.take(places, axis=0), present, asks, covers)

    def _copy_chunk(self, row: int) -> None:
        """Copy the bars that follow those which are copied."""
        episode, first = self._episodes[row], int(self._copied[row])
        if episode is None or first >= len(episode.time_ns):
            raise ValueError(f"row {row}: expected a next bar, received none: its episode is over, or has not begun")
        bars, begin = episode.bars[first : first + _CHUNK_BARS], row * _CHUNK_BARS
        end = begin + len(bars)
        self._bars[begin:end] = bars
        self._times[begin:end] = episode.time_ns[first : first + _CHUNK_BARS]
        self._present = _put(self._present, self._bars.shape[:2], begin, episode.present, first, True)
        self._asks = _put(self._asks, self._bars.shape[:1], begin, episode.asks, first, True)
        self._covers = _put(self._covers, self._bars.shape[:2], begin, episode.covers, first, 0)
        self._copied[row] = first + len(bars)
        self._place[row], self._chunk_end[row] = begin, end
        self._calls_left = 0


def _put(
    chunks: npt.NDArray[_Kind] | None, shape: tuple[int, ...], begin: int, values: npt.NDArray[_Kind] | None, first: int, usual: int
) -> npt.NDArray[_Kind] | None:
    """Copy a chunk of an episode's flags or counts; there are chunks once an episode has some, and all are usual where one has none."""
    if values is not None:
        chunks = np.full(shape, usual, dtype=values.dtype) if chunks is None else chunks
        part = values[first : first + _CHUNK_BARS]
        chunks[begin : begin + len(part)] = part
    elif chunks is not None:
        chunks[begin : begin + _CHUNK_BARS] = usual
    return chunks
