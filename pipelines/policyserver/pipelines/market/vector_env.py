"""The market as a gymnasium VectorEnv: for training without a server, and as the floor that the server is measured against.

    env = TradingVectorEnv(source, Rules.of(RulesConfig()), num_envs=64)
    observations, _ = env.reset(seed=0)
    observations, rewards, terminated, truncated, infos = env.step(actions)

A row whose episode is over begins its next one at the following step, whose action it ignores (Gymnasium's NEXT_STEP).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.block import GOES_ON, EpisodeBlock, WarmUp
from policyserver.pipelines.market.episode_source import Episode, EpisodeSource
from policyserver.pipelines.market.feed import BarFeed, EpisodeBars
from policyserver.pipelines.market.forecaster import Forecaster
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import Statistic
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions
from policyserver.pipelines.market.schemes.scheme import View

_EPISODES_OF_A_SEED = 1_000_000
"""Episodes from the first one of a seed of `reset` to that of the next seed."""

_SEED_BITS = 40
"""Of a seed that is drawn: the numbers of its episodes are whole numbers of 63 bits."""


class TradingVectorEnv(gym.vector.VectorEnv[npt.NDArray[np.float32], Any, npt.NDArray[Any]]):
    """Trading episodes, n at a time, in one process and without threads."""

    def __init__(
        self,
        source: EpisodeSource,
        rules: Rules,
        num_envs: int,
        new_forecaster: Callable[[View], Forecaster] | None = None,
        statistics: frozenset[Statistic] = frozenset(),
    ) -> None:
        """Hold no episode before the first `reset`.

        Args:
            source: The episodes.
            rules: What they are about.
            num_envs: Episodes at a time.
            new_forecaster: Makes what forecasts, anew for each seed of `reset`; None: forecasts are 0.
            statistics: What it reads from the view.
        """
        self.num_envs = num_envs
        self.slots = source.slots
        """What the symbols of an episode are called in observations."""
        self.block = EpisodeBlock(num_envs, source.slots, rules, statistics, source.columns)
        """The state of the episodes; what a row's episode came to stays there until its next one begins."""
        self._new_forecaster = new_forecaster
        self._forecaster = new_forecaster(self.block.view) if new_forecaster else None
        self._source = source
        self._feed = BarFeed(num_envs, len(source.slots), len(source.columns))
        self._rows = np.arange(num_envs)
        self._over = np.ones(num_envs, dtype=np.bool_)
        self._next_number = 0
        self.single_observation_space = rules.observation_space(source.slots)
        self.single_action_space = rules.actions.space(source.slots)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin the next episode in each row.

        Args:
            seed: Where the sequence of episodes begins anew, a function of the source's own seed and their numbers: seed s at number
                s * 1,000,000. Of several the first counts. None: it goes on; at first a seed is drawn, which `np_random_seed` tells.
            options: `first_number`: number of the first of the new episodes, whatever the seed.
        """
        if seed is None and self._np_random_seed is None:
            seed = secrets.randbits(_SEED_BITS)  # so that several environments play different episodes
        if seed is not None:
            first = int(seed[0] if isinstance(seed, list | tuple) else seed)
            super().reset(seed=first)
            self._next_number = _EPISODES_OF_A_SEED * first
            self._forecaster = self._new_forecaster(self.block.view) if self._new_forecaster else None
        self._next_number = int((options or {}).get("first_number", self._next_number))
        self._begin(self._rows)
        self._predict(self._rows)
        return self.block.observe(), {}

    def step(
        self, actions: Actions
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Play each row that goes on to the bar at which its next action is due, and begin an episode in each that is over.

        Returns:
            Observations float32 (n, size), rewards float64 (n,), terminated and truncated bool (n,), and of each row its `terms`, float64
            (n, terms), and its `ends`, int64 (n,), as `Marked.ends` has them.
        """
        block, going, over = self.block, self._rows[~self._over], self._rows[self._over]
        rewards, terms = np.zeros(self.num_envs), np.zeros((self.num_envs, len(block.rules.rewards)))
        ends = np.full(self.num_envs, GOES_ON)
        if len(going):
            block.act(going, np.asarray(actions)[going])
        while len(going):
            bar = self._feed.next(going)
            block.fill(going, bar)
            marked = block.mark(going)
            rewards[going] += marked.rewards
            terms[going] += marked.terms
            ends[going] = marked.ends
            if self._forecaster is not None:
                self._forecaster.learn(going)
            going = going[(marked.ends == GOES_ON) & ~bar.asks] if bar.asks is not None else going[:0]
            self._predict(going)
        if len(over):
            self._begin(over)
        self._predict(self._rows)
        self._over = ends != GOES_ON
        terminated = block.terminates(ends)
        return block.observe(), rewards, terminated, self._over & ~terminated, {"terms": terms, "ends": ends}

    def _predict(self, rows: IntArray) -> None:
        if self._forecaster is not None and len(rows):
            self._forecaster.predict(rows)

    def _begin(self, rows: IntArray) -> None:
        """Begin the next episodes in rows."""
        numbers = range(self._next_number, self._next_number + len(rows))
        self._next_number += len(rows)
        episodes = self._source.episodes(numbers)
        begin_episodes(self.block, self._feed, rows, episodes)
        if self._forecaster is not None:
            self._forecaster.begin(rows, episodes)
        self._over[rows] = False


def begin_episodes(block: EpisodeBlock, feed: BarFeed, rows: IntArray, episodes: list[Episode]) -> None:
    """Begin an episode in each row of a block and of its feed; those of one length of warm-up together."""
    by_warm_up: dict[int, list[int]] = {}
    for place, episode in enumerate(episodes):
        by_warm_up.setdefault(episode.bars.warmup_bars, []).append(place)
        feed.begin(int(rows[place]), episode.bars)
    for count, places in by_warm_up.items():
        bars = [episodes[place].bars for place in places]
        warm_up = WarmUp(
            np.stack([episode.bars[:count] for episode in bars]),
            np.array([episode.time_ns[count - 1] for episode in bars]),
            np.array([episode.n_steps for episode in bars]),
            _stale_bars(bars),
        )
        block.begin(rows[places], warm_up)


def _stale_bars(episodes: list[EpisodeBars]) -> IntArray | None:
    """Return how old each symbol's price is at the bar of the first action, in bars, int64 (m, K); none: all are new."""
    if all(episode.stale_bars is None for episode in episodes):
        return None
    new = np.zeros(episodes[0].bars.shape[1], dtype=np.int64)
    return np.stack([new if episode.stale_bars is None else episode.stale_bars for episode in episodes])
