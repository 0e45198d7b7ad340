"""The running episodes: reward so far, equity and drawdown at each bar, as quantiles over the episodes."""

from __future__ import annotations

import numpy as np

from policyserver.monitoring.page.quantiles import quantile_columns
from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.schema import EPISODE, STEP
from policyserver.monitoring.store.reader import StoreReader

_READ_BACK = 50_000
"""Newest rows in which the page looks for a new viewer's running episodes; it does not show those that began before."""
_ROWS_AT_ONCE = 50_000
"""Ends of episodes that are read at once."""
_MOST_STEPS = 400_000
"""Most steps that are held. Beyond them the oldest episodes are dropped, for they may never end: their pipeline died."""
_MOST_BARS = 240
"""Most bars that are shown, evenly over the longest episode."""


class RunningEpisodes:
    """The running episodes of a selection."""

    def __init__(self, selection: PageSelection, run: str) -> None:
        """Begin without reading."""
        self._new_steps, self._new_ends = NewRows(selection, run, STEP), NewRows(selection, run, EPISODE)
        self._steps: dict[str, list[tuple[float, float]]] = {}
        self._held = 0

    def read(self, reader: StoreReader, newest_ids: dict[str, int]) -> bool:
        """Add the new steps and ends; return whether there were any."""
        statement = f"SELECT time_ns, episode, bar, reward, equity FROM step WHERE {self._new_steps.condition} ORDER BY id"
        begins = self._new_steps.after is None
        steps = reader.select(statement, self._new_steps.upto(newest_ids["step"], after=newest_ids["step"] - _READ_BACK))
        for _, episode, bar, reward, equity in steps:
            self._add(episode, bar, reward, equity)
        if begins:  # what ended before the first of these steps is not held
            run, newest = self._new_ends.parameters["run"], newest_ids["episode"]
            self._new_ends.after = min(reader.id_before(EPISODE.name, run, steps[0][0]) if steps else newest, newest)
        since = {"since": steps[0][0] if begins and steps else 0}
        statement = f"SELECT episode FROM episode WHERE {self._new_ends.condition} AND time_ns >= :since"
        new, has_ends = self._new_ends.upto(newest_ids["episode"]) | since, False
        for first in range(new["after"], new["upto"], _ROWS_AT_ONCE):
            ends = reader.select(statement, new | {"after": first, "upto": min(first + _ROWS_AT_ONCE, new["upto"])})
            has_ends |= bool(ends)
            for (episode,) in ends:
                self._held -= len(self._steps.pop(episode, ()))
        return bool(steps) or has_ends

    def _add(self, episode: str, bar: int, reward: float | None, equity: float | None) -> None:
        if bar == 0:
            self._held -= len(self._steps.pop(episode, ()))
            self._steps[episode] = []
        steps = self._steps.get(episode)
        if steps is None or bar != len(steps):
            return  # its beginning is unknown
        steps.append((reward or 0.0, np.nan if equity is None else equity))
        self._held += 1
        while self._held > _MOST_STEPS and len(self._steps) > 1:
            self._held -= len(self._steps.pop(next(iter(self._steps))))

    def columns(self) -> dict[str, np.ndarray]:
        """Return `bar`, the number of `episodes` that reached it, and their quantiles of `reward`, `equity` and `drawdown`.

        The drawdown is the fall of the equity below its highest value before, as a fraction of it.
        """
        longest = max(map(len, self._steps.values()), default=0)
        values = np.full((2, max(len(self._steps), 1), longest), np.nan)
        for row, steps in enumerate(self._steps.values()):
            values[:, row, : len(steps)] = np.array(steps).reshape(-1, 2).T
        bars = np.arange(longest)[:: max(1, -(-longest // _MOST_BARS))]
        equity = values[1]
        shown = {
            "reward": np.cumsum(values[0], axis=1)[:, bars],
            "equity": equity[:, bars],
            "drawdown": (1.0 - equity / np.fmax.accumulate(equity, axis=1))[:, bars],
        }
        columns = {"bar": bars.astype(float), "episodes": (~np.isnan(shown["reward"])).sum(axis=0).astype(float)}
        for name, of_episodes in shown.items():
            columns |= quantile_columns(name, of_episodes)
        return columns
