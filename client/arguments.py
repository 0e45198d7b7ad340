"""What callers hand over besides observations and actions, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.errors import InvalidInputError

__all__ = ["count", "plain"]


def count(episode_ids: Sequence[str]) -> int:
    """Count ids.

    Raises:
        InvalidInputError: one comes twice.
    """
    if len(set(episode_ids)) != len(episode_ids):
        raise InvalidInputError("episode_ids: expected different ones, received one of them twice", field="episode_ids")
    return len(episode_ids)


def plain(value: Any) -> Any:
    """Turn numpy's scalars and arrays into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
