"""Lets answered callers go on one after another.

Python runs one thread at a time. Callers that are all woken at once only queue for its lock: each is woken twice, once for its answer and
once for the lock, on whichever core is idle, and checks every few milliseconds whether it may go on. So each caller wakes the next as soon
as it runs; what it does afterwards delays no other. If the lock or a core is slow to come, all queued callers are woken at once, as they
would be without this queue: by the late caller itself, by the next answer, or by the sender (`Connection`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from policyserver.client.messages import Reply
from policyserver.client.rows import Home, OutgoingRows


@dataclass(slots=True, eq=False)
class Call:
    """What one thread waits for: the answers to its parts. Guarded by the client's lock."""

    waiter: threading.Lock
    """Held by the thread that waits; released once, by the wake-up queue, when each part is answered or will not be."""
    parts: Sequence[CallPart] = ()
    home: Home = field(init=False)
    """Where its first part goes, and its thread is likely to ask next."""
    unanswered: int = 0
    """Parts that may still be answered."""
    is_waiting: bool = True
    """A thread waits, and there is something to wait for."""

    def add(self, pieces: Iterable[OutgoingRows], home: Home) -> list[CallPart]:
        """Wait for the answers to these, too; each fits into a message."""
        parts = [CallPart(rows, self) for rows in pieces]
        if not self.parts:
            self.home = home
        self.parts = [*self.parts, *parts]
        self.unanswered += len(parts)
        return parts

    def add_one(self, rows: OutgoingRows, home: Home) -> CallPart:
        """Wait for the answer to this alone; it fits into a message."""
        part = CallPart(rows, self)
        self.parts = (part,)
        self.home = home
        self.unanswered = 1
        return part


@dataclass(slots=True, eq=False)
class CallPart:
    """Rows of one call that travel in one message."""

    rows: OutgoingRows
    call: Call
    reply: Reply | None = None
    first: int = 0
    """Place of its first row in the reply."""
    epoch: int = 0
    """Of the server that answered."""
    rooms: int = 0
    """How often that had said before the answer that there is room."""

    def settle(self) -> bool:
        """Take note that it is answered, or will not be. Returns whether it was the last part that its caller waits for."""
        call = self.call
        call.unanswered -= 1
        if call.unanswered == 0 and call.is_waiting:
            call.is_waiting = False
            return True
        return False


WAKE_UP_MAX_S = 0.003
"""Time after which the others no longer wait for a woken caller that does not run yet, seconds: many times what it usually takes, but less
than Python's switch interval, for which a computing thread keeps it waiting."""


HOLD_BACK_MAX_S = 0.02
"""Longest time that rows wait to travel with those of the queued callers, seconds: what half of some hundred threads take to go on."""


class WakeUpQueue:
    """Wakes the answered callers of one client in order. Guarded by the client's lock."""

    def __init__(self) -> None:
        self._queued: deque[Call] = deque()
        self._woken: set[Call] = set()
        """The callers that were woken and do not run yet: one, as a rule. The last of them wakes the next."""
        self._moved_s = 0.0
        """When a caller was last woken, or ran."""

    def __len__(self) -> int:
        """Return how many are queued."""
        return len(self._queued)

    @property
    def is_busy(self) -> bool:
        """Tell whether a caller was woken that does not run yet."""
        return bool(self._woken)

    @property
    def is_moving(self) -> bool:
        """Tell whether that caller will run at once."""
        return bool(self._woken) and not self._is_late(time.monotonic())

    def enqueue(self, call: Call) -> None:
        """Let an answered caller go on: after those before it, unless they are late."""
        now_s = time.monotonic()
        if self._woken and self._is_late(now_s):
            self.wake_all()
        if self._woken:
            self._queued.append(call)
            call.home.callers_waking += 1
        else:
            self._wake(call, now_s)

    def wake_next(self, call: Call) -> bool:
        """Wake the next caller, if this is the last that was woken. Called by its thread once that runs, or will not.

        Returns:
            Whether no other caller is woken or queued.
        """
        if call not in self._woken:
            return False
        now_s = time.monotonic()
        if self._is_late(now_s):
            self.wake_all()
        elif self._queued and len(self._woken) == 1:
            self._wake_first(now_s)
        self._moved_s = now_s
        self._woken.discard(call)  # last: after an interrupt before it, the next is woken when the call is given up
        return not self._woken

    def wake_all(self) -> None:
        """Wake all queued callers, and wait no longer for those woken before."""
        self._woken.clear()
        while self._queued:
            self._wake_first(time.monotonic())

    def wake_all_if_late(self) -> None:
        """Wake all queued callers if a woken one has not run for too long."""
        if self._woken and self._is_late(time.monotonic()):
            self.wake_all()

    def remove(self, call: Call) -> None:
        """Forget an answered caller that no longer waits, unless it was woken: then it has yet to wake the next."""
        if call in self._queued:
            self._queued.remove(call)
            call.home.callers_waking -= 1

    def _is_late(self, now_s: float) -> bool:
        return now_s - self._moved_s > WAKE_UP_MAX_S

    def _wake_first(self, now_s: float) -> None:
        call = self._queued.popleft()
        call.home.callers_waking -= 1
        self._wake(call, now_s)

    def _wake(self, call: Call, now_s: float) -> None:
        self._woken.add(call)
        self._moved_s = now_s
        call.waiter.release()
