"""The time limit of a stop: an alarm that breaks off what the main thread does, but for what must be whole, as a checkpoint must."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from policyserver.server.daemon.daemon_errors import DrainTimeoutError

_AGAIN_S = 0.01


class DrainAlarm:
    """SIGALRM, which raises DrainTimeoutError in the main thread. Of that thread, signal handlers included."""

    def __init__(self) -> None:
        """Begin without a limit."""
        self._holds = 0
        self._left_s = 0.0
        """What is left of the limit while it is held; 0 without one."""

    def handle(self) -> None:
        """Be the handler of SIGALRM, of which Ray's core may have become one."""
        signal.signal(signal.SIGALRM, self._on_alarm)

    def begin(self, limit_s: float) -> None:
        """Limit what runs from now on, or after what is held."""
        limit_s = max(0.001, limit_s)
        if self._holds:
            self._left_s = limit_s
        else:
            signal.setitimer(signal.ITIMER_REAL, limit_s)

    def end(self) -> None:
        """Limit nothing any more. Without a limit it does nothing."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._left_s = 0.0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the limit wait for as long as the block runs, one that begins meanwhile, too."""
        self._holds += 1  # first: from here on nothing is raised
        if left_s := signal.setitimer(signal.ITIMER_REAL, 0)[0]:
            self._left_s = left_s
        try:
            yield
        finally:
            self._holds -= 1
            left_s = self._left_s
            if left_s and not self._holds:
                self._left_s = 0.0
                signal.setitimer(signal.ITIMER_REAL, left_s)

    def _on_alarm(self, _: int, __: Any) -> None:
        if self._holds:  # it went off in the moment in which it was held
            self._left_s = _AGAIN_S
        else:
            raise DrainTimeoutError("it took too long")
