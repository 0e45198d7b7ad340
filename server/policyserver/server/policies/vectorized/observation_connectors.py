"""RLlib's connectors that rewrite observations one by one, as operations on whole batches."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.acting.observations import Flattening, one_hot
from policyserver.server.policies.policy import Array, Mask, StepRows


class VectorizedConnector:
    """Rewrites observations before they are recorded, on whole batches."""

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the rewritten observations, one array per leaf of the output space; change nothing yet."""
        raise NotImplementedError

    def commit(self, kept: Mask) -> None:
        """Take over the state that the last `write` led to, if there is one; rows that are not `kept`, bool[n], were refused."""

    def as_it_is(self) -> VectorizedConnector:
        """Return one that goes on as this one is now and learns nothing. One without a state returns itself."""
        return self


class VectorizedFlatten(VectorizedConnector):
    """Do what RLlib's `FlattenObservations` does."""

    def __init__(self, space: gym.Space[Any], keys_to_remove: frozenset[Any] = frozenset()) -> None:
        """Prepare for a space of observations; the parts of a Dict at `keys_to_remove` are left out."""
        self.keys_to_remove = keys_to_remove
        self._flattening = Flattening(space, keys_to_remove)
        self.parts = self._flattening.parts

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the flat observations, float32[n, d]."""
        del rows
        return [self._flattening(leaves)]


class VectorizedPreviousAction(VectorizedConnector):
    """Add the action and the reward of the step before to an observation, as RLlib's `PrevActionsPrevRewards` does.

    Zeros stand for both in the first observation of an episode.
    """

    def __init__(self, form: ActionForm, space: gym.spaces.Discrete[Any]) -> None:
        """Prepare for an action space and the two forms of its actions."""
        self._form, self._depths = form, np.array([space.n])

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the leaves of a Dict: the observation's own, then action, float32[n, number of actions], and reward, float32[n, 1]."""
        actions = np.zeros((len(rows), int(self._depths[0])), np.float32)
        goes_on = np.flatnonzero(~rows.is_new)
        actions[goes_on] = one_hot(self._form.from_environment(rows.actions[goes_on]), self._depths)
        rewards = np.where(rows.is_new, 0.0, rows.rewards).astype(np.float32)[:, None]
        return [*leaves, actions, rewards]
