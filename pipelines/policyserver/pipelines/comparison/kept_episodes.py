"""Whole episodes with their actions, kept so that they can be played again when a run has ended.

While the policy learns the newest are kept, for earlier ones are of another policy. Of a test all are kept, or an even part where they are
too many to be played again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.step_kinds import StepKinds

NEWEST_EPISODES = 256
"""Newest whole episodes that are kept."""

MOST_STEPS = 200_000
"""Steps of the episodes that are played again: it takes a second or so for each of those beside the policy and for each cost."""

MOST_BARS = 2_000_000
"""Their bars, each counted as long as the longest: where the policy is not asked at each bar, these are what time and memory go to."""

_SLACK = 1.25
"""How far a part may grow beyond these before it is thinned out, so that this is not done for each episode."""

_RANKS = 2**32
_GOLDEN = 2_654_435_769
"""`_RANKS` over the golden ratio: of numbers in a row, those whose multiples of it lie below a bound are spread evenly."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptEpisode:
    """A whole episode."""

    episode: Episode
    """What was played."""
    actions: npt.NDArray[Any]
    """What was done, fallbacks as they are reported, (n, ...)."""
    kinds: StepKinds | None = None
    """What these steps did, (n,); None: each did what its action says."""
    profit: float | None = None
    """What it earned: simple profit over the initial equity; None: that is not known."""

    @property
    def rank(self) -> int:
        """Where it comes when a part is chosen, those of low rank first: they are spread evenly over the numbers, and so over time."""
        return self.episode.number * _GOLDEN % _RANKS


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeSample:
    """Which of the whole episodes of a run, or of several, are played again."""

    episodes: Sequence[KeptEpisode]
    """These, in the order of their ends."""
    whole: int
    """How many whole episodes there were."""
    are_newest: bool = False
    """Whether they are the newest; else they are all, or an even part."""
    below: int = _RANKS
    """The rank that all of an even part are below."""

    @classmethod
    def together(cls, samples: Sequence[EpisodeSample]) -> EpisodeSample:
        """Return those of several runs as one: of each an equal share."""
        below = min((sample.below for sample in samples), default=_RANKS)
        episodes = [each for sample in samples for each in sample.episodes if each.rank < below]
        return cls(episodes, sum(sample.whole for sample in samples), any(sample.are_newest for sample in samples), below)

    def spread(self) -> EpisodeSample:
        """Return the part that can be played again: the steps and bars of all of it are bounded."""
        ranked = sorted(self.episodes, key=lambda each: each.rank)
        count = affordable(ranked)
        if count == len(ranked):
            return self
        below = ranked[count].rank
        return replace(self, episodes=[each for each in self.episodes if each.rank < below], below=below)

    def text(self) -> str:
        """Say which of how many they are."""
        return which_text(len(self.episodes), self.whole, are_newest=self.are_newest)


def which_text(count: int, whole: int, *, are_newest: bool) -> str:
    """Say which of the whole episodes figures are of: the newest, or else all or an even part."""
    if count == whole:
        return f"all {whole:,} whole episodes"
    return f"the newest {count:,} of {whole:,} whole episodes" if are_newest else f"{count:,} of {whole:,} whole episodes, spread evenly"


def affordable(episodes: Sequence[KeptEpisode]) -> int:
    """Return how many of the first ones have no more steps and bars together than can be played again."""
    if not episodes:
        return 0
    steps = np.cumsum([len(each.actions) for each in episodes])
    longest = np.maximum.accumulate([each.episode.bars.n_steps for each in episodes])
    return int(np.count_nonzero((steps <= MOST_STEPS) & (longest * np.arange(1, len(episodes) + 1) <= MOST_BARS)))


class KeptEpisodes:
    """Whole episodes of a run, bounded in steps and bars. Belongs to one thread."""

    def __init__(self, *, of_test: bool) -> None:
        """Have none; `of_test`: whether they are of all of the run and not the newest."""
        self._of_test = of_test
        self._newest: deque[KeptEpisode] = deque(maxlen=NEWEST_EPISODES)
        self._spread = EpisodeSample([], 0)
        self._steps = self._longest = 0
        self._whole = 0

    def extend(self, episodes: Sequence[KeptEpisode]) -> None:
        """Take whole episodes, in the order of their ends; those without kept actions are counted."""
        self._whole += len(episodes)
        with_actions = [each for each in episodes if len(each.actions)]
        if not self._of_test:
            self._newest.extend(with_actions)
            return
        added = [each for each in with_actions if each.rank < self._spread.below]
        kept = [*self._spread.episodes, *added]
        self._steps += sum(len(each.actions) for each in added)
        self._longest = max([self._longest, *(each.episode.bars.n_steps for each in added)])
        self._spread = replace(self._spread, episodes=kept)
        if self._steps > _SLACK * MOST_STEPS or self._longest * len(kept) > _SLACK * MOST_BARS:
            self._spread = self._spread.spread()
            self._steps = sum(len(each.actions) for each in self._spread.episodes)
            self._longest = max((each.episode.bars.n_steps for each in self._spread.episodes), default=0)

    def sample(self) -> EpisodeSample:
        """Return those that can be played again."""
        if self._of_test:
            return replace(self._spread, whole=self._whole).spread()
        count = affordable([*reversed(self._newest)])
        return EpisodeSample([*self._newest][len(self._newest) - count :], self._whole, are_newest=True)
