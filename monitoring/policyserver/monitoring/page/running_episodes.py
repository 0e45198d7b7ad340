"""The episodes that are being played: reward so far, equity and drawdown at each bar, as quantiles over the episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserver.monitoring.page.quantiles import quantile_columns
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.schema import STEP
from policyserver.monitoring.store.reader import StoreReader

_READ_BACK = 50_000
"""Newest rows of the store in which a new viewer's running episodes are looked for; one that began before is not shown."""
_MOST_STEPS = 400_000
"""Steps of running episodes that are held; the episodes that began first go, for they may never end: their pipeline died."""
_MOST_BARS = 240
"""Bars that are shown, evenly over the longest episode."""


class RunningEpisodes:
    """The running episodes of a selection."""

    measurement = STEP

    def __init__(self, selection: PageSelection, run: str) -> None:
        """Nothing is read yet."""
        tags = selection.tags(STEP)
        self._parameters = {"run": run, **tags}
        restricted = "".join(f"AND {tag} = :{tag} " for tag in tags)
        begun = "WHERE id > :after AND id <= :upto AND +run = :run "
        self._steps_statement = f"SELECT time_ns, episode, bar, reward, equity FROM step {begun}{restricted}ORDER BY id"
        self._ends_statement = f"SELECT episode FROM episode {begun}AND time_ns >= :since"
        self._after: dict[str, int] = {}
        self._steps: dict[str, list[tuple[float, float]]] = {}
        self._held = 0

    def read(self, reader: StoreReader, newest_ids: dict[str, int]) -> bool:
        """Take in the steps and ends that are new; whether there were any."""
        begins = not self._after
        steps = self._new_rows(reader, "step", self._steps_statement, newest_ids, {}, after=newest_ids["step"] - _READ_BACK)
        for _, episode, bar, reward, equity in steps:
            self._add(episode, bar, reward, equity)
        since = {"since": steps[0][0] if begins and steps else 0}
        ends = self._new_rows(reader, "episode", self._ends_statement, newest_ids, since, after=0)
        for (episode,) in ends:
            self._held -= len(self._steps.pop(episode, ()))
        return bool(steps or ends)

    def _new_rows(
        self, reader: StoreReader, table: str, statement: str, newest_ids: dict[str, int], more: dict[str, int], after: int
    ) -> list[Any]:
        """Read the rows since the last time, or since the id `after` the first time."""
        after = self._after.get(table, after)
        bounds = {"after": after if after <= newest_ids[table] else 0, "upto": newest_ids[table]}  # an emptied table begins anew
        self._after[table] = newest_ids[table]
        return reader.select(statement, self._parameters | bounds | more) if bounds["after"] < bounds["upto"] else []

    def _add(self, episode: str, bar: int, reward: float | None, equity: float | None) -> None:
        if bar == 0:
            self._held -= len(self._steps.pop(episode, ()))
            self._steps[episode] = []
        steps = self._steps.get(episode)
        if steps is None or bar != len(steps):
            return  # its beginning is not known
        steps.append((reward or 0.0, np.nan if equity is None else equity))
        self._held += 1
        while self._held > _MOST_STEPS and len(self._steps) > 1:
            self._held -= len(self._steps.pop(next(iter(self._steps))))

    def columns(self) -> dict[str, np.ndarray]:
        """Return `bar`, `episodes` that have reached it, and quantiles over them of `reward`, `equity` and `drawdown`.

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
