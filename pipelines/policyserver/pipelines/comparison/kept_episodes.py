"""The newest whole episodes of a run with their actions, kept so that they can be played again when it has ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.step_kinds import StepKinds

MOST_EPISODES = 256
"""Whole episodes that are kept."""


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


KeptEpisodes = deque[KeptEpisode]
"""The newest of them, the oldest first."""


def no_episodes() -> KeptEpisodes:
    """Return room for the newest."""
    return deque(maxlen=MOST_EPISODES)
