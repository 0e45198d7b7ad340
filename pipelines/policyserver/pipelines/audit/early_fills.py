"""Is an order filled in a bar that had begun when it was given? Then it is filled at prices of before it.

Only symbols with bars of different lengths, or at different times, can show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from policyserver.pipelines.audit.findings import PartAtFault
from policyserver.pipelines.baselines import actions_rng, random_actions
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.block import GOES_ON, EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.orders import Fills
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PriceSource


def early_fills(config: PipelineConfig, source: PriceSource, numbers: Sequence[int]) -> Iterator[PartAtFault]:
    """Play episodes by random actions, and yield each fill whose order was given after the beginning of the bar that it is filled in."""
    episodes = [episode for episode in source.episodes(numbers) if episode.own_rows is not None and episode.bars.present is not None]
    if not episodes:
        return
    rules = replace(Rules.of(config.rules), observers=())
    block = EpisodeBlock(len(episodes), source.slots, rules, columns=source.columns)
    feed = BarFeed(len(episodes), len(source.slots), len(source.columns))
    begin_episodes(block, feed, np.arange(len(episodes)), episodes)
    space = rules.actions.space(source.slots)
    actions = [random_actions(space, actions_rng(config.episodes_seed, episode), episode.bars.n_steps) for episode in episodes]
    given: list[list[int]] = [[] for _ in episodes]
    """Of each row, by number of an order, the bar at whose close it was given."""
    going = asked = np.arange(len(episodes))
    step = 0
    while len(going):
        if len(asked):
            block.act(asked, np.stack([actions[row][step] for row in asked.tolist()]))
        _note(given, block.view.accounts.orders, step)
        bar = feed.next(going)
        yield from _early(block.fill(going, bar), episodes, given, step + 1)
        ends = block.mark(going).ends
        _note(given, block.view.accounts.orders, step + 1)  # of a margin call
        goes_on = ends == GOES_ON
        asked = going[goes_on if bar.asks is None else goes_on & bar.asks]
        going = going[goes_on]
        step += 1


def _note(given: list[list[int]], counts: IntArray, bar: int) -> None:
    for numbers, count in zip(given, counts.tolist(), strict=True):
        numbers.extend([bar] * (count - len(numbers)))


def _early(fills: Fills, episodes: Sequence[Episode], given: list[list[int]], bar: int) -> Iterator[PartAtFault]:
    for row, symbol, number in zip(fills.rows.tolist(), fills.symbol.tolist(), fills.number.tolist(), strict=True):
        episode = episodes[row]
        assert episode.own_rows is not None
        first = episode.bars.warmup_bars - 1
        given_ns = int(episode.bars.time_ns[first + given[row][number]])
        name = episode.symbols[symbol]
        begins_ns = episode.histories[name].begins_ns
        begin_ns = given_ns if begins_ns is None else int(begins_ns[episode.own_rows[first + bar, symbol]])
        if begin_ns < given_ns:
            problem = f"{name} in a bar that had begun when the order was given; its beginning and the order's time, s,"
            yield PartAtFault.at("fill", problem, episode.id, bar, (begin_ns / 1e9, given_ns / 1e9))
