"""Whole episodes over time: quantiles of their returns, and means over the newest tenth, beside the baselines on the same prices."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

import numpy as np

from policyserver.monitoring.newest_tenth import MOST_EPISODES, newest_count, newest_means
from policyserver.monitoring.page.episode_buckets import FIRST, TIME, EpisodeBucket, EpisodeRows
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

_NO_EPISODES = np.empty((0, 1 + len(_MEANS)))

MOST_HELD = 4 * MOST_EPISODES
"""Most episodes that are held one by one, 17 MB. Of older ones each bucket has their number, quantiles and means."""
LEFT = 3 * MOST_EPISODES
"""Episodes that are held on when there are more: more than a mean is over, with those that come late."""
MOST_READ = 2 * MOST_HELD
"""Most episodes that a new viewer reads. Of more it reads the newest `LEFT`, and a sample of all."""
_SAMPLES, _SAMPLE_ROWS = 1024, 256
"""How many stretches of consecutive rows are in the sample, evenly over all, and how long each is."""
_ROWS_AT_ONCE = 16_384
"""Rows of one query: others wait for the reader so long, and the rows are Python's objects meanwhile, 8 MB."""


class FinishedEpisodes:
    """The whole episodes of a selection, in buckets of the time at which they ended.

    Memory is bounded, and so is the work of a new viewer, however long the run is. All is exact up to `MOST_HELD` episodes, and what is of
    the newest ones always is. Of older ones, quantiles of buckets that became one are those of `ThinnedReturns`. Where a new viewer finds
    more than `MOST_READ` episodes, numbers, quantiles and means of the older ones are estimated from a sample.
    """

    name, measurement = "episodes", EPISODE

    def __init__(self, selection: PageSelection, run: str, width_ns: int, begin_ns: int) -> None:
        """Cover the time from `begin_ns` on, without reading."""
        self._width_ns = width_ns
        self._new = NewRows(selection, run, EPISODE, begin=begin_ns)
        named = ", ".join(f'"{name}"' for name in _MEANS.values())
        self._statement = (
            f"SELECT id, time_ns / :width, time_ns - :begin, {named} FROM whole_episode "
            f"WHERE {self._new.condition} AND time_ns >= :begin ORDER BY time_ns"
        )
        self._buckets: dict[int, EpisodeBucket] = {}
        self._held = 0
        self._thinned_to = -np.inf
        """End of the newest episode that is not held; what comes late and ended before is not held either."""

    def read(self, reader: StoreReader, upto: int) -> int | None:
        """Add the new rows up to an id; return the first bucket that changed, None if none did."""
        is_first = self._new.after is None
        after = int(self._new.upto(upto, self._read_sample(reader, upto) if is_first else 0)["after"])
        changed = []
        for rows in self._rows(reader, after, upto, _ROWS_AT_ONCE):
            late = rows.episodes[:, TIME] <= self._thinned_to
            for bucket, episodes in rows.select(late).by_bucket():
                self._buckets.setdefault(bucket, EpisodeBucket(_NO_EPISODES, None, np.full(len(_MEANS), np.nan))).thin(episodes)
            for bucket, episodes in rows.select(~late).by_bucket():
                self._add(bucket, episodes)
            self._thin()
            changed.append(int(rows.buckets[0]))
        if is_first:
            self._compute_what_can_be()
        return min(changed, default=None)

    def _rows(self, reader: StoreReader, after: int, upto: int, at_once: int, step: int | None = None) -> Iterator[EpisodeRows]:
        """Read the rows whose ids are between two, `at_once` of them in a query, and then those from `step` ids further on."""
        for first in range(after, upto, step or at_once):
            window = {"after": first, "upto": min(first + at_once, upto), "width": self._width_ns}
            if rows := reader.select(self._statement, self._new.parameters | window):
                yield EpisodeRows.of(rows)

    def _read_sample(self, reader: StoreReader, upto: int) -> int:
        """Return the id after which all rows are to be read. Where too many are before it, a sample stands for these."""
        run, begin_ns = self._new.parameters["run"], self._new.parameters["begin"]
        after = reader.id_before(EPISODE.name, run, begin_ns)
        if not reader.has_more(EPISODE.name, run, begin_ns, MOST_READ):
            return after
        held_after = reader.id_before_newest(EPISODE.name, run, LEFT)
        step = max((upto - after) // _SAMPLES, _SAMPLE_ROWS)
        if parts := list(self._rows(reader, after, upto, _SAMPLE_ROWS, step)):
            rows, weight = EpisodeRows.joined(parts), step / _SAMPLE_ROWS
            ends = np.flatnonzero(np.diff(rows.buckets, append=rows.buckets[-1] + 1)) + 1
            means = newest_means(rows.episodes[:, FIRST:], ends, weight=weight)
            for bucket, mean in zip(rows.buckets[ends - 1].tolist(), means, strict=True):
                self._buckets[bucket] = EpisodeBucket(_NO_EPISODES, None, mean)
            older = rows.select(rows.ids <= held_after)
            for bucket, episodes in older.by_bucket():
                self._buckets[bucket].thin(episodes, weight)
            self._thinned_to = max(older.episodes[:, TIME], default=self._thinned_to)
        return held_after

    def _compute_what_can_be(self) -> None:
        """Leave the means of a sample where the episodes that they are over are held, and buckets that have none after all."""
        self._buckets = {number: bucket for number, bucket in self._buckets.items() if bucket.count}
        every = sorted(self._buckets)
        totals = self._totals(every)
        for number, end in zip(every, totals.tolist(), strict=True):
            if end - newest_count(end) >= totals[-1] - self._held:
                self._buckets[number].means = None

    def _add(self, number: int, episodes: np.ndarray) -> None:
        """Add episodes to a bucket, in the order of their ends: two pipelines may record them in another order."""
        bucket = self._buckets.setdefault(number, EpisodeBucket(_NO_EPISODES))
        if number == self.newest:
            bucket.means = None
        self._held += len(episodes)
        bucket.add(episodes)

    def _thin(self) -> None:
        """Let go of the oldest episodes if too many are held."""
        if self._held <= MOST_HELD:
            return
        self._compute_what_can_be()
        every, left = sorted(self._buckets), self._held
        for number in every:  # whole buckets, for what is thinned at once stays exact, unless they are very large
            if left > LEFT:
                count = len(self._buckets[number].episodes)
                left = left - count if left - count >= MOST_HELD // 2 else LEFT
        totals = self._totals(every)
        needed_from = totals - np.array([newest_count(end) for end in totals.tolist()])
        for place, means in enumerate(self._means(every, totals, 0, int(np.searchsorted(needed_from, totals[-1] - left)))):
            self._buckets[every[place]].means = means
        for number in every:
            dropped = self._buckets[number].thin_first(self._held - left)
            if len(dropped):
                self._held -= len(dropped)
                self._thinned_to = dropped[-1, TIME]

    def coarsen(self) -> None:
        """Let each two buckets become one."""
        self._width_ns *= 2
        fine, self._buckets = self._buckets, {}
        for number in sorted(fine):
            bucket = self._buckets.setdefault(number // 2, fine[number])
            if bucket is not fine[number]:
                bucket.go_on_with(fine[number])

    def forget(self, before: int) -> None:
        """Drop the buckets before one."""
        self._buckets = {number: bucket for number, bucket in self._buckets.items() if number >= before}
        self._held = sum(len(bucket.episodes) for bucket in self._buckets.values())

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
        place = bisect.bisect_left(every, first)
        buckets = [self._buckets[number] for number in every[place:]]
        columns: dict[str, np.ndarray] = {
            "time_s": (np.array(every[place:], np.int64) + 0.5) * self._width_ns * 1e-9,
            "episodes": np.array([bucket.count for bucket in buckets], float),
        }
        quantiles = np.reshape([bucket.quantiles() for bucket in buckets], (-1, len(SHARES)))
        columns |= {f"return_{ending}": column for ending, column in zip(SHARES, quantiles.T, strict=True)}
        return columns | dict(zip(_MEANS, self._means(every, self._totals(every), place, len(every)).T, strict=True))

    def _totals(self, every: list[int]) -> np.ndarray:
        """Return how many episodes had ended by the end of each bucket."""
        return np.cumsum([self._buckets[number].count for number in every], dtype=np.int64)

    def _means(self, every: list[int], totals: np.ndarray, begin: int, end: int) -> np.ndarray:
        """Return the means at the ends of some buckets, by their places. Reads only the episodes that they are over."""
        buckets = [self._buckets[number] for number in every[begin:end]]
        known = [np.full(len(_MEANS), np.nan) if bucket.means is None else bucket.means for bucket in buckets]
        means = np.reshape(known, (-1, len(_MEANS)))
        unknown = np.flatnonzero([bucket.means is None for bucket in buckets])
        if unknown.size:
            ends, held_from = totals[begin + unknown], int(totals[-1]) - self._held
            oldest = max(int(ends[0]) - newest_count(int(ends[0])), held_from)
            skipped = int(np.searchsorted(totals, oldest, side="right"))
            values = [self._buckets[number].episodes[:, FIRST:] for number in every[skipped : begin + int(unknown[-1]) + 1]]
            means[unknown] = newest_means(np.concatenate(values), ends, max(int(totals[skipped - 1]) if skipped else 0, held_from))
        return means
