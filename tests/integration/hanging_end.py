"""Callbacks whose import keeps serving actors from ending by themselves, as a driver or a library that hangs does."""

from __future__ import annotations

import os
import threading

from ray._private.worker import WORKER_MODE, global_worker
from ray.rllib.callbacks.callbacks import RLlibCallback

_exit = os._exit


def _hang(status: int) -> None:
    if global_worker.mode == WORKER_MODE:
        threading.Event().wait()
    _exit(status)


os._exit = _hang  # type: ignore[assignment]


class HangingEnd(RLlibCallback):  # type: ignore[misc]
    """Does nothing."""
