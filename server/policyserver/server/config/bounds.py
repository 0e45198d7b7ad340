"""Bounds of numbers in a configuration."""

from __future__ import annotations

import math


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number that is smaller than `least`, or not finite.

    Raises:
        ValueError: It is.
    """
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name}: expected a number of at least {least}, got {value!r}")


def at_most(name: str, value: float, most: float) -> None:
    """Refuse a number that is larger than `most`.

    Raises:
        ValueError: It is.
    """
    if not value <= most:
        raise ValueError(f"{name}: expected a number of at most {most}, got {value!r}")


def above(name: str, value: float, bound: float) -> None:
    """Refuse a number that is not larger than `bound`, or not finite.

    Raises:
        ValueError: It is.
    """
    if not (math.isfinite(value) and value > bound):
        raise ValueError(f"{name}: expected a number above {bound}, got {value!r}")
