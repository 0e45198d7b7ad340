"""RLlib's connectors that rewrite observations one by one, as operations on whole batches."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.spaces import leaves as leaves_of
from policyserver.server.policies.module.action_form import ActionForm
from policyserver.server.policies.policy import Array, Mask, StepRows


class VectorizedConnector:
    """Rewrites observations before they are recorded, on whole batches."""

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the rewritten observations, one array per leaf of the output space; change nothing yet."""
        raise NotImplementedError

    def commit(self, kept: Mask) -> None:
        """Take over the state that the last `write` led to, if there is one; rows that are not `kept`, bool[n], were refused."""


class VectorizedFlatten(VectorizedConnector):
    """Join all parts of an observation in one row of float32 numbers, as RLlib's `FlattenObservations` does.

    Integers of a Discrete or a MultiDiscrete become one-hot vectors, everything else is laid out in its order.
    """

    def __init__(self, space: gym.Space[Any], keys_to_remove: frozenset[Any] = frozenset()) -> None:
        """Prepare for a space of observations; the parts of a Dict at `keys_to_remove` are left out."""
        spaces = {key: space.spaces[key] for key in sorted(space.spaces)} if isinstance(space, gym.spaces.Dict) else {None: space}
        keyed = [(key, _depths(leaf.space)) for key, part in spaces.items() for leaf in leaves_of(part)]
        self._parts = [(index, depths) for index, (key, depths) in enumerate(keyed) if key not in keys_to_remove]

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the flat observations, float32[n, d]."""
        del rows
        parts = [
            _two_axes(leaves[index]).astype(np.float32, copy=False) if depths is None else _one_hot(leaves[index], depths)
            for index, depths in self._parts
        ]
        return [parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)]


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
        actions[goes_on] = _one_hot(self._form.from_environment(rows.actions[goes_on]), self._depths)
        rewards = np.where(rows.is_new, 0.0, rows.rewards).astype(np.float32)[:, None]
        return [*leaves, actions, rewards]


def _depths(space: gym.Space[Any]) -> Array | None:
    """Return how many values each integer of a space has; None if its values are taken as they are."""
    if isinstance(space, gym.spaces.Discrete):
        return np.array([space.n])
    return np.asarray(space.nvec) if isinstance(space, gym.spaces.MultiDiscrete) else None


def _one_hot(leaf: Array, depths: Array) -> Array:
    """Write each integer of rows as a one-hot vector, float32[n, sum of depths]; negative ones count from the end."""
    digits = _two_axes(leaf)
    codes = np.zeros((len(leaf), int(depths.sum())), np.float32)
    places = np.concatenate(([0], np.cumsum(depths)[:-1])) + digits % depths
    codes[np.arange(len(leaf))[:, None], places] = 1.0
    return codes


def _two_axes(leaf: Array) -> Array:
    return leaf.reshape(len(leaf), math.prod(leaf.shape[1:]))
