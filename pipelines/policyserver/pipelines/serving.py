"""What the nodes need of a policy client, such as `client.PolicyClient`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.events import Observation


class PolicyService(Protocol):
    """Batched calls about many episodes; see `client.PolicyClient` for their meaning and errors."""

    @property
    def weights_seq_no(self) -> int:
        """Policy version of the newest answer."""

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """Start episodes of given ids."""

    def get_actions(self, episode_ids: Sequence[str], observations: Observation) -> Any:
        """Ask for actions, observations float32 (n, 10); returns integers (n,)."""

    def take_learner_wait_s(self) -> float:
        """Return how long calls of the calling thread waited for the learner since it last asked, seconds."""

    def log_actions(self, episode_ids: Sequence[str], observations: Observation, actions: npt.NDArray[np.int64]) -> None:
        """Report actions that the policy did not choose."""

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Add rewards to the newest actions."""

    def end_episodes(
        self, episode_ids: Sequence[str], observations: Observation, truncated: npt.NDArray[np.bool_], *, timeout_s: float | None = None
    ) -> None:
        """End episodes with their last observations."""
