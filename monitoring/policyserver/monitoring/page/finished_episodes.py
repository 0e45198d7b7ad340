"""Whole episodes over time: quantiles of their returns, and means over the newest tenth, beside the baselines on the same prices."""

from __future__ import annotations

import numpy as np

from policyserver.monitoring.newest_tenth import newest_count, newest_means
from policyserver.monitoring.page.quantiles import SHARES
from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.schema import EPISODE
from policyserver.monitoring.store.reader import StoreReader

_MEANS = {
    "policy": "return",
    "no_trade": "no_trade_return",
    "random": "random_return",
    "profit": "profit",
    "costs": "costs",
    "turnover": "turnover",
    "drawdown": "drawdown",
}
"""The field of each mean."""

_TIME, _FIRST = 0, 1
"""Columns of an episode: its end, nanoseconds since the beginning, then the fields of `_MEANS`, the return first."""


class FinishedEpisodes:
    """The whole episodes of a selection, in buckets of the time at which they ended."""

    name, measurement = "episodes", EPISODE

    def __init__(self, selection: PageSelection, run: str, width_ns: int, begin_ns: int) -> None:
        """Cover the time from `begin_ns` on, without reading."""
        self._width_ns = width_ns
        self._new = NewRows(selection, run, EPISODE, begin=begin_ns)
        named = ", ".join(f'"{name}"' for name in _MEANS.values())
        self._statement = (
            f"SELECT time_ns / :width, time_ns - :begin, {named} FROM whole_episode "
            f"WHERE {self._new.condition} AND time_ns >= :begin ORDER BY time_ns"
        )
        self._buckets: dict[int, np.ndarray] = {}

    def read(self, reader: StoreReader, upto: int) -> int | None:
        """Add the new rows up to an id; return the first bucket that changed, None if none did."""
        rows = reader.select(self._statement, self._new.upto(upto) | {"width": self._width_ns})
        if not rows:
            return None
        buckets = np.array([row[0] for row in rows], np.int64)
        values = np.array([row[1:] for row in rows], float)
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        for bucket, episodes in zip(buckets[starts].tolist(), np.split(values, starts[1:]), strict=True):
            self._add(bucket, episodes)
        return int(buckets[0])

    def _add(self, bucket: int, episodes: np.ndarray) -> None:
        """Add episodes to a bucket, in the order of their ends: two pipelines may record them in another order."""
        held = self._buckets.get(bucket)
        if held is not None:
            out_of_order = held[-1, _TIME] > episodes[0, _TIME]
            episodes = np.concatenate([held, episodes])
            if out_of_order:
                episodes = episodes[np.argsort(episodes[:, _TIME], kind="stable")]
        self._buckets[bucket] = episodes

    def coarsen(self) -> None:
        """Let each two buckets become one."""
        self._width_ns *= 2
        fine, self._buckets = self._buckets, {}
        for bucket in sorted(fine):
            self._add(bucket // 2, fine[bucket])

    def forget(self, before: int) -> None:
        """Drop the buckets before one."""
        self._buckets = {bucket: episodes for bucket, episodes in self._buckets.items() if bucket >= before}

    @property
    def newest(self) -> int | None:
        """Number of the newest bucket; None without buckets."""
        return max(self._buckets, default=None)

    def columns(self, first: int) -> dict[str, np.ndarray]:
        """Return the buckets from one on.

        `episodes` counts those that ended in a bucket, and `return_p05, return_p50, return_p95` are their quantiles. The other columns are
        means over the newest tenth of all that had ended by the end of the bucket.
        """
        every = sorted(self._buckets)
        buckets = [bucket for bucket in every if bucket >= first]
        held = [self._buckets[bucket] for bucket in buckets]
        columns: dict[str, np.ndarray] = {
            "time_s": (np.array(buckets, np.int64) + 0.5) * self._width_ns * 1e-9,
            "episodes": np.array([len(episodes) for episodes in held], float),
        }
        shares = list(SHARES.values())
        quantiles = [np.quantile(episodes[:, _FIRST], shares) for episodes in held]
        columns |= {f"return_{ending}": column for ending, column in zip(SHARES, np.reshape(quantiles, (-1, len(shares))).T, strict=True)}
        return columns | dict(zip(_MEANS, self._means(every, len(buckets)).T, strict=True))

    def _means(self, buckets: list[int], count: int) -> np.ndarray:
        """Return the means at the end of each of the last `count` buckets. Reads only the episodes that they are over."""
        totals = np.cumsum([len(self._buckets[bucket]) for bucket in buckets], dtype=np.int64)
        ends = totals[len(buckets) - count :]
        oldest = int(ends[0]) - newest_count(int(ends[0])) if count else 0
        skipped = int(np.searchsorted(totals, oldest, side="right")) if count else len(buckets)
        values = [self._buckets[bucket][:, _FIRST:] for bucket in buckets[skipped:]]
        first = int(totals[skipped - 1]) if skipped else 0
        return newest_means(np.concatenate([np.empty((0, len(_MEANS))), *values]), ends, first)
