"""Tells a second signal to stop, which ends the process at once, from what comes with the first one.

A stop often comes twice: `timeout` sends SIGTERM to its command and then to the command's process group, a service manager may send SIGHUP
after it, a terminal that is closed after Ctrl-C does, and an operator's `ctl drain` may meet the service manager's stop. None of them wants
the last checkpoint broken off.
"""

from __future__ import annotations

import math
import signal
import time

_SAME_S = 1.0
"""Signals that are closer together than this are one."""


class SecondSignal:
    """What a stop was begun with, and when. From any thread, and from a signal handler."""

    def __init__(self) -> None:
        """Begin with nothing that stops."""
        self._stopped_s = -math.inf

    def note_stop(self) -> None:
        """Take note that a stop begins."""
        self._stopped_s = time.monotonic()

    def ends_at_once(self, number: int) -> bool:
        """Tell whether a signal that comes while the server stops ends it at once."""
        return number != signal.SIGHUP and time.monotonic() - self._stopped_s >= _SAME_S
