"""Parts with a fault, and what lets parts see what they can't: for tests that such a fault is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines import baselines, played_block
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.ends import End
from policyserver.pipelines.market.schemes.observers import Observer
from policyserver.pipelines.market.schemes.rewards import RewardTerm
from policyserver.pipelines.market.schemes.scheme import Shape, View
from policyserver.pipelines.market.vector_env import begin_episodes

HERE = f"python:{__name__}"

_EPISODES: dict[int, dict[int, Episode]] = {}
"""By view and row what is played there: what no part should see."""


def let_parts_see_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand the parts what they are played on, as a carelessly written pipeline would."""

    def begin(block: EpisodeBlock, feed: BarFeed, rows: Any, episodes: list[Episode]) -> None:
        _EPISODES.setdefault(id(block.view), {}).update(zip(rows.tolist(), episodes, strict=True))
        begin_episodes(block, feed, rows, episodes)

    for module in (played_block, baselines):
        monkeypatch.setattr(module, "begin_episodes", begin)


def ahead(view: View, rows: Rows, bars: int, column: int = 3) -> FloatArray:
    """Return a column of the bar that comes so many bars later, of the first symbol, float64 (m,); the last bar has its own."""
    values = []
    for row in np.arange(view.shape.n_rows)[rows].tolist():
        episode = _EPISODES[id(view)][row].bars
        values.append(episode.bars[min(episode.warmup_bars - 1 + int(view.clock[row]) + bars, len(episode.bars) - 1), 0, column])
    return np.array(values)


@dataclass(frozen=True, slots=True)
class NextReturn(Observer):
    """The next log-return, faintly, in much noise that is a function of the price."""

    strength: float = 1.0

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("calm", "next_return")

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        now = ahead(view, rows, 0)
        noise = np.sin(1e6 * now)
        return np.stack([noise, noise + self.strength * np.log(ahead(view, rows, 1) / now)], axis=1)


@dataclass(frozen=True, slots=True)
class TomorrowsVolume(Observer):
    """The volume of the next bar: tells nothing of its direction."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("volume",)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        return np.log1p(ahead(view, rows, 1, 4))[:, None]


@dataclass(frozen=True, slots=True)
class NextBarsReward(RewardTerm):
    """Exposure times the return of the bar after the one that the action is judged by."""

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        value: FloatArray = view.accounts.exposure(rows)[:, 0] * np.log(ahead(view, rows, 1) / ahead(view, rows, 0))
        return value


@dataclass(frozen=True, slots=True)
class LeavesBeforeTheFall(End):
    """Ends an episode when the next bar falls."""

    def reached(self, state: Any, view: View, rows: Rows) -> Any:
        return (ahead(view, rows, 1) < 0.99 * ahead(view, rows, 0)) & (view.clock[rows] > 5)


@dataclass(frozen=True, slots=True)
class SinceTheBeginning(Observer):
    """The close over the mean of all closes since the first warm-up bar, by one that says that it needs 3 bars."""

    def history_bars(self) -> int:
        return 3

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        return ("distance",)

    def new_state(self, shape: Shape) -> Any:
        return np.zeros((shape.n_rows, 2))

    def begin(self, state: Any, view: View, rows: Rows) -> None:
        for row in np.arange(view.shape.n_rows)[rows].tolist():
            episode = _EPISODES[id(view)][row].bars
            state[row] = episode.bars[: episode.warmup_bars, 0, 3].sum(), episode.warmup_bars

    def update(self, state: Any, view: View, rows: Rows) -> None:
        state[rows] += np.stack([view.accounts.price[rows, 0], np.ones(len(state[rows]))], axis=1)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        distance: FloatArray = 100.0 * np.log(view.accounts.price[rows, 0] / (state[rows, 0] / state[rows, 1]))[:, None]
        return distance
