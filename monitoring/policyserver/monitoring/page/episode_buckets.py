"""Whole episodes as arrays: rows as they are read, and those that ended within one stretch of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from policyserver.monitoring.page.quantiles import SHARES
from policyserver.monitoring.page.thinned_returns import ThinnedReturns

TIME, FIRST = 0, 1
"""Columns of an episode: its end, nanoseconds since the beginning, then its figures, the return first."""


@dataclass(frozen=True, slots=True)
class EpisodeRows:
    """The rows of n episodes, in the order of their ends."""

    ids: np.ndarray
    """int64[n]."""
    buckets: np.ndarray
    """Numbers of their stretches of time, int64[n]."""
    episodes: np.ndarray
    """float64[n, 1 + figures]; NaN where a figure is unknown."""

    @classmethod
    def of(cls, rows: list[tuple[float | None, ...]]) -> EpisodeRows:
        """Take rows of id, bucket and the columns of an episode."""
        ids, buckets = np.array([row[:2] for row in rows], np.int64).T
        return cls(ids, buckets, np.array([row[2:] for row in rows], float))

    @classmethod
    def joined(cls, parts: list[EpisodeRows]) -> EpisodeRows:
        """Join rows that follow each other nearly in order."""
        columns = zip(*((part.ids, part.buckets, part.episodes) for part in parts), strict=True)
        rows = cls(*(np.concatenate(column) for column in columns))
        return rows.select(np.argsort(rows.episodes[:, TIME], kind="stable"))

    def select(self, which: np.ndarray) -> EpisodeRows:
        """Return some of them."""
        return EpisodeRows(self.ids[which], self.buckets[which], self.episodes[which])

    def by_bucket(self) -> Iterator[tuple[int, np.ndarray]]:
        """Return each bucket's number and its episodes."""
        starts = np.flatnonzero(np.diff(self.buckets, prepend=self.buckets[:1] - 1))
        return zip(self.buckets[starts].tolist(), np.split(self.episodes, starts[1:]), strict=True) if len(starts) else iter(())


@dataclass(slots=True)
class EpisodeBucket:
    """The episodes that ended within one stretch of time."""

    episodes: np.ndarray
    """Those that are held, in the order of their ends."""
    thinned: ThinnedReturns | None = None
    """What is left of those before."""
    means: np.ndarray | None = None
    """Means at its end, once not all episodes that they are over are held; until then they are computed from these."""

    @property
    def count(self) -> int:
        """Number of its episodes, about that in a sampled part of a run."""
        return len(self.episodes) + (round(self.thinned.count) if self.thinned is not None else 0)

    def quantiles(self) -> np.ndarray:
        """Return the quantiles of its returns, in the order of `SHARES`."""
        returns = self.episodes[:, FIRST]
        if self.thinned is None:
            quantiles: np.ndarray = np.quantile(returns, list(SHARES.values()))
            return quantiles
        return (ThinnedReturns.of(returns).joined(self.thinned) if len(returns) else self.thinned).shown

    def add(self, episodes: np.ndarray) -> None:
        """Hold episodes, too, in the order of their ends."""
        held = self.episodes
        self.episodes = np.concatenate([held, episodes])
        if len(held) and held[-1, TIME] > episodes[0, TIME]:
            self.episodes = self.episodes[np.argsort(self.episodes[:, TIME], kind="stable")]

    def thin(self, episodes: np.ndarray, weight: float = 1.0) -> None:
        """Add episodes that are not held, each of which stands for `weight` of them."""
        self.thinned = ThinnedReturns.of(episodes[:, FIRST], weight).joined(self.thinned)

    def thin_first(self, count: int) -> np.ndarray:
        """Let go of the first episodes that are held, `count` of them or all; return these."""
        dropped = self.episodes[:count]
        if len(dropped):
            self.thin(dropped)
            self.episodes = self.episodes[count:].copy()
        return dropped

    def go_on_with(self, later: EpisodeBucket) -> None:
        """Add the bucket that comes next."""
        self.add(later.episodes)
        if later.thinned is not None:
            self.thinned = later.thinned.joined(self.thinned)
        self.means = later.means
