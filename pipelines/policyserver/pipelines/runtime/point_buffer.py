"""Gathers points of one kind from many bars, so that a sink gets one batch of them instead of one for each bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policyserver.monitoring import clock
from policyserver.monitoring.points import Column, Points
from policyserver.monitoring.sink import Sink

MOST_POINTS = 4096
"""Points that wait at most: with these the batch goes."""

FLUSH_S = 0.25
"""Seconds after which a batch goes with the next points; `flush` lets it go without any."""

_Part = tuple[Mapping[str, Column], Mapping[str, Sequence[str]], Column]
"""Columns, tag columns and timestamps of some points."""


class PointBuffer:
    """Waiting points of one measurement, stamped when they came. Thread-safe."""

    def __init__(self, sink: Sink, measurement: str, tags: Mapping[str, str]) -> None:
        """Have none; they go to `sink`, with `tags`."""
        self._sink = sink
        self._measurement = measurement
        self._tags = tags
        self._lock = threading.Lock()  # guards what follows, and keeps batches in the order of their points
        self._parts: list[_Part] = []
        self._waiting = 0
        self._flushed_s = 0.0

    def add(self, columns: Mapping[str, Column], tag_columns: Mapping[str, Sequence[str]]) -> None:
        """Take n points: columns of n values, and the tags that differ from point to point. Arrays and lists become the buffer's."""
        count = len(next(iter(columns.values())))
        with self._lock:
            self._parts.append((columns, tag_columns, clock.stamp(count)))
            self._waiting += count
            if self._waiting >= MOST_POINTS or time.monotonic() - self._flushed_s >= FLUSH_S:
                self._flush()

    def flush(self) -> None:
        """Hand over what waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        """Hand over what waits, a batch for points of the same columns that came one after the other. Under the lock."""
        parts, self._parts = self._parts, []
        self._waiting, self._flushed_s = 0, time.monotonic()
        first = 0
        for place in range(1, len(parts) + 1):
            if place == len(parts) or parts[place][0].keys() != parts[first][0].keys():
                self._write(parts[first:place])
                first = place

    def _write(self, parts: Sequence[_Part]) -> None:
        columns: dict[str, Column] = {name: _joined([part[0][name] for part in parts]) for name in parts[0][0]}
        tag_columns: dict[str, Any] = {name: _joined([part[1][name] for part in parts]) for name in parts[0][1]}
        times_ns: Any = _joined([part[2] for part in parts])
        self._sink.write(Points(self._measurement, self._tags, columns, times_ns, tag_columns))


def _joined(columns: Sequence[Column]) -> Column:
    """Return columns one after the other, as an array if each is one."""
    if len(columns) == 1:
        return columns[0]
    if all(isinstance(column, np.ndarray) for column in columns):
        return np.concatenate(columns)
    return [value for column in columns for value in (column.tolist() if isinstance(column, np.ndarray) else column)]
