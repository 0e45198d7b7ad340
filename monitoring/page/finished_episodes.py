"""Finished episodes over time: quantiles of their returns, and the baselines on the same prices."""

from __future__ import annotations

import numpy as np

from monitoring.page.quantiles import SHARES
from monitoring.page.selection import Selection
from monitoring.reader import StoreReader
from monitoring.schema import EPISODE

_FIELDS = ("return", "no_trade_return", "random_return", "profit", "costs", "turnover", "drawdown")
_MEANS = {"no_trade": 1, "random": 2, "profit": 3, "costs": 4, "turnover": 5, "drawdown": 6}


class FinishedEpisodes:
    """The episodes of a selection, in buckets of the time at which they ended."""

    measurement = EPISODE

    def __init__(self, selection: Selection, run: str, width_ns: int, begin_ns: int) -> None:
        """Cover the time from `begin_ns` on; nothing is read yet."""
        self._width_ns = width_ns
        tags = selection.tags(EPISODE)
        self._parameters = {"run": run, "begin": begin_ns, **tags}
        named = ", ".join(f'"{name}"' for name in _FIELDS)
        self._statement = (
            f"SELECT time_ns / :width, {named} FROM episode WHERE id > :after AND id <= :upto AND +run = :run AND time_ns >= :begin "
            f"{''.join(f'AND {tag} = :{tag} ' for tag in tags)}ORDER BY 1"
        )
        self._after = 0
        self._buckets: dict[int, np.ndarray] = {}

    def read(self, reader: StoreReader, upto: int) -> int | None:
        """Take in the rows that are new, up to an id; the first bucket that changed, None if there is none."""
        rows = reader.select(self._statement, self._parameters | {"width": self._width_ns, "after": self._after, "upto": upto})
        self._after = upto
        if not rows:
            return None
        buckets = np.array([row[0] for row in rows], np.int64)
        values = np.array([row[1:] for row in rows], float)
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        for bucket, episodes in zip(buckets[starts].tolist(), np.split(values, starts[1:]), strict=True):
            self._add(bucket, episodes)
        return int(buckets[0])

    def _add(self, bucket: int, episodes: np.ndarray) -> None:
        held = self._buckets.get(bucket)
        self._buckets[bucket] = episodes if held is None else np.concatenate([held, episodes])

    def coarsen(self) -> None:
        """Let each two buckets become one."""
        self._width_ns *= 2
        fine, self._buckets = self._buckets, {}
        for bucket in sorted(fine):
            self._add(bucket // 2, fine[bucket])

    def forget(self, before: int) -> None:
        """Drop the buckets before one."""
        for bucket in [bucket for bucket in self._buckets if bucket < before]:
            del self._buckets[bucket]

    @property
    def newest(self) -> int | None:
        """Number of the newest bucket; None without any."""
        return max(self._buckets, default=None)

    def columns(self, first: int) -> dict[str, np.ndarray]:
        """Return the buckets from one on.

        `return_p05, return_p50, return_p95` are of whole episodes, `policy` is their mean and `episodes` their number: those that were cut
        before their time have no baselines, and their returns are those of fewer steps. The other columns are means.
        """
        buckets = sorted(bucket for bucket in self._buckets if bucket >= first)
        held = [self._buckets[bucket] for bucket in buckets]
        whole = [episodes[~np.isnan(episodes[:, 1]), 0] for episodes in held]
        columns = {
            "time_s": (np.array(buckets, np.int64) + 0.5) * self._width_ns * 1e-9,
            "episodes": np.array([len(returns) for returns in whole], float),
            "policy": np.array([_mean(returns) for returns in whole], float),
        }
        shares = list(SHARES.values())
        quantiles = [np.quantile(returns, shares) if len(returns) else np.full(len(shares), np.nan) for returns in whole]
        columns |= {f"return_{ending}": column for ending, column in zip(SHARES, np.reshape(quantiles, (-1, len(shares))).T, strict=True)}
        return columns | {name: np.array([_mean(episodes[:, place]) for episodes in held], float) for name, place in _MEANS.items()}


def _mean(values: np.ndarray) -> float:
    """Return the mean of those that are there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
