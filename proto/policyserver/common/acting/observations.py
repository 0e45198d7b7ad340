"""What RLlib's usual connectors do to observations, on whole batches of arrays."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.spaces import Array, leaves

LEAST_DEVIATION = 1e-6
"""What is added to a standard deviation before it divides: SMALL_NUMBER of ray.rllib.utils.numpy."""


class Flattening:
    """Join all parts of an observation in one row of float32 numbers, as RLlib's `FlattenObservations` does.

    Integers of a Discrete or a MultiDiscrete become one-hot vectors, everything else is laid out in its order.
    """

    def __init__(self, space: gym.Space[Any], keys_to_remove: Collection[Any] = ()) -> None:
        """Prepare for a space of observations; the parts of a Dict at `keys_to_remove` are left out."""
        spaces = {key: space.spaces[key] for key in sorted(space.spaces)} if isinstance(space, gym.spaces.Dict) else {None: space}
        keyed = [(key, leaf) for key, part in spaces.items() for leaf in leaves(part)]
        kept = [(index, leaf) for index, (key, leaf) in enumerate(keyed) if key not in keys_to_remove]
        self.parts = [(index, _depths(leaf.space)) for index, leaf in kept]
        """Which leaves there are, and how many values each integer of a discrete one has."""
        self.size = sum(_size(leaf.space, leaf.shape) for _, leaf in kept)
        """Numbers of a row."""

    def __call__(self, observations: list[Array]) -> Array:
        """Return flat observations, float32[n, size], from one array per leaf, [n, ...]."""
        parts = [
            _two_axes(observations[index]).astype(np.float32, copy=False) if depths is None else one_hot(observations[index], depths)
            for index, depths in self.parts
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def one_hot(leaf: Array, depths: Array) -> Array:
    """Write each integer of rows as a one-hot vector, float32[n, sum of depths]; negative ones count from the end."""
    digits = _two_axes(leaf)
    codes = np.zeros((len(leaf), int(depths.sum())), np.float32)
    places = np.concatenate(([0], np.cumsum(depths)[:-1])) + digits % depths
    codes[np.arange(len(leaf))[:, None], places] = 1.0
    return codes


def scaled(images: Array) -> Array:
    """Return bytes as float32 numbers from -1 to 1."""
    numbers: Array = images.astype(np.float32)
    numbers /= 128
    numbers -= 1
    return numbers


def normalised(values: Array, remainders: Array, deviations: Array, *, demean: bool, destd: bool, clip: float | None) -> Array:
    """Do to rows, [n, ...], what RLlib's `MeanStdFilter` is set to do; `remainders` are the rows less their means, float64[n, ...]."""
    result = remainders if demean else values
    if destd:
        result = result / (deviations + LEAST_DEVIATION)
    if clip:
        result = np.clip(result, -clip, clip)
    return result.astype(values.dtype)


def stacked(frames: Array, newest: Array) -> Array:
    """Join earlier frames, [n, k, ...], and the newest ones, [n, ...], along the last axis: [n, ..., k + 1 times as long]."""
    return np.concatenate([*(frames[:, index] for index in range(frames.shape[1])), newest], axis=-1)


def _depths(space: gym.Space[Any]) -> Array | None:
    """Return how many values each integer of a space has; None if its values are taken as they are."""
    if isinstance(space, gym.spaces.Discrete):
        return np.array([space.n])
    return np.asarray(space.nvec) if isinstance(space, gym.spaces.MultiDiscrete) else None


def _size(space: gym.Space[Any], shape: tuple[int, ...]) -> int:
    depths = _depths(space)
    return math.prod(shape) if depths is None else sum(map(int, depths.flat))


def _two_axes(leaf: Array) -> Array:
    return leaf.reshape(len(leaf), math.prod(leaf.shape[1:]))
