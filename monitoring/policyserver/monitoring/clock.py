"""Timestamps that strictly increase within the process: of two points of one series in the same nanosecond, one would replace the other."""

from __future__ import annotations

import os
import threading
import time

import numpy as np

_lock = threading.Lock()
_last_ns = 0


def stamp(count: int) -> np.ndarray:
    """Allot `count` timestamps, int64 nanoseconds since 1970 (UTC), each larger than all that this process allotted before.

    They start at the time of the wall clock, or right after the newest timestamp if the clock is behind it.

    Raises:
        ValueError: `count` is negative.
    """
    global _last_ns
    if count < 0:
        raise ValueError(f"count: expected 0 or more timestamps, received {count}")
    with _lock:
        first = max(time.time_ns(), _last_ns + 1)
        _last_ns = first + count - 1 if count else _last_ns
    return np.arange(first, first + count, dtype=np.int64)


def _unlock_in_child() -> None:
    """Replace the lock, which another thread of the parent may have held at the fork."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)
