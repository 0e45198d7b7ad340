"""Episodes of given prices, and the bars that play them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from policyserver.pipelines.market.bars import BarRows, FloatArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed, EpisodeBars
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.running_statistics import Statistic
from policyserver.pipelines.market.vector_env import begin_episodes

SLOTS = ("price",)
SYMBOLS = ("AAA", "BBB", "CCC")


def episode_of(
    closes: Sequence[float] | FloatArray, warmup_bars: int, *, number: int = 0, parameters: Mapping[str, float] | None = None
) -> Episode:
    """An episode of given closes, (t,) of one symbol or (t, K), each bar opening at the close before it; bars of a minute."""
    close = np.asarray(closes, dtype=np.float64).reshape(len(closes), -1)
    opens = np.concatenate((close[:1], close[:-1]))
    columns = np.stack([opens, np.maximum(opens, close), np.minimum(opens, close), close, np.ones(close.shape)], axis=2)
    times = 60_000_000_000 * np.arange(1, len(close) + 1)
    return Episode(SYMBOLS[: close.shape[1]], number, EpisodeBars(times, columns, warmup_bars, parameters or {}))


def begun(
    episodes: Sequence[Episode], rules: Rules | None = None, statistics: frozenset[Statistic] = frozenset()
) -> tuple[EpisodeBlock, BarFeed]:
    """A block whose rows are at the first action of these episodes, and the feed of their next bars."""
    n_rows, n_symbols = len(episodes), len(episodes[0].symbols)
    slots = SLOTS if n_symbols == 1 else episodes[0].symbols
    block, feed = EpisodeBlock(n_rows, slots, rules or Rules.of(RulesConfig()), statistics), BarFeed(n_rows, n_symbols)
    begin_episodes(block, feed, np.arange(n_rows), list(episodes))
    return block, feed


def bar_of(open_: float, close: float) -> BarRows:
    """The next bar of a block of one row and one symbol."""
    prices = (open_, max(open_, close), min(open_, close), close, 1.0)
    return BarRows.of(np.zeros(1, dtype=np.int64), *(np.array([[value]]) for value in prices))
