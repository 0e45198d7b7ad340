"""Which window an episode is played on: a function of the seed and the episode's number alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.windows import WindowsConfig, WindowTable
from policyserver.pipelines.prices.episode_rng import episode_rng

Place = tuple[int, int, int]
"""Number of the fold, number of the line of time, number of the window among the line's."""


class WindowOrder:
    """The order in which windows are played. Immutable, and so thread-safe."""

    def __init__(
        self, folds: Sequence[Sequence[WindowTable]], names: Sequence[str], config: WindowsConfig, seed: int, *, is_test: bool
    ) -> None:
        """Order windows.

        Args:
            folds: Of each fold the windows of each line; at least one window in each fold.
            names: What is traded on each line.
            config: In which order.
            seed: Of the random draws.
            is_test: Whether they are for testing.
        """
        self._folds = folds
        self._names = names
        self._seed = seed
        self._lines = [[number for number, table in enumerate(tables) if len(table)] for tables in folds]
        self._fold_episodes = config.fold_episodes if config.order == "walk_forward" else 0
        self._round: IntArray | None = None if config.draws(is_test=is_test) else self._in_time()

    def place(self, number: int) -> Place:
        """Return where an episode is played, by its number."""
        if self._round is not None:
            fold, line, window = self._round[number % len(self._round)].tolist()
            return fold, line, window
        fold = min(number // self._fold_episodes, len(self._folds) - 1) if self._fold_episodes else 0
        lines = self._lines[fold]
        line = lines[number % len(lines)]
        window = int(episode_rng(self._seed, self._names[line], number).integers(len(self._folds[fold][line])))
        return fold, line, window

    def _in_time(self) -> IntArray:
        """Return fold, line and window of all windows: fold by fold, in the order of time, of several lines in turn; int64 (w, 3)."""
        rounds = []
        for fold, tables in enumerate(self._folds):
            lines = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
            windows = np.concatenate([np.arange(len(table)) for table in tables])
            order = np.lexsort((lines, np.concatenate([table.begin_ns for table in tables])))
            rounds.append(np.stack([np.full(len(lines), fold), lines, windows], axis=1)[order])
        return np.concatenate(rounds)
