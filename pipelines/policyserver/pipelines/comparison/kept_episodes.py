"""The newest whole episodes of a run with their actions, kept so that they can be played again when it has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.common.errors import PolicyServerError
from policyserver.pipelines.fallback import row_errors
from policyserver.pipelines.market.annualisation import Annualisation
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.played_block import Observations
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.serving import PolicyService

MOST_EPISODES = 256
"""Whole episodes that are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptEpisode:
    """A whole episode."""

    episode: Episode
    """What was played."""
    actions: npt.NDArray[Any]
    """What was done, fallbacks as they are reported, (n, ...)."""


class KeptEpisodes:
    """Stands between a pipeline and its prices and policy, and keeps what passes. Thread-safe: an episode is with one thread at a time."""

    def __init__(self, source: PriceSource, policy: PolicyService, is_stopping: Callable[[], bool]) -> None:
        """Pass on everything; an episode that ends while `is_stopping` isn't whole."""
        self._source = source
        self._policy = policy
        self._is_stopping = is_stopping
        self._open: dict[str, tuple[Episode, list[npt.NDArray[Any]]]] = {}
        self._newest: deque[KeptEpisode] = deque(maxlen=MOST_EPISODES)

    def newest(self) -> list[KeptEpisode]:
        """Return the newest whole episodes, the oldest first."""
        return list(self._newest)

    # The prices ----------------------------------------------------------------------------------------------------------------------

    @property
    def symbols(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return self._source.symbols

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return self._source.slots

    @property
    def is_recorded(self) -> bool:
        """See `PriceSource`."""
        return self._source.is_recorded

    @property
    def columns(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return self._source.columns

    @property
    def notes(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return self._source.notes

    @property
    def n_windows(self) -> int:
        """See `PriceSource`."""
        return self._source.n_windows

    @property
    def annualisations(self) -> Mapping[str, Annualisation]:
        """See `PriceSource`."""
        return self._source.annualisations

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """See `EpisodeSource`."""
        episodes = self._source.episodes(numbers)
        self._open.update((episode.id, (episode, [])) for episode in episodes)
        return episodes

    # The policy ----------------------------------------------------------------------------------------------------------------------

    @property
    def weights_seq_no(self) -> int:
        """See `PolicyService`."""
        return self._policy.weights_seq_no

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """See `PolicyService`."""
        return self._policy.start_episodes(episodes, training_enabled)

    def take_learner_wait_s(self) -> float:
        """See `PolicyService`."""
        return self._policy.take_learner_wait_s()

    def answered_by(self) -> npt.NDArray[np.int64]:
        """See `PolicyService`."""
        return self._policy.answered_by()

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """See `PolicyService`."""
        self._policy.log_returns_batch(episode_ids, rewards)

    def get_actions(self, episode_ids: Sequence[str], observations: Observations) -> npt.NDArray[Any]:
        """See `PolicyService`."""
        try:
            actions: npt.NDArray[Any] = self._policy.get_actions(episode_ids, observations)
        except PolicyServerError as error:
            partial, errors = getattr(error, "actions", None), row_errors(error, len(episode_ids))
            if partial is not None:
                self._keep(episode_ids, partial, errors.keys())
            raise
        self._keep(episode_ids, actions, ())
        return actions

    def log_actions(self, episode_ids: Sequence[str], observations: Observations, actions: npt.NDArray[Any]) -> None:
        """See `PolicyService`."""
        try:
            self._policy.log_actions(episode_ids, observations, actions)
        except PolicyServerError as error:
            self._keep(episode_ids, actions, row_errors(error, len(episode_ids)).keys())
            raise
        self._keep(episode_ids, actions, ())

    def end_episodes(
        self, episode_ids: Sequence[str], observations: Observations, truncated: npt.NDArray[np.bool_], *, timeout_s: float | None = None
    ) -> None:
        """See `PolicyService`."""
        for name in episode_ids:
            episode, actions = self._open.pop(name, (None, []))
            if episode is not None and actions and (len(actions) == episode.bars.n_steps or not self._is_stopping()):
                self._newest.append(KeptEpisode(episode, np.array(actions)))
        self._policy.end_episodes(episode_ids, observations, truncated, timeout_s=timeout_s)

    def _keep(self, episode_ids: Sequence[str], actions: npt.NDArray[Any], without: Any) -> None:
        for row, (name, action) in enumerate(zip(episode_ids, actions, strict=True)):
            if name in self._open and row not in without:
                self._open[name][1].append(action)
