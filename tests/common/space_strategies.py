"""Random spaces of every kind that travels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
ANY_SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)
FLOATS: tuple[Any, ...] = (np.float32, np.float64)
INTEGERS: tuple[Any, ...] = (np.int8, np.int32, np.int64, np.uint8)


@st.composite
def boxes(draw: st.DrawFn, shapes: Any = ANY_SHAPES, dtypes: Any = (*FLOATS, *INTEGERS, np.bool_)) -> spaces.Box:
    """A Box of any shape: with the same bounds for all elements or its own for each; floats may be unbounded on either side."""
    shape, dtype = draw(shapes), draw(st.sampled_from(dtypes))
    if dtype is np.bool_:
        return spaces.Box(0, 1, shape, np.bool_)  # type: ignore[arg-type]
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    bound_shape = draw(st.sampled_from([(), shape]))
    lowest, highest = (0, 250) if dtype is np.uint8 else (-120, 100)
    low = random.integers(lowest, highest, bound_shape, endpoint=True)
    high = low + random.integers(0, 6, bound_shape)
    if dtype in FLOATS:
        low, high = low / 7, high / 7 + 0.01
        low = np.where(random.random(bound_shape) < draw(st.sampled_from([0.0, 0.5])), -np.inf, low)
        high = np.where(random.random(bound_shape) < draw(st.sampled_from([0.0, 0.5])), np.inf, high)
    low, high = (np.array(np.broadcast_to(bound, shape), dtype) for bound in (low, high))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def discretes(draw: st.DrawFn) -> spaces.Discrete[Any]:
    """A Discrete of any integer dtype that travels, which may begin anywhere."""
    dtype = draw(st.sampled_from(INTEGERS))
    return spaces.Discrete(draw(st.integers(1, 9)), start=draw(st.integers(0 if dtype is np.uint8 else -100, 100)), dtype=dtype)


@st.composite
def multi_discretes(draw: st.DrawFn, max_axes: int = 3) -> spaces.MultiDiscrete:
    """A MultiDiscrete of one or more axes, with or without a start."""
    dtype = draw(st.sampled_from(INTEGERS))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=max_axes))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    nvec = random.integers(1, 5, shape, endpoint=True)
    start = random.integers(0 if dtype is np.uint8 else -9, 9, shape) if draw(st.booleans()) else None
    return spaces.MultiDiscrete(nvec.astype(dtype), dtype=dtype, start=start)


MULTI_BINARIES = st.one_of(st.integers(1, 4), st.lists(st.integers(1, 3), min_size=2, max_size=3)).map(spaces.MultiBinary)
LEAVES: st.SearchStrategy[gym.Space[Any]] = st.one_of(boxes(), discretes(), multi_discretes(), MULTI_BINARIES)


def nested(parts: st.SearchStrategy[gym.Space[Any]], max_leaves: int = 6) -> st.SearchStrategy[gym.Space[Any]]:
    """One of these spaces, or Dicts and Tuples of them."""
    return st.recursive(
        parts,
        lambda inner: st.one_of(
            st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=max_leaves,
    )


SPACES = nested(LEAVES)
"""Every kind of space that travels."""
ACTION_SPACES: st.SearchStrategy[gym.Space[Any]] = st.one_of(
    boxes(st.lists(st.integers(1, 3), max_size=2).map(tuple), FLOATS), discretes(), multi_discretes(1)
)
"""Every kind of space that a policy acts in."""


def samples(space: gym.Space[Any], count: int, seed: int = 0) -> list[Any]:
    """Members of a space, the same for the same seed."""
    space.seed(seed)
    return [space.sample() for _ in range(count)]
