"""Actions in two forms: as the RLModule's distribution gives them, and as the environment takes them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.spaces import Array


class UnsupportedSpaceError(ValueError):
    """A space that the served net can't be fed or read in."""


class ActionForm:
    """Translate batches of actions between their two forms.

    A bounded Box of floats is squashed to [-1, 1] on the net's side if actions are normalized, or clipped to its bounds if they are
    clipped; a Discrete or a MultiDiscrete counts from 0 there. A Box of one number and no axis has one axis there.

    Source: RLlib's `NormalizeAndClipActions` connector and its `unsquash_action` and `clip_action`.
    """

    def __init__(self, space: gym.Space[Any], *, normalize: bool, clip: bool) -> None:
        """Prepare for RLlib's `normalize_actions` and `clip_actions`; `clip` counts where nothing is normalized.

        Raises:
            UnsupportedSpaceError: The space is no Box of floats, Discrete or MultiDiscrete.
        """
        self.shape: tuple[int, ...]
        self.dtype: np.dtype[Any]
        self._executed_shape = space.shape
        self._executed_dtype = np.dtype(space.dtype) if space.dtype is not None else np.dtype("int64")
        self._scale: tuple[Array, Array] | None = None
        self._bounds: tuple[Array, Array] | None = None
        self._start: Array | None = None
        if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self.shape, self.dtype = space.shape or (1,), np.dtype("float32")
            if normalize and bool(space.bounded_below.all() and space.bounded_above.all()):
                self._scale = space.low, (space.high - space.low) / 2
                self._bounds = space.low, space.high
            elif clip and not normalize:
                self._bounds = space.low, space.high
        elif isinstance(space, gym.spaces.Discrete):
            self.shape, self.dtype = (), np.dtype("int64")
            self._start = np.asarray(space.start, np.int64)
        elif isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
            self.shape, self.dtype = space.shape, np.dtype("int64")
            self._start = np.asarray(space.start, np.int64)
        else:
            raise UnsupportedSpaceError(f"action space: expected a Box of floats, a Discrete or a flat MultiDiscrete, received {space}")

    def to_environment(self, actions: Array) -> Array:
        """Return the actions a client executes, of the space's dtype, from those of the net, [n, ...] both."""
        if self._start is not None:
            return (actions + self._start).astype(self._executed_dtype, copy=False)
        if self._scale is not None:
            low, half = self._scale
            actions = low + (actions + 1.0) * half
        if self._bounds is not None:  # after the scaling too, whose rounding can lead out of the space
            actions = np.clip(actions, *self._bounds)
        if not self._executed_shape:
            actions = actions.reshape(len(actions))
        return actions.astype(self._executed_dtype, copy=False)

    def from_environment(self, actions: Array) -> Array:
        """Return what the net would have had to give for these executed actions, [n, ...] both."""
        if self._start is not None:
            return actions.astype(np.int64) - self._start
        actions = actions.reshape(len(actions), *self.shape)
        if self._scale is not None:
            low, half = self._scale
            # A degenerate axis has one possible value, whatever the net says about it.
            actions = np.where(half > 0, (actions - low) / np.where(half > 0, half, 1.0) - 1.0, 0.0)
        return actions.astype(np.float32)
