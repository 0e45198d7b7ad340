"""How long a thread of this process computes before another may."""

from __future__ import annotations

import sys

_SWITCH_INTERVAL_S = 0.001


def switch_threads_often() -> None:
    """Let threads take turns each millisecond: Python's default of 5 ms would be felt in the latency of actions."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
