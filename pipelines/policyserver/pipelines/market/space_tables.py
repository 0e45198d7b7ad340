"""Spaces as the tables that a server's settings have: so that a run writes them, and rules and server can't disagree."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt


def space_table(space: gym.Space[Any]) -> dict[str, Any]:
    """Return the table of `[spaces]` that describes a space.

    Raises:
        ValueError: It is another space than Box, Discrete or MultiDiscrete.
    """
    if isinstance(space, gym.spaces.Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"type": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    raise ValueError(f"space: expected a Box, Discrete or MultiDiscrete, received {space}")


def _bound(values: npt.NDArray[Any]) -> Any:
    """Return one number where all are the same, else nested lists."""
    return values.flat[0].item() if values.size and np.all(values == values.flat[0]) else values.tolist()
