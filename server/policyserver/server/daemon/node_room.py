"""How many actors a node of a cluster has room for."""

from __future__ import annotations

from collections.abc import Mapping

_PARTS = 10_000
"""Into which Ray divides a resource."""


def room_on(free: Mapping[str, float], wanted: Mapping[str, float], most: int) -> int:
    """Return how many actors a node takes whose free resources are these, `most` at most."""
    parts = {name: round(amount * _PARTS) for name, amount in wanted.items()}
    return min([most, *(round(free.get(name, 0.0) * _PARTS) // part for name, part in parts.items() if part > 0)])
