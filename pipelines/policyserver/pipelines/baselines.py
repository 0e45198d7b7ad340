"""Baselines: what doing nothing and acting at random would have earned on the same bars, by the same rules; many episodes at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import GOES_ON, EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import Statistic
from policyserver.pipelines.market.vector_env import begin_episodes

Choose = Callable[[EpisodeBlock, IntArray, int], npt.NDArray[Any]]
"""Chooses the actions of rows of a block at the close of bar number t of their episodes, 0 that of the first action."""


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """What each of n episodes earned."""

    returns: FloatArray
    """Sum of the rewards, float64 (n,)."""
    profits: FloatArray
    """Simple profit, costs taken off, over the initial equity, float64 (n,)."""
    costs: FloatArray
    """All costs over the initial equity, float64 (n,)."""

    @property
    def columns(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """All of them."""
        return self.returns, self.profits, self.costs


class Baselines:
    """Plays episodes again by other policies. Thread-safe: each call has a block of its own."""

    def __init__(self, rules: Rules, slots: tuple[str, ...], seed: int, columns: tuple[str, ...] = ()) -> None:
        """Play by `rules`; `seed` is that of the random actions, `columns` are the bars' further ones."""
        self._rules = replace(rules, observers=())  # neither of the two policies looks at an observation
        self._slots = slots
        self._seed = seed
        self._columns = columns

    def of(self, episodes: Sequence[Episode]) -> tuple[Results, Results]:
        """Return what holding cash and what random actions earn, a function of the seed and the episodes alone."""
        space = self._rules.actions.space(self._slots)
        count, longest = len(episodes), max(episode.bars.n_steps for episode in episodes)
        actions = np.stack([random_actions(space, actions_rng(self._seed, episode), longest) for episode in episodes])

        def choose(block: EpisodeBlock, rows: IntArray, step: int) -> npt.NDArray[Any]:
            chosen: npt.NDArray[Any] = actions[rows - count, step]
            return chosen

        # Both in one block: a step of it costs nearly the same, however few rows it has.
        holds = np.arange(2 * count) < count
        both = play(self._rules, self._slots, [*episodes, *episodes], choose, columns=self._columns, holds=holds)
        nothing, random = (Results(*(part[rows] for part in both.columns)) for rows in (slice(count), slice(count, None)))
        return nothing, random


def actions_rng(seed: int, episode: Episode) -> np.random.Generator:
    """Return the generator of an episode's random actions, whatever was drawn elsewhere."""
    key = int.from_bytes(hashlib.sha256(f"random actions/{'+'.join(episode.symbols)}".encode()).digest()[:8])
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key, episode.number)))


def random_actions(space: gym.Space[Any], rng: np.random.Generator, count: int) -> npt.NDArray[Any]:
    """Return uniformly random actions of a space, (count, ...)."""
    if isinstance(space, gym.spaces.Discrete):
        first: Any = space.start
        choices: Any = space.n
        return rng.integers(first, first + choices, size=count)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(count, len(space.nvec)))
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(space.low, space.high, (count, *space.shape)).astype(space.dtype)
    raise ValueError(f"actions: expected a Discrete, MultiDiscrete or Box space, received {space}")


def play(
    rules: Rules,
    slots: tuple[str, ...],
    episodes: Sequence[Episode],
    choose: Choose,
    statistics: frozenset[Statistic] = frozenset(),
    columns: tuple[str, ...] = (),
    holds: npt.NDArray[np.bool_] | None = None,
) -> Results:
    """Play episodes from their first action to their end; forecasts are 0. `statistics` are those that `choose` reads.

    Actions are chosen where the policy is asked. `columns` are those that the episodes' bars have beyond their fields. `holds`: in which no
    order is ever given, bool (n,); none: in none. No action is chosen there.
    """
    count, n_extras = len(episodes), len(columns)
    block, feed = EpisodeBlock(count, slots, rules, statistics, columns), BarFeed(count, len(slots), n_extras)
    begin_episodes(block, feed, np.arange(count), list(episodes))
    returns, going, step = np.zeros(count), np.arange(count), 0
    asked = going if holds is None else going[~holds]
    while len(going):
        if len(asked):
            block.act(asked, choose(block, asked, step))
        bar = feed.next(going)
        block.fill(going, bar)
        marked = block.mark(going)
        returns[going] += marked.rewards
        goes_on = marked.ends == GOES_ON
        asked = going[goes_on if bar.asks is None else goes_on & bar.asks]
        asked = asked if holds is None else asked[~holds[asked]]
        going = going[goes_on]
        step += 1
    accounts = block.view.accounts
    return Results(returns, accounts.profit, accounts.costs / accounts.initial_equity)
