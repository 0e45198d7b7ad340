"""What the nodes need of a policy client. `client.PolicyClient` is one; a live feed or a test may bring another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.played_block import Observations


class PolicyService(Protocol):
    """Batched calls about many episodes; see `client.PolicyClient` for their meaning and errors."""

    @property
    def weights_seq_no(self) -> int:
        """Newest policy version heard of."""

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """Start episodes of given ids."""

    def get_actions(self, episode_ids: Sequence[str], observations: Observations) -> Any:
        """Ask for actions, observations float32 (n, size); returns actions (n, ...)."""

    def answered_by(self) -> npt.NDArray[np.int64]:
        """Return the policy version behind each answer to the calling thread's newest `get_actions`, int64 (n,)."""

    def take_learner_wait_s(self) -> float:
        """Return how long the calling thread's calls waited for the learner since it asked last, seconds."""

    def log_actions(self, episode_ids: Sequence[str], observations: Observations, actions: npt.NDArray[Any]) -> None:
        """Report actions that the policy did not choose."""

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Add rewards to the newest actions."""

    def end_episodes(
        self, episode_ids: Sequence[str], observations: Observations, truncated: npt.NDArray[np.bool_], *, timeout_s: float | None = None
    ) -> None:
        """End episodes with their last observations."""
