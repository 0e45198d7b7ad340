"""Lets callers that were answered go on one after another.

Python runs one thread at a time. Callers that are woken all at once only queue for its lock: each is woken twice, once for its answer and
once for the lock, on whichever core has nothing to do, and looks every few milliseconds whether it may go on. So a caller is woken by the
one before it, as soon as that one runs; what it does then, however long, holds nobody up. Where the lock or a core is long in coming, all
that are in line go on at once, as they would without this.
"""

from __future__ import annotations

import time
from collections import deque

from client.calls import Call

__all__ = ["TURN_S", "Turnstile"]

TURN_S = 0.001
"""Time that a woken caller usually needs at most until it runs, seconds: several times what a busy core takes."""


class Turnstile:
    """The line of one client's answered callers. Guarded by the client's lock."""

    def __init__(self) -> None:
        self._line: deque[Call] = deque()
        self._given_s: float | None = None
        """When the newest turn was given; None while nobody has one."""

    def __len__(self) -> int:
        """Return how many are in line."""
        return len(self._line)

    @property
    def is_busy(self) -> bool:
        """Tell whether a caller was woken that does not run yet."""
        return self._given_s is not None

    def admit(self, call: Call) -> None:
        """Let an answered caller go on: after those before it, unless they are long in going."""
        if self._given_s is None or time.monotonic() - self._given_s > TURN_S:
            self._give(call)
        else:
            self._line.append(call)

    def pass_on(self, call: Call) -> bool:
        """Give a caller's turn, if it has one, to the next. Called by its thread once that runs, or will not.

        Returns:
            Whether this was the last of the line.
        """
        if not call.has_turn:
            return False
        if self._given_s is not None and time.monotonic() - self._given_s > TURN_S:
            while len(self._line) > 1:
                self._give(self._line.popleft())
        if self._line:
            self._give(self._line.popleft())
        else:
            self._given_s = None
        call.has_turn = False  # last: a turn that is given twice does no harm, but one that is lost would hold up everybody
        return self._given_s is None

    def leave(self, call: Call) -> None:
        """Forget an answered caller that no longer waits for its turn."""
        self._line.remove(call)

    def _give(self, call: Call) -> None:
        call.has_turn = True
        self._given_s = time.monotonic()
        call.waiter.release()
