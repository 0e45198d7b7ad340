"""What is marked on the page's time axes: restarts, checkpoints, and gaps, in which no process recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.schema import TRAIN
from policyserver.monitoring.store.reader import StoreReader

LEAST_GAP_S = 10.0
"""Time without a point, in addition to a bucket, that makes a gap in what is recorded once a second."""


class Checkpoints:
    """When the checkpoints of a selection were written: at the end of the iteration that first names each."""

    def __init__(self, selection: PageSelection, run: str) -> None:
        """Begin without reading."""
        self._new = NewRows(selection, run, TRAIN)
        self._statement = (
            "SELECT worker, checkpoint_path, MIN(time_ns), MAX(time_ns) "
            f"FROM train WHERE {self._new.condition} GROUP BY worker, checkpoint_path ORDER BY 3"
        )
        self._lives: dict[str, tuple[int, int]] = {}
        self._written_ns: dict[str, int] = {}

    def read(self, reader: StoreReader, upto: int) -> None:
        """Add the new rows up to an id."""
        for worker, path, first_ns, last_ns in reader.select(self._statement, self._new.upto(upto)):
            began = worker not in self._lives
            if path is not None and path not in self._written_ns:
                self._written_ns[path] = self._end_before(first_ns) if began else first_ns
            begin_ns, end_ns = self._lives.get(worker, (first_ns, last_ns))
            self._lives[worker] = min(begin_ns, first_ns), max(end_ns, last_ns)

    def _end_before(self, time_ns: int) -> int:
        """Return the time of the last iteration of the process before, which wrote what the first iteration of another goes on from."""
        return max((end_ns for _, end_ns in self._lives.values() if end_ns < time_ns), default=time_ns)

    @property
    def written_ns(self) -> list[int]:
        """When each was written, in order."""
        return sorted(self._written_ns.values())


def gaps_s(buckets: list[int], width_s: float) -> list[list[float]]:
    """Return the gaps between ordered `buckets` of what is recorded once a second, as [last time before, first time after]."""
    missing = np.flatnonzero(np.diff(buckets) * width_s > width_s + LEAST_GAP_S)
    return [[(buckets[index] + 0.5) * width_s, (buckets[index + 1] + 0.5) * width_s] for index in missing.tolist()]


def thinned_s(times_ns: list[int], begin_ns: int, width_ns: int) -> list[float]:
    """Return times from `begin_ns` on, one for each bucket, seconds since 1970."""
    first = {time_ns // width_ns: time_ns for time_ns in reversed(times_ns) if time_ns >= begin_ns}
    return [time_ns * 1e-9 for time_ns in sorted(first.values())]


Marks = dict[str, Any]
"""Times of `restarts` and `checkpoints`, and the `gaps` of each section that is recorded once a second."""
