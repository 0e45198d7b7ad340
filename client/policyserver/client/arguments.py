"""What callers hand over besides observations and actions, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policyserver.common.errors import InvalidInputError

__all__ = ["count", "encoded_info", "plain"]


def count(episode_ids: Sequence[str]) -> int:
    """Count ids.

    Raises:
        InvalidInputError: one comes twice.
    """
    if len(set(episode_ids)) != len(episode_ids):
        raise InvalidInputError("episode_ids: expected different ones, received one of them twice", field="episode_ids")
    return len(episode_ids)


def encoded_info(info: Mapping[str, Any], room_bytes: int) -> str:
    """Encode an info so that it fits into a message beside its observation.

    Raises:
        InvalidInputError: JSON can't hold it, or it takes more than `room_bytes`.
    """
    try:
        text = json.dumps(dict(info), allow_nan=False, default=plain)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"info: expected what JSON can hold, received {type(info).__name__}: {error}", field="info") from error
    if len(text) > room_bytes:
        raise InvalidInputError(f"info: expected at most {room_bytes} bytes of JSON, received {len(text)}", field="info")
    return text


def plain(value: Any) -> Any:
    """Turn numpy's scalars and arrays into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
