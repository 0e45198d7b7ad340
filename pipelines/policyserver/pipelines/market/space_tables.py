"""Spaces as the tables that a server's settings have: so that a run writes them, and rules and server can't disagree."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.rules import Rules


def server_tables(rules: Rules, slots: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the tables `spaces.observation` and `spaces.action` of a server that rules need, by their keys.

    Args:
        rules: The rules.
        slots: What the symbols of an episode are called.

    Raises:
        SettingsError: A server has no table for the actions.
    """
    try:
        action = space_table(rules.actions.space(slots))
    except ValueError as error:
        raise SettingsError("rules.actions", "", str(error)) from error
    return {"spaces.observation": space_table(rules.observation_space(slots)), "spaces.action": action}


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
