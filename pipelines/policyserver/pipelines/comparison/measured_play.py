"""Plays episodes by given steps, and keeps of each bar what the measures are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.block import GOES_ON, EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.orders import OrderRequests
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import Statistic
from policyserver.pipelines.market.step_kinds import StepKinds, perform
from policyserver.pipelines.market.truth.measures import Episodes
from policyserver.pipelines.market.vector_env import begin_episodes

Steps = tuple[npt.NDArray[Any], StepKinds | None]
"""Actions of m rows, and what their steps do; None: each does what its action says."""

ChosenSteps = Callable[[EpisodeBlock, IntArray, IntArray], Steps]
"""Chooses the steps of m rows of a block. The last argument counts them in each row's own episode, int64 (m,): 0 is the first one. Rows
are not asked at the same bars."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredEpisodes:
    """What became of episodes."""

    record: Episodes
    """What the measures are of."""
    returns: FloatArray
    """Sums of the rewards, float64 (n,)."""
    profits: FloatArray
    """Simple profits, costs taken off, over the initial equity, float64 (n,)."""


class _CountingBlock(EpisodeBlock):
    """A block that knows how many units of each row were ordered and accepted since it was asked last."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ordered = np.zeros(self.shape.n_rows)

    def submit(self, requests: OrderRequests) -> npt.NDArray[np.bool_]:
        """See `EpisodeBlock`."""
        accepted = super().submit(requests)
        self._ordered[requests.rows] += np.where(accepted, np.abs(requests.quantity), 0.0)
        return accepted

    def take_ordered(self) -> FloatArray:
        """Return the units, float64 (n,)."""
        ordered, self._ordered = self._ordered, np.zeros_like(self._ordered)
        return ordered


def measured_play(
    rules: Rules,
    slots: tuple[str, ...],
    episodes: Sequence[Episode],
    choose: ChosenSteps,
    statistics: frozenset[Statistic] = frozenset(),
    columns: tuple[str, ...] = (),
) -> MeasuredEpisodes:
    """Play episodes from their first action to their end; forecasts are 0.

    Args:
        rules: What the episodes are about.
        slots: What the symbols are called.
        episodes: What is played.
        choose: Chooses the steps, at the bars at which the policy is asked.
        statistics: Those that `choose` reads.
        columns: Those that the bars have beyond their fields.
    """
    n, longest = len(episodes), max(len(episode.bars.time_ns) - episode.bars.warmup_bars for episode in episodes)
    block, feed = _CountingBlock(n, slots, rules, statistics, columns), BarFeed(n, len(slots), len(columns))
    begin_episodes(block, feed, np.arange(n), list(episodes))
    accounts = block.view.accounts
    equity = np.full((n, longest + 1), np.nan)
    equity[:, 0] = accounts.initial_equity
    exposure, traded, fees, ordered, filled = (np.full((n, longest), np.nan) for _ in range(5))
    returns, going, asked, asked_before, bar_number = np.zeros(n), np.arange(n), np.arange(n), np.zeros(n, dtype=np.int64), 0
    while len(going):
        if len(asked):
            perform(block, asked, *choose(block, asked, asked_before[asked]))
            asked_before[asked] += 1
        bar = feed.next(going)
        fills = block.fill(going, bar)
        marked = block.mark(going)
        returns[going] += marked.rewards
        equity[going, bar_number + 1] = accounts.equity[going]
        exposure[going, bar_number] = np.abs(accounts.exposure(going)).sum(axis=1)
        traded[going, bar_number], fees[going, bar_number] = accounts.last_bar[0, going], accounts.last_bar[2, going]
        ordered[going, bar_number] = block.take_ordered()[going]
        filled[going, bar_number] = np.bincount(fills.rows, np.abs(fills.quantity), n)[going]
        goes_on = marked.ends == GOES_ON
        going, asked = going[goes_on], going[goes_on & _asks(bar)]
        bar_number += 1
    return MeasuredEpisodes(Episodes(equity, exposure, traded, fees, ordered, filled), returns, accounts.profit.copy())


def _asks(bar: BarRows) -> Any:
    """Return whether the policy is asked at the bar's close, bool (m,) or one for all."""
    return True if bar.asks is None else bar.asks
